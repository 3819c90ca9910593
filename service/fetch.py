"""Videos from URLs: only from hosts that were allowed, only from public addresses, within bounds.

`service.url_guard` says what is asked; every redirect begins anew. FFmpeg never sees a URL.
"""

from __future__ import annotations

import asyncio
from typing import Final

import httpx

from service.errors import ApiError
from service.spool import SpoolFile
from service.url_guard import (
    LentTransport,
    NoAddressError,
    Resolve,
    UrlGuard,
    UrlRefusedError,
    is_tls,
    own_transport,
    resolve,
)

_MOST_REDIRECTS: Final = 3
_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 10.0
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAY_PASS: Final = frozenset({408, 425, 429})
_HEADERS: Final = {"Accept": "video/*, */*;q=0.1", "Accept-Encoding": "identity"}


class Fetcher:
    """Fetches what URLs name into files.

    Args:
        hosts: rules, see `service.hosts.host_rules`; empty: nothing is fetched.
        plain_http: whether http:// may be fetched too.
        seconds: longest fetching of one video, redirects included.
        internal: ``host:port`` of servers that need not be public, see `UrlGuard`.
        resolver: how names become addresses.
        transport: what connects; requests that reach it have an address for a host.
    """

    def __init__(
        self,
        *,
        hosts: tuple[str, ...],
        plain_http: bool,
        seconds: float,
        internal: frozenset[str] = frozenset(),
        resolver: Resolve = resolve,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._guard = UrlGuard(
            hosts=hosts, plain_http=plain_http, internal=internal, resolver=resolver
        )
        self._seconds = seconds
        self._transport = transport
        if transport is None and (hosts or internal):
            self._transport = own_transport()

    def check(self, url: str, *, param: str) -> None:
        """Refuse a URL that would never be fetched; nothing is resolved or connected for it.

        Raises:
            ApiError: ``url_not_allowed``.
        """
        if self._transport is None:
            raise _off(param)
        try:
            self._guard.parse(url)
        except UrlRefusedError as error:
            raise _refused(error.detail, param) from None

    async def fetch(self, url: str, into: SpoolFile, *, param: str) -> None:
        """Write the bytes that `url` names into `into`.

        Raises:
            ApiError: ``url_not_allowed``, ``fetch_failed``, ``fetch_unavailable``,
                ``body_too_large`` or ``spool_full``.
        """
        if self._transport is None:
            raise _off(param)
        client = httpx.AsyncClient(
            transport=LentTransport(self._transport),
            trust_env=False,
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
        )
        try:
            async with asyncio.timeout(self._seconds), client:
                await self._follow(client, self._guard.parse(url), into, param)
        except UrlRefusedError as error:
            raise _refused(error.detail, param) from None
        except NoAddressError:
            raise _unavailable("The host of the URL has no address.", param) from None
        except TimeoutError:
            raise _unavailable("The URL took too long.", param, self._seconds) from None
        except httpx.TimeoutException:
            raise _unavailable("The host of the URL took too long.", param) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            if is_tls(error):
                raise _failed("The host of the URL has no valid certificate.", param) from None
            raise _unavailable("The connection to the host of the URL failed.", param) from None

    async def close(self) -> None:
        """Give back what the transport holds."""
        if self._transport is not None:
            await self._transport.aclose()

    async def _follow(
        self, client: httpx.AsyncClient, url: httpx.URL, into: SpoolFile, param: str
    ) -> None:
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._guard.send(client, url, method="GET", headers=_HEADERS)
            try:
                if response.status_code not in _REDIRECTS:
                    await _receive(response, into, param)
                    return
                target = self._guard.parse(response.headers.get("location", ""), base=url)
            finally:
                await response.aclose()
            if url.scheme == "https" and target.scheme != "https":
                raise _refused("The URL redirects from https to http.", param)
            url = target
        raise _failed(f"The URL redirects more than {_MOST_REDIRECTS} times.", param)


async def _receive(response: httpx.Response, into: SpoolFile, param: str) -> None:
    status = response.status_code
    if status >= 500 or status in _MAY_PASS:
        raise _unavailable(f"The host of the URL answered {status}.", param, status)
    if status != httpx.codes.OK:
        raise _failed(f"The host of the URL answered {status}.", param, status)
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise _failed("The host of the URL sent it compressed, unasked.", param)
    length = response.headers.get("content-length", "")
    if length.isdecimal():
        into.require(int(length))
    async for chunk in response.aiter_raw():
        into.feed(chunk)
        await into.drain()
    await into.drain(everything=True)


def _off(param: str) -> ApiError:
    return _refused("This service does not fetch URLs; send the bytes.", param)


def _refused(detail: str, param: str) -> ApiError:
    return ApiError("url_not_allowed", detail, param=param)


def _failed(detail: str, param: str, actual: float | None = None) -> ApiError:
    return ApiError("fetch_failed", detail, param=param, actual=actual)


def _unavailable(detail: str, param: str, actual: float | None = None) -> ApiError:
    return ApiError("fetch_unavailable", detail, param=param, actual=actual)
