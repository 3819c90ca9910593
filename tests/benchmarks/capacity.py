"""`make capacity`: what a million, a hundred million and ten billion segments need, on paper.

Computed from `unit_costs.toml`, which holds what was measured, with the command that measures it,
and what is assumed. Writes deploy/CAPACITY.md.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SIZES: Final = {"1 M": 10**6, "100 M": 10**8, "10 B": 10**10}
UNIT_COSTS: Final = Path(__file__).with_name("unit_costs.toml")
PAGE: Final = Path(__file__).resolve().parents[2] / "deploy" / "CAPACITY.md"

_GIB: Final = 1 << 30
_TIB: Final = 1 << 40
_HOUR: Final = 3600.0
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True)
class Point:
    """Something measured with so many segments in one graph."""

    segments: int
    value: float


@dataclass(frozen=True)
class UnitCosts:
    """What one segment costs: measured, but for what the file calls assumed.

    Seconds are those of one core. A cost that was measured at two sizes grows with the logarithm.
    """

    decode_seconds: float
    encode_seconds: float
    write_seconds: float
    graph_seconds: tuple[Point, Point]
    search_seconds: tuple[Point, Point]
    row_bytes: float
    graph_bytes: float
    video_seconds: float
    video_bits_per_second: float
    dimensions: int
    graph_links: int
    shard_segments: int
    shard_search_seconds: float
    device_segments_per_second: float
    cores_per_machine: int
    bytes_per_machine: int
    memory_share: float
    days: float
    queries_per_second: float


@dataclass(frozen=True)
class Needs:
    """What a number of segments needs.

    Hours of a stage are those of one core; ``device_hours`` are those of encoding on devices.
    """

    segments: int
    video_hours: float
    video_bytes: float
    hours: Mapping[str, float]
    device_hours: float
    postgres_disk_bytes: float
    postgres_memory_bytes: float
    cluster_memory_bytes: float
    cluster_machines: int
    indexing_machines: int
    postgres_search_cores: float
    cluster_search_cores: float


def read_unit_costs(path: Path = UNIT_COSTS) -> UnitCosts:
    """Read the file; every value is in one of its tables."""
    tables = tomllib.loads(path.read_text())
    found: dict[str, Any] = {}
    for table in tables.values():
        for name, entry in table.items():
            value = entry["value"]
            if isinstance(value, list):
                value = tuple(Point(int(segments), each) for segments, each in value)
            found[name] = value
    return UnitCosts(**found)


def grown(points: tuple[Point, Point], segments: float) -> float:
    """A cost at another size: linear in the logarithm of the size, and never below the first."""
    (first, second) = points
    step = (second.value - first.value) / math.log(second.segments / first.segments)
    return max(first.value, first.value + step * math.log(segments / first.segments))


def needs(segments: int, costs: UnitCosts) -> Needs:
    """Compute what so many segments need.

    Of a cluster each machine holds whole vectors and links in memory, 4 D + 8 M bytes a segment
    (a link is four bytes, and the lowest layer has 2 M), in graphs of a bounded size; a query asks
    all of them. One Postgres has one graph, which has to lie in memory; the rows need not.
    """
    video_seconds = segments * costs.video_seconds
    hours = {
        "decode": segments * costs.decode_seconds / _HOUR,
        "encode": segments * costs.encode_seconds / _HOUR,
        "write": segments * costs.write_seconds / _HOUR,
        # Postgres builds one graph over all; a cluster builds many small ones, which is less.
        "graph": segments
        * grown(costs.graph_seconds, min(segments, costs.shard_segments * 2))
        / _HOUR,
    }
    vector_bytes = _FLOAT_BYTES * costs.dimensions + 2 * _FLOAT_BYTES * costs.graph_links
    usable = costs.bytes_per_machine * costs.memory_share
    busy_hours = costs.days * 24
    return Needs(
        segments=segments,
        video_hours=video_seconds / _HOUR,
        video_bytes=video_seconds * costs.video_bits_per_second / 8,
        hours=hours,
        device_hours=segments / costs.device_segments_per_second / _HOUR,
        postgres_disk_bytes=segments * (costs.row_bytes + costs.graph_bytes),
        postgres_memory_bytes=segments * costs.graph_bytes / costs.memory_share,
        cluster_memory_bytes=segments * vector_bytes / costs.memory_share,
        cluster_machines=math.ceil(segments * vector_bytes / usable),
        indexing_machines=math.ceil(sum(hours.values()) / busy_hours / costs.cores_per_machine),
        postgres_search_cores=costs.queries_per_second * grown(costs.search_seconds, segments),
        cluster_search_cores=costs.queries_per_second
        * max(1.0, segments / costs.shard_segments)
        * costs.shard_search_seconds,
    )


def page(costs: UnitCosts, tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Write the page in Markdown."""
    columns = {name: needs(size, costs) for name, size in SIZES.items()}
    rows: list[tuple[str, list[str]]] = [
        ("hours of video", [_number(each.video_hours) for each in columns.values()]),
        ("video kept, TiB", [_number(each.video_bytes / _TIB) for each in columns.values()]),
    ]
    for stage in ("decode", "encode", "write", "graph"):
        rows.append(
            (f"{stage}, core hours", [_number(each.hours[stage]) for each in columns.values()])
        )
    rows += [
        ("share of encoding", [_share(each) for each in columns.values()]),
        (
            "encode on devices instead, device hours",
            [_number(each.device_hours) for each in columns.values()],
        ),
        (
            f"machines to index all in {costs.days:g} days",
            [_number(each.indexing_machines, least=0) for each in columns.values()],
        ),
        (
            "one Postgres: disk, GiB",
            [_if(each, each.postgres_disk_bytes / _GIB, costs) for each in columns.values()],
        ),
        (
            "one Postgres: memory for the graph, GiB",
            [_if(each, each.postgres_memory_bytes / _GIB, costs) for each in columns.values()],
        ),
        (
            f"one Postgres: cores for {costs.queries_per_second:g} searches a second",
            [_if(each, each.postgres_search_cores, costs) for each in columns.values()],
        ),
        (
            "Milvus: memory, GiB",
            [_number(each.cluster_memory_bytes / _GIB) for each in columns.values()],
        ),
        (
            "Milvus: machines by memory",
            [_number(e.cluster_machines, least=0) for e in columns.values()],
        ),
        (
            f"Milvus: cores for {costs.queries_per_second:g} searches a second",
            [_number(each.cluster_search_cores) for each in columns.values()],
        ),
    ]
    lines = [
        "# What many segments need",
        "",
        "Written by `make capacity` from `tests/benchmarks/unit_costs.toml`; change that file, not",
        "this page. A paper model: it multiplies what was measured on one small machine, and what",
        "is assumed. Nothing of a hundred million segments was ever run.",
        "",
        "| segments | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
        *(f"| {name} | {' | '.join(values)} |" for name, values in rows),
        "",
        "## What it says",
        "",
        *_reading(columns, costs),
        "",
        "## What it is computed from",
    ]
    for table, entries in tables.items():
        lines += ["", f"### {table.capitalize()}", "", "| | value | from |", "| --- | --- | --- |"]
        lines += [
            f"| {name.replace('_', ' ')} | {_value(entry['value'])} | {entry['source']} |"
            for name, entry in entries.items()
        ]
    return "\n".join(lines) + "\n"


def _reading(columns: Mapping[str, Needs], costs: UnitCosts) -> list[str]:
    first = next(iter(columns.values()))
    most = int(costs.bytes_per_machine * costs.memory_share / costs.graph_bytes)
    last = list(columns.values())[-1]
    shards = last.segments / costs.shard_segments
    return [
        f"- **Encoding is the cost**: {_share(first)} of the core hours; decoding is most of the"
        " rest, writing and",
        "  the graph are nothing beside them. With devices, decoding decides how many machines are",
        "  needed.",
        f"- **One Postgres** has room for {_words(most)} segments in memory of",
        f"  one machine ({costs.bytes_per_machine / _GIB:.0f} GiB); beyond, searches read the",
        "  disk at every step. Recall is another bound: how much a graph looks at grows with it,",
        "  and pgvector's limit (ef 1,000) is met at 9 million segments, 2 million with filters.",
        "  Use Milvus beyond (`VTAG_VECTOR_URL`, [milvus.md](milvus.md)).",
        "- **Milvus does not do without Postgres**: every segment keeps a row there, without",
        "  its vector, and every hit is looked up. That is not in the table, and is a limit too.",
        f"- **A search asks every graph of a cluster**: {_words(last.segments)} segments are"
        f" {_words(round(shards))} graphs.",
        "  Collections are its partition key, so many collections cost less than a large one. An",
        "  index that needs less memory (quantised, or on disk) has to be measured before that",
        "  size is bought.",
        "- **Videos weigh more than vectors**:"
        f" {last.video_bytes / last.postgres_disk_bytes:.0f} to 1 on disk. Not keeping them",
        "  (`VTAG_MEDIA_URL=none`) costs thumbnails, and moving to another model or λ.",
    ]


def _share(each: Needs) -> str:
    return f"{100 * each.hours['encode'] / sum(each.hours.values()):.0f} %"


def _words(number: int) -> str:
    for size, word in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if number >= size:
            return f"{number / size:.3g} {word}"
    return str(number)


def _if(each: Needs, value: float, costs: UnitCosts) -> str:
    """A figure of one Postgres, where its graph fits into the memory of a machine."""
    fits = each.postgres_memory_bytes <= costs.bytes_per_machine
    return _number(value) if fits else "does not fit"


def _number(value: float, *, least: int = 1) -> str:
    """Two digits that count, thousands apart; of numbers below 10 ``least`` behind the point."""
    if value == 0:
        return "0"
    places = 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, min(places, least) if value >= 1 else places)}f}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{each:.3g} at {_words(int(segments))}" for segments, each in value)
    if isinstance(value, int) and value >= _GIB:
        return f"{value / _GIB:g} GiB"
    return f"{value:g}" if isinstance(value, float) else f"{value:,d}"


def main() -> None:
    """Write the page."""
    tables = tomllib.loads(UNIT_COSTS.read_text())
    PAGE.write_text(page(read_unit_costs(), tables))
    print(f"wrote {PAGE.name}")


if __name__ == "__main__":
    main()
