"""Fetching: what is refused before anything connects, and what hosts do wrong."""

import asyncio
import gzip
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import ApiError
from service.fetch import Fetcher
from service.hosts import Address
from service.spool import Spool, SpoolFile

pytestmark = pytest.mark.anyio

_PUBLIC = "93.184.216.34"
_NAMES = {
    "media.example.org": [_PUBLIC],
    "cdn.example.org": ["2606:4700:4700::1111"],
    "two.example.org": ["1.1.1.1", "8.8.8.8"],
    "inside.example.org": ["10.0.0.7"],
    "mixed.example.org": [_PUBLIC, "169.254.169.254"],
    "mapped.example.org": ["::ffff:127.0.0.1"],
    "localhost": ["127.0.0.1"],
    "localhost.": ["127.0.0.1"],
}

Handler = Callable[[httpx.Request], httpx.Response]


async def _resolve(host: str, port: int) -> Sequence[Address]:  # noqa: ARG001
    """As the system does it: names, and numbers in all the ways that C knows."""
    if host in _NAMES:
        return [ipaddress.ip_address(text) for text in _NAMES[host]]
    found = await asyncio.get_running_loop().getaddrinfo(host, 1, flags=4)  # AI_NUMERICHOST
    return [ipaddress.ip_address(entry[4][0]) for entry in found]


class _NoConnection(httpx.AsyncBaseTransport):
    """Nothing may come as far as this."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Fail the test."""
        return pytest.fail(f"connected to {request.url}")


class _Hosts(httpx.AsyncBaseTransport):
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        self.asked.append(request)
        return self.handler(request)


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SpoolFile]:
    """A spool file of at most 1000 bytes."""
    spool = Spool(tmp_path / "spool", max_bytes=1000, reserve_bytes=0)
    spool.open()
    async with spool.file() as found:
        yield found


async def _film() -> AsyncIterator[bytes]:
    yield b"fi"
    yield b"lm"


def _fetcher(
    transport: httpx.AsyncBaseTransport, *, hosts: Sequence[str] = ("*",), **options: Any
) -> Fetcher:
    return Fetcher(
        hosts=tuple(hosts),
        **{"plain_http": True, "seconds": 5.0, "resolver": _resolve, **options},
        transport=transport,
    )


_REFUSED = """
http://127.0.0.1/ http://127.1/ http://2130706433/ http://0x7f000001/ http://0x7f.1/
http://017700000001/ http://0177.0.0.1/ http://0/ http://0.0.0.0/ http://[::1]/ http://[::]/
http://[::ffff:127.0.0.1]/ http://[::ffff:169.254.169.254]/latest/meta-data http://[fe80::1]/
http://169.254.169.254/latest/meta-data http://100.64.0.1/ http://10.0.0.1/ http://192.168.0.1/
http://[64:ff9b::7f00:1]/ http://[2002:7f00:1::]/ http://localhost/ http://localhost./
https://LOCALHOST/ https://inside.example.org/a.mp4 https://mixed.example.org/a.mp4
https://mapped.example.org/a.mp4 https://media.example.org:8443/a.mp4 http://media.example.org:22/
http://media.example.org:443/ https://user@media.example.org/ https://user:key@media.example.org/
https://media.example.org@127.0.0.1/ file:///etc/passwd ftp://media.example.org/a gopher://x/
data:video/mp4;base64,AAAA concat:a|b subfile,,start,0,end,9,,:/etc/passwd javascript:1 //x/y
media.example.org/a.mp4 http:///a.mp4 http:// https://[::1 https://exa\u0000mple.org/ /etc/passwd
"""


@pytest.mark.parametrize(
    "url",
    [*_REFUSED.split(), "", " ", "https://media.example.org/\r\nHost: x", "https://a b/",
     "x" * 5000,
     "https://media.example.org/" + "a" * 3000, "https://media.example.org:99999/"],
)  # fmt: skip
async def test_what_may_not_be_fetched_is_refused_before_anything_connects(
    file: SpoolFile, url: str
) -> None:
    """Every host is allowed by name here, so that only addresses, schemes and ports protect."""
    with pytest.raises(ApiError) as caught:
        await _fetcher(_NoConnection()).fetch(url, file, param="video.url")
    assert (caught.value.status, caught.value.code) == (422, "url_not_allowed"), url
    assert caught.value.param == "video.url"
    assert "/etc" not in caught.value.detail


@pytest.mark.parametrize(
    ("hosts", "options"),
    [((), {}), (("other.example.org",), {}), (("*.media.example.org",), {}),
     (("*",), {"plain_http": False})],
)  # fmt: skip
async def test_nothing_is_fetched_that_was_not_allowed(
    file: SpoolFile, hosts: Sequence[str], options: dict[str, Any]
) -> None:
    """No host by default, no other than those that are named, no plain http unless allowed."""
    fetcher = _fetcher(_NoConnection(), hosts=hosts, **options)
    with pytest.raises(ApiError) as caught:
        await fetcher.fetch("http://media.example.org/a.mp4", file, param="video.url")
    assert caught.value.code == "url_not_allowed"


async def test_the_connection_goes_to_the_address_that_was_checked(file: SpoolFile) -> None:
    """One lookup; Host and SNI name the host, the URL names the address; nothing compressed."""
    lookups: list[str] = []

    async def resolver(host: str, port: int) -> Sequence[Address]:
        lookups.append(host)
        return await _resolve(host, port)

    hosts = _Hosts(lambda _: httpx.Response(200, content=_film()))
    fetcher = _fetcher(hosts, hosts=["media.example.org"], resolver=resolver)
    await fetcher.fetch("https://media.example.org/a.mp4?sig=1#part", file, param="video.url")
    [request] = hosts.asked
    assert str(request.url) == f"https://{_PUBLIC}/a.mp4?sig=1"
    assert request.headers["host"] == "media.example.org"
    assert request.extensions["sni_hostname"] == "media.example.org"
    assert request.headers["accept-encoding"] == "identity"
    assert not {"cookie", "authorization", "referer"} & set(request.headers)
    assert lookups == ["media.example.org"]
    assert file.path.read_bytes() == b"film"


async def test_an_ipv6_address_is_connected_to_as_well(file: SpoolFile) -> None:
    """The address is in brackets, the name stays in Host."""
    hosts = _Hosts(lambda _: httpx.Response(200, content=_film()))
    await _fetcher(hosts).fetch("https://cdn.example.org/a", file, param="video.url")
    assert str(hosts.asked[0].url) == "https://[2606:4700:4700::1111]/a"
    assert hosts.asked[0].headers["host"] == "cdn.example.org"


async def test_a_name_that_moves_inside_is_caught_at_its_next_lookup(file: SpoolFile) -> None:
    """DNS rebinding: the second answer is inside; the redirect that asks for it goes nowhere."""
    answers = [[_PUBLIC], ["127.0.0.1"]]

    async def resolver(_: str, __: int) -> Sequence[Address]:
        return [ipaddress.ip_address(text) for text in answers.pop(0)]

    again = {"location": "/again"}
    hosts = _Hosts(lambda _: httpx.Response(302, headers=again))
    with pytest.raises(ApiError) as caught:
        await _fetcher(hosts, resolver=resolver).fetch("https://x.org/a", file, param="video.url")
    assert caught.value.code == "url_not_allowed"
    assert len(hosts.asked) == 1


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1/", "https://inside.example.org/", "http://media.example.org/a", "file:///x",
     "https://u@media.example.org/", "https://media.example.org:8080/", "//localhost/"],
)  # fmt: skip
async def test_redirects_are_checked_like_the_first_url(file: SpoolFile, target: str) -> None:
    """Into the network, to other schemes and ports, and from https to http: refused."""
    hosts = _Hosts(lambda _: httpx.Response(302, headers={"location": target}))
    with pytest.raises(ApiError) as caught:
        await _fetcher(hosts).fetch("https://media.example.org/a", file, param="video.url")
    assert caught.value.code == "url_not_allowed"
    assert len(hosts.asked) == 1


async def test_three_redirects_are_followed_and_not_four(file: SpoolFile) -> None:
    """Relative ones too; each hop asks a checked address, without cookies of the last one."""

    def handler(request: httpx.Request) -> httpx.Response:
        left = int(request.url.path[1:])
        if not left:
            return httpx.Response(200, content=_film())
        headers = {"location": f"/{left - 1}", "set-cookie": "a=b"}
        return httpx.Response(307, headers=headers)

    hosts = _Hosts(handler)
    await _fetcher(hosts).fetch("https://media.example.org/3", file, param="video.url")
    assert [request.url.host for request in hosts.asked] == [_PUBLIC] * 4
    assert file.path.read_bytes() == b"film"
    with pytest.raises(ApiError) as caught:
        await _fetcher(hosts).fetch("https://media.example.org/4", file, param="video.url")
    assert (caught.value.status, caught.value.code) == (424, "fetch_failed")


@pytest.mark.parametrize(
    ("status", "code"),
    [(201, "fetch_failed"), (204, "fetch_failed"), (206, "fetch_failed"), (304, "fetch_failed"),
     (401, "fetch_failed"), (403, "fetch_failed"), (404, "fetch_failed"), (416, "fetch_failed"),
     (408, "fetch_unavailable"), (429, "fetch_unavailable"), (500, "fetch_unavailable"),
     (503, "fetch_unavailable")],
)  # fmt: skip
async def test_other_answers_than_the_video_are_424(
    file: SpoolFile, status: int, code: str
) -> None:
    """Whether trying again can help is told by the code; a part of a file is not the file."""
    hosts = _Hosts(lambda _: httpx.Response(status, content=b"x"))
    with pytest.raises(ApiError) as caught:
        await _fetcher(hosts).fetch("https://media.example.org/a", file, param="video.url")
    assert (caught.value.status, caught.value.code) == (424, code)
    assert caught.value.actual == status
    assert file.size_bytes == 0


async def test_a_compressed_answer_is_not_taken(file: SpoolFile) -> None:
    """A bomb would be unpacked otherwise; nobody asked for it."""
    packed = gzip.compress(b"\0" * 100_000)
    headers = {"content-encoding": "gzip"}
    hosts = _Hosts(lambda _: httpx.Response(200, headers=headers, content=packed))
    with pytest.raises(ApiError) as caught:
        await _fetcher(hosts).fetch("https://media.example.org/a", file, param="video.url")
    assert caught.value.code == "fetch_failed"
    assert file.size_bytes == 0


def _stream(chunks: int, *, seconds: float = 0.0) -> AsyncIterator[bytes]:
    async def content() -> AsyncIterator[bytes]:
        for _ in range(chunks):
            await asyncio.sleep(seconds)
            yield b"x" * 100

    return content()


async def test_a_body_without_end_is_cut_off_at_the_cap(file: SpoolFile) -> None:
    """Said to be too long: refused at once. Not said: as soon as it is."""
    hosts = _Hosts(lambda _: httpx.Response(200, content=_stream(10**9)))
    with pytest.raises(ApiError) as caught:
        await _fetcher(hosts).fetch("https://media.example.org/a", file, param="video.url")
    assert (caught.value.code, caught.value.limit) == ("body_too_large", 1000)
    said = _Hosts(
        lambda _: httpx.Response(200, headers={"content-length": "1001"}, content=_stream(10**9))
    )
    with pytest.raises(ApiError) as caught:
        await _fetcher(said).fetch("https://media.example.org/a", file, param="video.url")
    assert caught.value.code == "body_too_large"


async def test_a_body_that_trickles_is_given_up(file: SpoolFile) -> None:
    """Always just in time for the next byte, never done: the whole fetching has a bound."""
    hosts = _Hosts(lambda _: httpx.Response(200, content=_stream(10**9, seconds=0.03)))
    with pytest.raises(ApiError) as caught:
        await _fetcher(hosts, seconds=0.2).fetch("https://media.example.org/a", file, param="x")
    assert (caught.value.code, caught.value.actual) == ("fetch_unavailable", 0.2)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (httpx.ConnectError("refused"), "fetch_unavailable"),
        (httpx.ConnectTimeout("slow"), "fetch_unavailable"),
        (httpx.ReadTimeout("slow"), "fetch_unavailable"),
        (httpx.RemoteProtocolError("peer closed: secret"), "fetch_unavailable"),
        (ssl.SSLCertVerificationError("secret"), "fetch_failed"),
    ],
)
async def test_what_goes_wrong_on_the_way_is_424_in_our_words(
    file: SpoolFile, error: Exception, code: str
) -> None:
    """Connections, silence, protocol, certificates; the library's text stays here."""

    def handler(_: httpx.Request) -> httpx.Response:
        if isinstance(error, httpx.HTTPError):
            raise error
        raise httpx.ConnectError("tls") from error

    with pytest.raises(ApiError) as caught:
        await _fetcher(_Hosts(handler)).fetch("https://media.example.org/a", file, param="x")
    assert (caught.value.status, caught.value.code) == (424, code)
    assert "secret" not in caught.value.detail


async def test_another_address_is_tried_when_one_does_not_answer(file: SpoolFile) -> None:
    """All were checked before the first was tried."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.host == "1.1.1.1":
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content=_film())

    hosts = _Hosts(handler)
    await _fetcher(hosts).fetch("https://two.example.org/a", file, param="x")
    assert [request.url.host for request in hosts.asked] == ["1.1.1.1", "8.8.8.8"]


async def test_a_name_without_address_is_424(file: SpoolFile) -> None:
    """Nothing is asked."""

    async def resolver(_: str, __: int) -> Sequence[Address]:
        raise OSError("no such host")

    with pytest.raises(ApiError) as caught:
        await _fetcher(_NoConnection(), resolver=resolver).fetch(
            "https://media.example.org/", file, param="x"
        )
    assert caught.value.code == "fetch_unavailable"


async def test_the_real_transport_does_not_reach_this_machine(file: SpoolFile) -> None:
    """With everything allowed that can be: a server on loopback never hears of it."""
    heard = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    fetcher = Fetcher(hosts=("*",), plain_http=True, seconds=5.0)
    try:
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "127.0.0.1", "localhost"):
            with pytest.raises(ApiError) as caught:
                await fetcher.fetch(f"http://{host}/", file, param="x")
            assert caught.value.code == "url_not_allowed"
        assert not heard.is_set()
    finally:
        await fetcher.close()
        server.close()
        await server.wait_closed()
