"""Which addresses are the world's, and which hosts were allowed."""

import ipaddress

import pytest

from service.hosts import host_rules, is_allowed, is_loopback, is_public

_OURS = """
127.0.0.1 127.255.255.254 0.0.0.0 0.1.2.3 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1
169.254.169.254 100.64.0.1 100.127.255.255 192.0.0.8 192.0.2.1 198.18.0.1 198.51.100.1
203.0.113.9
192.88.99.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 fe80::1 fc00::1 fd12:3456::1 fec0::1 ff02::1 100::1 2001:db8::1 2001::1 2001:10::1
::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:10.0.0.1 ::7f00:1 ::a00:1
64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::c0a8:101 64:ff9b:1::808:808
2002:7f00:1::1 2002:a9fe:a9fe::1 2002:808:808::1 2001:0:808:808::1 5f00::1 3fff::1 2001:1ff::1
"""

_THE_WORLDS = """
8.8.8.8 1.1.1.1 93.184.216.34 172.32.0.1 100.128.0.1 2606:4700:4700::1111 2001:200::1
2a00:1450:4001::8
::ffff:8.8.8.8 64:ff9b::808:808
"""


@pytest.mark.parametrize("text", _OURS.split())
def test_what_is_not_on_the_public_internet_is_refused(text: str) -> None:
    """Loopback, private, link-local, shared, reserved, multicast, documentation; wrapped too."""
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", _THE_WORLDS.split())
def test_what_is_on_the_public_internet_is_allowed(text: str) -> None:
    """Both families, and IPv4 as hosts with IPv6 only reach it."""
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    ("rules", "host", "allowed"),
    [
        ("media.example.org", "media.example.org", True),
        ("media.example.org", "media.example.org.evil.net", False),
        ("media.example.org", "xmedia.example.org", False),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "evilexample.org", False),
        ("Media.Example.org, other.net ,", "other.net", True),
        ("*", "anything.at.all", True),
        ("", "media.example.org", False),
    ],
)
def test_rules_name_hosts_or_what_is_below_them(rules: str, host: str, allowed: bool) -> None:
    """The dot belongs to the rule; case and spaces do not."""
    assert is_allowed(host, host_rules(rules)) is allowed


@pytest.mark.parametrize("rules", ["https://a.b", "a/b", "a b", "*.*", "a*", "user@host", "é.org"])
def test_a_rule_that_is_no_name_is_refused(rules: str) -> None:
    """A rule that never matches would look like protection."""
    with pytest.raises(ValueError, match="must be names"):
        host_rules(rules)


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("LOCALHOST", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("vtag.example.org", False)],  # noqa: S104
)  # fmt: skip
def test_only_loopback_is_of_this_machine_only(host: str, here: bool) -> None:
    """Every other address may be reached by strangers."""
    assert is_loopback(host) is here
