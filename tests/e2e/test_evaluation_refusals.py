"""What `POST /lambda/evaluate` refuses: archives that mean harm, requests that do not add up."""

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import REPOSITORY
from tests.e2e.conftest import state_folder
from tests.e2e.labelled_videos import send
from tests.running_service import running_service

STORE = REPOSITORY / "model_store"


def _tar(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:  # type: ignore[call-overload]
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    found: bytes = target.getvalue()
    return found


def _zip(*members: tuple[str | zipfile.ZipInfo, bytes], level: int = 0) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return target.getvalue()


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def _linked_zip() -> bytes:
    info = zipfile.ZipInfo("a/link.mp4")
    info.external_attr = 0o120777 << 16
    return _zip((info, b"/etc/passwd"))


HOSTILE = {
    "empty": (b"", 415, "unsupported_archive"),
    "a film": (b"\0\0\0\x18ftypmp42" + bytes(600), 415, "unsupported_archive"),
    "xz": (b"\xfd7zXZ\0" + bytes(600), 415, "unsupported_archive"),
    "cut off": (_zip(("a/1.mp4", b"x" * 999))[:500], 422, "invalid_archive"),
    "cut off tar.gz": (_tar((tarfile.TarInfo("a/1"), b"x" * 9999), mode="w:gz")[:60], 422, None),
    "absolute": (_zip(("/etc/passwd", b"x")), 422, "invalid_archive"),
    "absolute tar": (_tar((tarfile.TarInfo("/etc/cron.d/x"), b"x")), 422, "invalid_archive"),
    "drive": (_zip(("C:\\x\\y.mp4", b"x")), 422, "invalid_archive"),
    "upwards": (_zip(("a/../../../x.mp4", b"x")), 422, "invalid_archive"),
    "upwards, backwards": (_zip(("a\\..\\..\\x.mp4", b"x")), 422, "invalid_archive"),
    "link": (_linked_zip(), 422, "invalid_archive"),
    "link in tar": (_tar((_link("a/b", "/etc"), b"")), 422, "invalid_archive"),
    "hard link": (_tar((_link("a/b", "/etc/passwd", tarfile.LNKTYPE), b"")), 422, None),
    "device": (_tar((_link("a/b", "", tarfile.CHRTYPE), b"")), 422, "invalid_archive"),
    "pipe": (_tar((_link("a/b", "", tarfile.FIFOTYPE), b"")), 422, "invalid_archive"),
    "twice": (_tar(*[(tarfile.TarInfo("a/b"), b"x")] * 2), 422, "invalid_archive"),
    "control": (_tar((tarfile.TarInfo("a/\x1b[2J.mp4"), b"x")), 422, "invalid_archive"),
    "deep": (_zip(("a/" * 40 + "x.mp4", b"x")), 422, "invalid_archive"),
    "bomb": (_zip(("a/1.mp4", bytes(40 << 20)), level=9), 413, "archive_too_large"),
    "bombs": (
        _zip(*[(f"a/{n}.mp4", bytes(6 << 20)) for n in range(6)], level=9),
        *(413, "archive_too_large"),
    ),
    "tar bomb": (
        _tar((tarfile.TarInfo("a/1"), bytes(40 << 20)), mode="w:gz"),
        *(413, "archive_too_large"),
    ),
    "many": (_zip(*[(f"a/{n}", b"") for n in range(400)]), 413, "archive_too_large"),
    "nothing": (_zip(), 422, "missing_video"),
    "loose": (_zip(("1.mp4", b"x")), 422, "invalid_labelled_set"),
    "two lists": (_zip(("a.csv", b"x"), ("b.csv", b"x")), 422, "invalid_labelled_set"),
    "columns": (_zip(("a.csv", b"file,class\n1.mp4,x\n"), ("1.mp4", b"x")), 422, None),
    "unknown path": (_zip(("a.csv", b"path,label\n../x,a\n"), ("1.mp4", b"x")), 422, None),
    "no label": (_zip(("a.csv", b"path,label\n1.mp4,\n"), ("1.mp4", b"x")), 422, None),
    "not text": (_zip(("a.csv", b"path,label\n\xff\xfe,x\n"), ("1.mp4", b"x")), 422, None),
    "one class": (_zip(("a/1.mp4", b"x")), 422, "invalid_labelled_set"),
    "no films": (_zip(("a/1.mp4", b"x"), ("b/2.mp4", b"y")), 422, "no_decodable_video"),
}


@pytest.fixture(scope="module")
def narrow() -> Iterator[tuple[httpx.Client, Path]]:
    """A service with small limits, and its state."""
    limits = {
        "VTAG_MODEL_STORE": str(STORE),
        "VTAG_MAX_EVALUATION_BYTES": str(20 << 20),
        "VTAG_MAX_UPLOAD_BYTES": str(8 << 20),
        "VTAG_MAX_EVALUATION_VIDEOS": "100",
    }
    with (
        state_folder() as folder,
        running_service(folder, environment=limits) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        yield client, folder


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_that_means_harm_is_refused(
    narrow: tuple[httpx.Client, Path], name: str
) -> None:
    """A problem that names the field; no job, no file, and the next request is served."""
    client, state = narrow
    content, status, code = HOSTILE[name]
    answer = send(client, content)
    body = answer.json()
    assert answer.status_code == status, body
    assert answer.headers["content-type"] == "application/problem+json"
    if code is not None:
        assert body["code"] == code, body
    assert body["param"].split(":")[0] in ("archive", "videos", "classes"), body
    if code == "archive_too_large":
        assert body["actual"] > body["limit"]
    assert "/etc/passwd" not in body["detail"]
    assert [path.name for path in (state / "data" / "jobs").iterdir()] == ["owner"]
    assert not (state / "data" / "x.mp4").exists()
    assert client.get("/jobs").json()["data"] == []
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"folder": "x"}, 422, "folder_not_allowed", "folder"),
        ({"videos": [{"id": "vid_x", "label": "a"}]}, 422, "invalid_labelled_set", "videos.0.id"),
        ({}, 422, "invalid_request", None),
        ({"folder": "x", "videos": [{"id": "a", "label": "b"}]}, 422, "invalid_request", None),
        ({"folder": "x", "lambdas": [1.5]}, 422, "invalid_request", "lambdas.0"),
        ({"folder": "x", "lambdas": [0.1] * 22}, 422, "invalid_request", "lambdas"),
        ({"folder": "x", "model": "other"}, 422, "model_not_served", "model"),
        ({"folder": "x", "rule": {"maximise": "luck"}}, 422, "invalid_request", "rule.maximise"),
    ],
)
def test_a_request_that_asks_for_nonsense_is_refused(
    narrow: tuple[httpx.Client, Path],
    body: dict[str, Any],
    status: int,
    code: str,
    param: str | None,
) -> None:
    """Field, value and limit are named."""
    answer = narrow[0].post("/lambda/evaluate", json=body)
    found = answer.json()
    assert (answer.status_code, found["code"]) == (status, code), found
    assert param is None or found["param"] == param


def test_forms_that_do_not_add_up_are_refused(narrow: tuple[httpx.Client, Path]) -> None:
    """Both, neither, no labels, too few labels, too many videos, strange files."""
    client, _ = narrow
    film = ("video", ("a.mp4", b"x"))
    packed = ("archive", ("a.zip", _zip(("a/1.mp4", b"x"), ("b/2.mp4", b"y"))))
    labels = {"labels": json.dumps(["a", "b"])}
    for files, data, code in (
        ([film, packed], labels, "missing_video"),
        ([("other", ("a", b"x"))], labels, "malformed_multipart"),
        ([film], {}, "invalid_request"),
        ([film], labels, "invalid_labelled_set"),
        ([film] * 2, {"labels": "{"}, "malformed_json"),
        ([film] * 2, {"labels": '{"a.mp4": "a"}'}, "invalid_labelled_set"),
        ([film] * 101, labels, "too_many_videos"),
        ([packed], labels, "invalid_request"),
        ([("video", ("a.mp4", bytes(9 << 20)))], labels, "body_too_large"),
        ([film] * 2, labels, "no_decodable_video"),
        ([film] * 2, {**labels, "lambdas": "x"}, "invalid_request"),
    ):
        answer = client.post("/lambda/evaluate", files=files, data=data)
        assert answer.json()["code"] == code, (data, answer.json())
    assert client.get("/jobs").json()["data"] == []
