"""Names and addresses of hosts: which are ours, which are the world's, which were allowed."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_RULE: Final = re.compile(r"\*|(\*\.)?[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?", re.ASCII)
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_HOSTS: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16",
                 "3fff::/20")
)  # fmt: skip
"""Special-purpose networks (IANA's registries) that not every supported Python takes for such;
the tunnels Teredo (in 2001::/23) and 6to4 (2002::/16, 192.88.99.0/24) are among them."""


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a service that listens on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to the public internet, whatever it is wrapped in.

    IPv4 inside IPv6 (mapped, NAT64) is judged as the IPv4 address that it reaches. The tunnels
    6to4 and Teredo are refused: no media server is behind one, and what they reach is anybody's.
    """
    if any(address in network for network in _NOT_HOSTS):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None:
            return address in _GLOBAL_UNICAST and address.is_global
        return is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved)


def host_rules(text: str) -> tuple[str, ...]:
    """Split the setting ``url_hosts``: names, ``*.example.org`` for those below, ``*`` for all.

    Raises:
        ValueError: one of them is no name of a host.
    """
    rules = tuple(rule.strip().lower() for rule in text.split(",") if rule.strip())
    if any(_RULE.fullmatch(rule) is None for rule in rules):
        raise ValueError("must be names such as media.example.org, *.example.org or *")
    return rules


def is_allowed(host: str, rules: tuple[str, ...]) -> bool:
    """Tell whether a rule names this host (in lower case, as it is written in the URL)."""
    return any(
        rule == "*" or host == rule or (rule.startswith("*.") and host.endswith(rule[1:]))
        for rule in rules
    )
