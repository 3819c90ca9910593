"""Traces: what a request waited for and where it was worked on, sent by OTLP if an operator asks.

Spans are those of OpenTelemetry; its library is an extra, and imported only by `exporting`. Until
then nothing here does anything. Children have no tracing of their own: they tell when they worked
(the clock of `time.monotonic` is one for the machine), and the parent makes the span.

Names and attributes say what our code does, never what a client sent; of exceptions, their kind.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TypeVar

from starlette.datastructures import Headers

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

T = TypeVar("T")
Attributes = Mapping[str, str | int | float | bool]
Place = Any
"""Where in a trace: a Context of OpenTelemetry."""

_NOTHING: Final[AbstractContextManager[None]] = nullcontext()
_SEND_SECONDS: Final = 5.0

_tracer: Tracer | None = None


@asynccontextmanager
async def exporting(endpoint: str | None) -> AsyncIterator[None]:
    """Trace what happens inside, and send it to the collector at ``endpoint``; None: do not.

    Further settings are OpenTelemetry's own variables: OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER,
    OTEL_EXPORTER_OTLP_HEADERS and so on. A collector that is away costs spans and nothing else.

    Args:
        endpoint: ``http(s)://host:port``; spans go to ``/v1/traces`` below it.
    """
    global _tracer
    if endpoint is None:
        yield
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {"service.version": version("vtag")}
    if "OTEL_SERVICE_NAME" not in os.environ:
        about["service.name"] = "vtag"
    provider = TracerProvider(resource=Resource.create(about))
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_SEND_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("vtag", version("vtag"))
    try:
        yield
    finally:
        _tracer = None
        await asyncio.to_thread(provider.shutdown)  # sends what is left


@contextmanager
def request(scope: Mapping[str, Any]) -> Iterator[None]:
    """The span of a request of HTTP: a part of the caller's trace if ``traceparent`` says so."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    sent = {
        name: value
        for name, value in Headers(scope=dict(scope)).items()
        if name in ("traceparent", "tracestate")
    }
    with _tracer.start_as_current_span(
        scope["method"],
        context=TraceContextTextMapPropagator().extract(sent),
        kind=SpanKind.SERVER,
        attributes={"http.request.method": scope["method"]},
        record_exception=False,
    ):
        yield


def answered(*, method: str, endpoint: str, status: int, facts: Attributes) -> None:
    """Say how the request that is being worked on was answered."""
    found = _present()
    if found is None:
        return
    found.update_name(f"{method} {endpoint}")
    found.set_attribute("http.route", endpoint)
    if status:
        found.set_attribute("http.response.status_code", status)
    for name, value in facts.items():
        found.set_attribute(f"vtag.{name}", value)
    if status == 0 or status >= 500:
        _failed(found, "disconnected" if status == 0 else str(status))


def span(
    name: str, attributes: Attributes | None = None, *, client: bool = False
) -> AbstractContextManager[None]:
    """A span around what happens inside, in the trace that this is done for, if any.

    Args:
        name: of the work, the same for all requests.
        attributes: of it.
        client: another server does it.
    """
    if _tracer is None or _present() is None:
        return _NOTHING
    return _span(_tracer, name, attributes, client=client)


@contextmanager
def _span(
    tracer: Tracer, name: str, attributes: Attributes | None, *, client: bool
) -> Iterator[None]:
    from opentelemetry.trace import SpanKind

    with tracer.start_as_current_span(
        name,
        kind=SpanKind.CLIENT if client else SpanKind.INTERNAL,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as found:
        try:
            yield
        except BaseException as error:
            _failed(found, type(error).__name__)
            raise


async def traced(name: str, work: Awaitable[T]) -> T:
    """Await ``work`` in a span."""
    with span(name):
        return await work


def here() -> Place | None:
    """Where in which trace this is done, for `past`; None: in none."""
    if _tracer is None or _present() is None:
        return None
    from opentelemetry.context import get_current

    return get_current()


def past(
    name: str,
    times: object,
    *,
    since: float,
    at: Place | None,
    attributes: Attributes | None = None,
) -> Place | None:
    """Add a span for what was done elsewhere.

    Args:
        name: of the work.
        times: pair of `time.monotonic()`, when it began and ended. It may come from a child that
            has read a stranger's file: what cannot be true is no span.
        since: when it was asked for.
        at: where it belongs; None: nowhere.
        attributes: of it.

    Returns:
        Where what was a part of it belongs.
    """
    if _tracer is None or at is None or not isinstance(times, list | tuple) or len(times) != 2:
        return None
    if not all(isinstance(moment, float) and math.isfinite(moment) for moment in times):
        return None
    began, ended = times
    if not since <= began <= ended <= time.monotonic():
        return None
    from opentelemetry.trace import set_span_in_context

    epoch = time.time_ns() - time.monotonic_ns()
    found = _tracer.start_span(
        name, context=at, attributes=attributes, start_time=epoch + round(began * 1e9)
    )
    found.end(epoch + round(ended * 1e9))
    return set_span_in_context(found, at)


def asked() -> Mapping[str, bool]:
    """What to add to a message, so that the child tells when it worked."""
    return {} if _tracer is None else {"timed": True}


def exemplar() -> dict[str, str] | None:
    """Labels that lead from a measurement to this trace; None: it is not kept."""
    found = _present()
    if found is None or not found.get_span_context().trace_flags.sampled:
        return None
    return {"trace_id": f"{found.get_span_context().trace_id:032x}"}


def is_on() -> bool:
    """Whether anything is traced."""
    return _tracer is not None


def _present() -> Span | None:
    if _tracer is None:
        return None
    from opentelemetry.trace import get_current_span

    found = get_current_span()
    return found if found.get_span_context().is_valid else None


def _failed(found: Span, why: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    found.set_status(Status(StatusCode.ERROR, why))
