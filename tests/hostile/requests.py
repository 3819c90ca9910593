"""Good films with labels, options and names that cannot be used, or only look as if."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.hostile.corpus import GOOD, OK, Bad, Fields

_INVALID = frozenset({"invalid_request"})


def requests(film: bytes) -> list[Bad]:
    """All of them."""
    return [*labels(film), *templates(film), *numbers(film), *shapes(film), *file_names(film)]


def _each(film: bytes, cases: dict[str, tuple[Fields, frozenset[str]]]) -> Iterator[Bad]:
    for name, (fields, allowed) in cases.items():
        alone: Fields = {"labels": []} if "request" in fields else {}
        yield Bad(name, film, allowed, fields={**fields, **alone})


def labels(film: bytes) -> Iterator[Bad]:
    """27: labels."""
    many = [f"thing {number}" for number in range(20_000)]
    cases: dict[str, tuple[Fields, frozenset[str]]] = {
        "27 no label": ({"labels": []}, _INVALID),
        "27 one label": ({"labels": ["rain"]}, GOOD),
        "27 too many labels": ({"labels": many}, frozenset({"too_many_labels", "too_many_parts"})),
        "27 a long label": ({"labels": ["x" * 5000]}, frozenset({"label_too_long"})),
        "27 a huge label": ({"labels": ["x" * 2_000_000]}, frozenset({"field_too_large"})),
        "27 an empty label": ({"labels": ["a", ""]}, frozenset({"empty_label"})),
        "27 white space": ({"labels": [" \t\u2003 "]}, frozenset({"empty_label"})),
        "27 twice": ({"labels": ["Dog", " dog "]}, frozenset({"duplicate_label", OK})),
        "27 composed twice": (
            {"labels": ["caf\u00e9", "cafe\u0301"]},
            frozenset({"duplicate_label"}),
        ),
        "27 a zero byte": (
            {"labels": ["a\x00b", "c"]},
            frozenset({"invalid_label", "malformed_multipart"}),
        ),
        "27 control characters": ({"labels": ["a\x1b[2Jb", "c"]}, frozenset({"invalid_label", OK})),
        "27 emoji": ({"labels": ["🏄‍♀️ 🌊", "🐕"]}, GOOD),
        "27 right to left": (
            {"labels": ["كلب يركض", "כלב\u202erain"]},
            frozenset({OK, "invalid_label"}),
        ),
        "27 zalgo": ({"labels": ["r" + "\u0316\u0301" * 90 + "ain", "b"]}, GOOD),
        "27 a format string": ({"labels": ["{0.__class__}", "{}", "%s%n", "${x}"]}, GOOD),
        "27 homoglyphs": ({"labels": ["dog", "d\u043eg"]}, GOOD),
        "27 more words than are read": ({"labels": ["word " * 70, "b"]}, GOOD),
    }
    yield from _each(film, cases)


def templates(film: bytes) -> Iterator[Bad]:
    """28: prompt templates."""
    cases: dict[str, tuple[Fields, frozenset[str]]] = {
        "28 no placeholder": ({"templates": ["a video"]}, frozenset({"invalid_template"})),
        "28 two placeholders": ({"templates": ["{} {}"]}, frozenset({"invalid_template"})),
        "28 an attribute": (
            {"templates": ["{0.__class__} {}"]},
            frozenset({"invalid_template", OK}),
        ),
        "28 many templates": (
            {"templates": ["a {}"] * 1000},
            frozenset({"invalid_template", "invalid_request"}),
        ),
        "28 set and templates": ({"templates": ["{}"], "template_set": "none"}, _INVALID),
        "28 an unknown set": ({"template_set": "../../etc"}, frozenset({"unknown_template_set"})),
    }
    yield from _each(film, cases)


def numbers(film: bytes) -> Iterator[Bad]:
    """29, 30: lambda, selections, parts of the video, segments."""
    cases: dict[str, tuple[Fields, frozenset[str]]] = {
        "29 below": ({"lambda": "-0.1"}, _INVALID),
        "29 above": ({"lambda": "1.1"}, _INVALID),
        "29 no number": ({"lambda": "NaN"}, _INVALID),
        "29 endless": ({"lambda": "1e400"}, _INVALID),
        "29 a word": ({"lambda": "half"}, _INVALID),
        "29 nearly the served one": ({"lambda": "0.50000000001"}, GOOD),
        "30 none": ({"top_k": "0"}, _INVALID),
        "30 below none": ({"top_k": "-1"}, _INVALID),
        "30 a thousand million": ({"top_k": "1000000000"}, _INVALID),
        "30 threshold": ({"threshold": "1.01"}, _INVALID),
        "30 scores": ({"scores": "__class__"}, _INVALID),
        "30 a model": ({"model": "../../../etc/passwd"}, frozenset({"model_not_served"})),
        "30 a timeout of nothing": ({"timeout_s": "0"}, _INVALID),
        # Too late, or while others wait refused at once because it would be.
        "30 no time": ({"timeout_s": "0.0001"}, frozenset({"deadline_exceeded", "saturated"})),
    }
    samplings: list[tuple[str, object, frozenset[str]]] = [
        ("start after end", {"start": 2, "end": 1}, _INVALID),
        ("start past the end", {"start": 100}, frozenset({"time_range"})),
        ("a million a second", {"mode": "fps", "fps": 1e6}, _INVALID),
        ("a hundred thousand frames", {"frames": 100_000}, _INVALID),
        ("another number of frames", {"frames": 999}, frozenset({"invalid_sampling"})),
        ("too many views", {"mode": "strided", "fps": 5, "views": 33}, _INVALID),
        (
            "times past the end",
            {"mode": "timestamps", "timestamps": [0, 1, 99]},
            frozenset({"time_range"}),
        ),
        ("negative times", {"mode": "timestamps", "timestamps": [-1, 0, 1]}, _INVALID),
    ]
    cutting: list[tuple[str, object, frozenset[str]]] = [
        ("overlap is the length", {"length": 1, "overlap": 1}, frozenset({"invalid_segments"})),
        (
            "a million windows",
            {"length": 0.1, "overlap": 0.0999999},
            frozenset({"too_many_segments"}),
        ),
        ("windows of nothing", {"length": 0}, _INVALID),
        ("a longer overlap", {"overlap": 1e300}, _INVALID),
        ("an unknown mode", {"mode": "all"}, _INVALID),
    ]
    for field, rows in (("sampling", samplings), ("segments", cutting)):
        cases |= {f"30 {name}": ({field: json.dumps(value)}, codes) for name, value, codes in rows}
    yield from _each(film, cases)


def shapes(film: bytes) -> Iterator[Bad]:
    """31: fields that are none, and JSON that is none."""
    cases: dict[str, tuple[Fields, frozenset[str]]] = {
        "31 an unknown field": ({"__proto__": "{}"}, _INVALID),
        "31 twice": ({"top_k": ["1", "2"]}, _INVALID),
        "31 deep": ({"sampling": "[" * 100_000}, frozenset({"malformed_json", "invalid_request"})),
        "31 a list": ({"sampling": "[1]"}, _INVALID),
        "31 no JSON": ({"sampling": "{'start': 1}"}, frozenset({"malformed_json"})),
        "31 keys twice": ({"sampling": '{"start": 0, "start": 1}'}, frozenset({"malformed_json"})),
        "31 not finite": ({"sampling": '{"start": Infinity}'}, frozenset({"malformed_json"})),
        "31 a lone surrogate": (
            {"request": '{"labels": ["\\ud800"]}'},
            frozenset({"malformed_json", "invalid_label", "invalid_request"}),
        ),
        "31 type confusion": ({"request": '{"labels": {"0": "a"}}'}, _INVALID),
        "31 a number for a label": ({"request": '{"labels": [1]}'}, _INVALID),
    }
    yield from _each(film, cases)


def file_names(film: bytes) -> Iterator[Bad]:
    """34: names are never used."""
    for name in (
        *("../../../tmp/x.mp4", "/etc/passwd", "CON", "film.m3u8", "a" * 4000 + ".mp4"),
        *("http:x.mp4", "concat:a|b", "%d.png", "-i", "🎬.mp4", "'; rm -rf ~; '.mp4", "pipe:0"),
    ):
        # A header of kilobytes may be refused as such.
        allowed = GOOD if len(name) < 1000 else GOOD | {"malformed_multipart"}
        yield Bad(f"34 {name[:20]}", film, allowed, name)
