"""Which URLs of strangers are asked: allowed hosts, public addresses, one resolution.

Servers that call URLs are made to call their own network again and again: by names that resolve to
it, by redirects into it, by resolving twice. Here a URL is parsed once, its name is resolved once,
all addresses must be public, and the connection goes to one of those.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx

from service.hosts import Address, is_allowed, is_public

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Host and port to addresses; raises OSError."""

_HOST: Final = re.compile(r"[A-Za-z0-9._:-]+", re.ASCII)
_MOST_CHARACTERS: Final = 2048
_MOST_ADDRESSES: Final = 3
_PORTS: Final = {"https": 443, "http": 80}
_RESOLVING: Final = ThreadPoolExecutor(8, thread_name_prefix="resolve")
"""Of its own: names whose servers do not answer hold a thread for half a minute, whatever the time
limit of the request, and uploads are written by those of the event loop."""


class UrlRefusedError(Exception):
    """This URL is not asked; `detail` is safe to show to whoever sent it."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NoAddressError(Exception):
    """The host has no address now."""


async def resolve(host: str, port: int) -> Sequence[Address]:
    """Ask the system's resolver."""
    ask = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_RESOLVING, ask)
    # A zone ("%eth0") belongs to link-local addresses only, which are refused anyway.
    return [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found]


class UrlGuard:
    """Judges URLs, and asks those that pass.

    Args:
        hosts: rules, see `service.hosts.host_rules`.
        plain_http: whether http:// may be asked too.
        internal: ``host:port`` of receivers that the operator named one by one: these may be
            asked by http, at their port and wherever they are.
        resolver: how names become addresses.
        verb: what is done with URLs, for sentences.
    """

    def __init__(
        self,
        *,
        hosts: tuple[str, ...],
        plain_http: bool,
        internal: frozenset[str] = frozenset(),
        resolver: Resolve = resolve,
        verb: str = "fetched",
    ) -> None:
        self._hosts = hosts
        self._schemes = ("https", "http") if plain_http else ("https",)
        self._internal = internal
        self._resolve = resolver
        self._verb = verb

    def parse(self, text: str, *, base: httpx.URL | None = None) -> httpx.URL:
        """Parse a URL once; what is checked here is what is asked.

        Raises:
            UrlRefusedError: it is none, or none that is allowed.
        """
        try:
            if len(text) > _MOST_CHARACTERS:
                raise httpx.InvalidURL("too long")
            url = httpx.URL(text) if base is None else base.join(text)
            host = url.raw_host.decode("ascii")
        except (httpx.InvalidURL, UnicodeError, ValueError):
            raise UrlRefusedError("This is not a URL.") from None
        if url.userinfo:
            raise UrlRefusedError(f"A URL with a user name is not {self._verb}.")
        if self._is_internal(url):
            return url.copy_with(fragment=None)
        if url.scheme not in self._schemes or _HOST.fullmatch(host) is None:
            allowed = " and ".join(self._schemes)
            raise UrlRefusedError(f"Only {allowed} URLs with a host are {self._verb}.")
        if url.port not in (None, _PORTS[url.scheme]):
            raise UrlRefusedError("Only the scheme's own port is asked.")
        if not is_allowed(host, self._hosts):
            raise UrlRefusedError("This host is not one of those that are allowed.")
        return url.copy_with(fragment=None)

    async def send(
        self,
        client: httpx.AsyncClient,
        url: httpx.URL,
        *,
        method: str,
        headers: Mapping[str, str],
        content: bytes | None = None,
    ) -> httpx.Response:
        """Send a request to an address that was checked, under the name that was asked for.

        Args:
            client: follows no redirects and takes nothing from the environment.
            url: from `parse`.
            method: of the request.
            headers: of the request.
            content: its body.

        Returns:
            The response, whose body has not been read.

        Raises:
            UrlRefusedError, NoAddressError, httpx.HTTPError
        """
        host = url.raw_host.decode("ascii")
        try:
            addresses = await self._resolve(host, url.port or _PORTS[url.scheme])
        except (OSError, UnicodeError, ValueError):
            raise NoAddressError from None
        is_fine = self._is_internal(url) or all(map(is_public, addresses))
        if not addresses or not is_fine:
            raise UrlRefusedError("The host of the URL is not on the public internet.")
        chosen = list(dict.fromkeys(addresses))[:_MOST_ADDRESSES]
        for address in chosen:
            request = client.build_request(
                method,
                url.copy_with(host=str(address)),
                headers={**headers, "Host": url.netloc.decode("ascii")},
                content=content,
                extensions={"sni_hostname": host},
            )
            try:
                return await client.send(request, stream=True, follow_redirects=False)
            except httpx.ConnectError as error:
                if address == chosen[-1] or is_tls(error):
                    raise
        raise AssertionError("there is at least one address")

    def _is_internal(self, url: httpx.URL) -> bool:
        port = url.port or _PORTS.get(url.scheme)
        return url.scheme in _PORTS and f"{url.host}:{port}" in self._internal


def is_tls(error: BaseException | None) -> bool:
    """Whether an error comes from a certificate or a handshake."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


class LentTransport(httpx.AsyncBaseTransport):
    """A transport that outlives its client; cookies and such do not."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass it on."""
        return await self._transport.handle_async_request(request)


def own_transport() -> httpx.AsyncHTTPTransport:
    """No proxies or certificates out of the environment, no connection that is kept."""
    return httpx.AsyncHTTPTransport(
        trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
    )
