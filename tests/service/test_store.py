"""The model store: what is there, what is whole, what is active."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from service.store import ArtefactStore
from service.videoclip.manifest import ArtefactError
from tests.service.small_artefact import publish, weights


def test_artefacts_are_listed_and_one_is_active(tmp_path: Path) -> None:
    """All published ones, by name; unpublished folders and loose files are passed over."""
    first = publish(tmp_path)
    second = publish(tmp_path, name="another", clip=weights(5))
    (tmp_path / "small" / ".publishing").mkdir()
    (tmp_path / "README.md").write_text("about")
    store = ArtefactStore(tmp_path)
    assert [m.name for m in store.list()] == ["another", "small"]
    assert store.active() == second
    assert store.folder(first.name, first.revision) == tmp_path / "small" / first.revision


def test_a_damaged_artefact_is_listed_with_its_fault(tmp_path: Path) -> None:
    """One bad folder hides no other: it is in the list with one line that names the file."""
    manifests = [publish(tmp_path, name=name) for name in ("a", "b", "c", "d")]
    folders = [tmp_path / each.name / each.revision for each in manifests]
    (folders[0] / "manifest.json").write_text("{")
    (folders[1] / "weights_clip.safetensors").write_bytes(b"weights")
    (folders[2] / "weights_clip.safetensors").unlink()
    found = ArtefactStore(tmp_path).list()
    assert [(each.name, each.manifest) for each in found[:3]] == [(n, None) for n in "abc"]
    for each, name in zip(
        found,
        ("manifest.json", "weights_clip.safetensors", "weights_clip.safetensors"),
        strict=False,
    ):
        assert each.fault is not None
        assert each.fault.startswith(f"{each.name}/{each.revision}/{name}: expected ")
        assert "\n" not in each.fault
        assert str(tmp_path) not in each.fault
    assert (found[3].manifest, found[3].fault) == (manifests[3], None)
    assert found[3].number_types == ("F32",)


def _nothing(_root: Path) -> None:
    """Leave the store empty."""


def _no_json(root: Path) -> None:
    (root / "active.json").write_text("{")


def _a_list(root: Path) -> None:
    (root / "active.json").write_text("[]")


def _elsewhere(root: Path) -> None:
    entry = {"name": "../../etc", "revision": "0" * 12}
    (root / "active.json").write_text(json.dumps({"active": entry}))


def _not_there(root: Path) -> None:
    entry = {"name": "demo", "revision": "0" * 12}
    (root / "active.json").write_text(json.dumps({"active": entry}))


def _no_active(root: Path) -> None:
    (root / "active.json").write_text(json.dumps({"active": None}))


def _renamed(root: Path) -> None:
    manifest = publish(root)
    (root / "small" / manifest.revision).rename(root / "small" / ("0" * 12))
    entry = {"name": "small", "revision": "0" * 12}
    (root / "active.json").write_text(json.dumps({"active": entry}))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (_nothing, "active.json: expected a readable file, found No such file or directory"),
        (_no_json, "active.json: expected JSON, found something else"),
        (_a_list, "active.json: expected an object, found list"),
        (_elsewhere, "active.json: expected name and revision of an artefact, found ../../etc"),
        (_not_there, "demo/000000000000: expected a folder, found none"),
        (_no_active, "active.json: expected an active artefact, found none"),
        (_renamed, "small/000000000000/manifest.json: expected name and revision of its folder"),
    ],
)
def test_a_damaged_store_is_one_clear_line(
    tmp_path: Path, damage: Callable[[Path], None], line: str
) -> None:
    """The operator reads what is wrong, and no path outside the store is touched."""
    damage(tmp_path)
    with pytest.raises(ArtefactError) as caught:
        ArtefactStore(tmp_path).active()
    assert str(caught.value).startswith(line)


def test_an_empty_store_lists_nothing(tmp_path: Path) -> None:
    """Nor does one that does not exist."""
    assert ArtefactStore(tmp_path).list() == []
    assert ArtefactStore(tmp_path / "none").list() == []


def test_activating_remembers_what_was_before(tmp_path: Path) -> None:
    """One step on the disk: the new name, and the old one to go back to; readable for others."""
    first = publish(tmp_path)
    second = publish(tmp_path, name="another", clip=weights(5), activate=False)
    store = ArtefactStore(tmp_path)
    store.set_active("another", second.revision)
    assert store.active() == second
    content = json.loads((tmp_path / "active.json").read_text())
    assert content["previous"] == {"name": "small", "revision": first.revision}
    store.set_active("another", second.revision)
    assert json.loads((tmp_path / "active.json").read_text()) == content
    assert (tmp_path / "active.json").stat().st_mode & 0o777 == 0o644
    (tmp_path / "active.json").write_text("{")
    store.set_active("small", first.revision)
    assert store.active() == first


def test_every_change_changes_the_signature(tmp_path: Path) -> None:
    """Names, sizes and contents written anew; looking changes nothing."""
    manifest = publish(tmp_path)
    store = ArtefactStore(tmp_path)
    folder = tmp_path / "small" / manifest.revision
    weights_file = folder / "weights_clip.safetensors"

    def truncate() -> None:
        weights_file.write_bytes(weights_file.read_bytes()[:-1])

    def replace() -> None:
        beside = folder / "beside"
        beside.write_bytes(weights_file.read_bytes())
        beside.replace(weights_file)

    def add() -> None:
        publish(tmp_path, name="another", clip=weights(5), activate=False)

    def activate() -> None:
        (tmp_path / "active.json").write_text("{}")

    def remove() -> None:
        (tmp_path / "active.json").unlink()

    seen = [store.signature()]
    for change in (truncate, replace, add, activate, remove):
        assert store.signature() == seen[-1]
        change()
        seen.append(store.signature())
        assert seen[-1] not in seen[:-1], change
    assert ArtefactStore(tmp_path / "none").signature().artefacts == {}


def test_what_was_cut_is_found_without_reading_it(tmp_path: Path) -> None:
    """The size of every file is compared with the manifest's."""
    manifest = publish(tmp_path)
    path = tmp_path / "small" / manifest.revision / "text_encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    found = ArtefactStore(tmp_path).look("small", manifest.revision)
    size = path.stat().st_size
    where = f"small/{manifest.revision}/text_encoder.onnx"
    assert found.fault == f"{where}: expected {size + 1} bytes, found {size}"
