"""PromQL in few words, and the queries that several boards have."""

from typing import Final

_PROBES: Final = "/readyz|/healthz|/startupz|/metrics"
GOOD_AT_ONE: Final[dict[float, str]] = {0: "red", 1: "green"}


def of(name: str, *matchers: str) -> str:
    """One metric of the instances that are looked at."""
    return name + "{" + ",".join(('instance=~"$instance"', *matchers)) + "}"


def rate(name: str, *matchers: str) -> str:
    """Its increase a second."""
    return f"rate({of(name, *matchers)}[$__rate_interval])"


def total(expression: str, *by: str) -> str:
    """Its sum, or its sums by labels."""
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def share(part: str, whole: str) -> str:
    """Part of a whole; nothing where there is no whole, instead of 0/0."""
    return f"{part} / ({whole} > 0)"


def quantile(value: float, name: str, *by: str, matchers: tuple[str, ...] = ()) -> str:
    """A quantile of a histogram."""
    buckets = total(rate(f"{name}_bucket", *matchers), "le", *by)
    return f"histogram_quantile({value}, {buckets})"


def mean(name: str, *by: str) -> str:
    """The mean of a histogram."""
    return share(total(rate(f"{name}_sum"), *by), total(rate(f"{name}_count"), *by))


ASKED: Final = rate("vtag_requests_total", f'endpoint!~"{_PROBES}"')
FAILED: Final = rate("vtag_requests_total", 'outcome="5xx"', f'endpoint!~"{_PROBES}"')
SHED: Final = rate("vtag_rejected_total", 'reason=~"queue_full|deadline"')
