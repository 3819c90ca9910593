"""The body of a search: JSON, or a form with pictures and videos to search with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.requests import Request

from service.errors import ApiError
from service.intake.body import media_type
from service.intake.form import read_files
from service.routes.body import form_options, json_body
from service.routes.parts import Parts, body_limits
from service.routes.repeats import digest_of, recognise
from service.routes.search_shapes import Query, QueryMedia, QueryPart, SearchForm, SearchRequest
from service.spool import SpoolFile

_MAX_FILES: Final = 4
_KINDS: Final = ("image", "video")


@asynccontextmanager
async def search_body(
    request: Request, parts: Parts
) -> AsyncIterator[tuple[SearchRequest, Mapping[str, Path]]]:
    """Yield the options and the files of the form by their names, removed afterwards.

    Raises:
        ApiError: the body is not one that is understood.
    """
    if media_type(request) == "json":
        most = parts.settings.max_json_bytes  # it may hold videos
        yield await json_body(request, parts, SearchRequest, max_bytes=most), {}
        return
    async with AsyncExitStack() as stack:
        with parts.admission.enter("upload"):
            waiting = [
                await stack.enter_async_context(parts.spool.file()) for _ in range(_MAX_FILES)
            ]
            files = _QueryFiles(waiting)
            fields = await read_files(
                request, files, body_limits(parts.settings), fingerprint=digest_of(request)
            )
        recognise(request)
        for file in waiting:
            file.close()
        parts.metrics.upload_bytes.inc(sum(file.size_bytes for file in files.taken.values()))
        options = form_options(fields, SearchForm)
        found = {name: file.path for name, file in files.taken.items()}
        yield _with_files(options, list(found)), found


def media_of(query: Query) -> list[QueryMedia]:
    """What a query wants to have decoded."""
    sources = [query] if query.parts is None else query.parts
    return [each for part in sources for each in (part.image, part.video) if each is not None]


def _with_files(options: SearchForm, names: Sequence[str]) -> SearchRequest:
    """The request that a form makes: its files are parts of the query unless it names them."""
    asked = Query(text=options.query) if isinstance(options.query, str) else options.query
    named = set() if asked is None else {media.name for media in media_of(asked)}
    parts = [] if asked is None else _parts(asked)
    for name in names:
        if name in named:
            continue
        if name not in _KINDS:
            raise ApiError("invalid_request", "The query does not name this file.", param=name[:64])
        media = QueryMedia(type="file", name=name)
        parts.append(QueryPart.model_validate({name: media}))
    if not parts:
        raise ApiError("invalid_request", "Give a query, or a file to search with.", param="query")
    query = Query(parts=parts) if names else asked
    return SearchRequest.model_construct(**{**dict(options), "query": query})


def _parts(query: Query) -> list[QueryPart]:
    if query.parts is not None:
        return list(query.parts)
    [name] = query.sources()
    return [QueryPart.model_validate({name: getattr(query, name)})]


class _QueryFiles:
    """Files of the form, each with a name of its own."""

    def __init__(self, waiting: Sequence[SpoolFile]) -> None:
        self.taken: dict[str, SpoolFile] = {}
        self._waiting = list(waiting)

    def begin(self, name: str, file_name: str | None) -> SpoolFile | None:
        """Give a file its place; a part without a file name is a field, but for two names."""
        if file_name is None and name not in _KINDS:
            return None
        if name in self.taken:
            raise ApiError("malformed_multipart", "A file was given twice.", param=name[:64])
        if not self._waiting:
            raise ApiError(
                "too_many_parts", f"A search has at most {_MAX_FILES} files.", limit=_MAX_FILES
            )
        self.taken[name] = self._waiting.pop(0)
        return self.taken[name]

    async def drain(self, *, everything: bool = False) -> None:
        """Write what waits."""
        for file in self.taken.values():
            await file.drain(everything=everything)
