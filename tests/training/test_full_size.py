"""ViT-B/16 with every addition: exported, compared and served within the memory of a small machine.

The networks are whole; the work is cut. Each committed configuration trains one step with two clips
of 8 frames, also where it says 16 or 32 frames and hundreds of clips (`_short`): that a recipe fits
into 24 GiB is shown for such a step, and for no larger one.

Each case takes minutes and gigabytes, so the work is done in processes of its own, one at a time,
whose peaks the kernel tells.
"""

import json
import resource
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service.videoclip.manifest import load_manifest
from tests.conftest import REPOSITORY
from tests.drawn_video import draw_video
from tests.e2e.conftest import state_folder
from tests.running_service import running_service
from training.data.motion_world.drawing import Camera
from training.data.motion_world.files import write_set
from training.data.motion_world.sets import examples

CONFIGS = REPOSITORY / "training" / "configs"
GIB = 1 << 30
LIMIT = 24 * GIB
SYSTEMS: dict[str, dict[str, Any]] = {
    "neighbour": {"temporal": "neighbour"},
    "prompts": {
        "temporal": "none",
        "prompts": {"vision": 16, "vision_depth": 9, "text": 16, "text_depth": 9},
    },
    "t-trans": {"temporal": "none", "temporal_head": "t-trans"},
    "token-t1d": {"temporal": "none", "temporal_head": "token-t1d"},
}
RECIPES = (
    "open_vclip_vit_b16",
    "open_vclip_pp_vit_b16",
    "vifi_clip_vit_b16",
    "vifi_clip_vit_b16_prompts_few_shot",
    "fitclip_vit_b16",
    "text4vis_vit_b16",
)
PUBLISH = """
import json, sys
from pathlib import Path
from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.tokenizing import build_tokenizer_json
from training.artefact import Description
from training.models.endpoints import clip_end
from training.models.network import build, describe
from training.publish import publish
from training.pull import _open_clip_merges

plain = {**describe("ViT-B-16-quickgelu"), "temporal": "none"}
architecture = {**plain, **json.loads(sys.argv[2])}
tuned = build(architecture, seed=2).state_dict()
description = Description(
    name="full-size",
    recipe="random weights",
    architecture=architecture,
    sampling=Sampling(mode="uniform", frames=8),
    preprocessing=Preprocessing(image_size=224, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28)),
    tokenizer_json=build_tokenizer_json(_open_clip_merges()),
    template_set="kinetics",
    licence="Apache-2.0",
    pooling="mean_then_normalize",
)
clip = clip_end(architecture, build(plain, seed=1).state_dict(), tuned)
publish(description, clip=clip, tuned=tuned, store=Path(sys.argv[1]), real_texts=("a dog",))
"""


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_vit_b_16_is_exported_and_served(tmp_path: Path, name: str) -> None:
    """Publishing compares every graph with the network; the service then answers, below 24 GiB."""
    store = tmp_path / "model_store"
    _python("-c", PUBLISH, str(store), json.dumps(SYSTEMS[name]))
    # The largest child so far, in KiB.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < LIMIT
    (folder,) = store.glob("full-size/*")
    manifest = load_manifest(folder)
    assert max(parity.max_rel_error for parity in manifest.parity) < 1e-4
    assert manifest.context_length == 77 - (16 if name == "prompts" else 0)

    _serve(store, tmp_path)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ViT-B/16 as an artefact, with random weights at both ends."""
    store = tmp_path_factory.mktemp("start")
    _python("-c", PUBLISH, str(store), "{}")
    (folder,) = store.glob("full-size/*")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", RECIPES)
def test_vit_b_16_trains_under_each_recipe(tmp_path: Path, name: str, start: Path) -> None:
    """The committed configuration, cut to two clips of 8 frames, takes a step, and is served."""
    write_set(
        tmp_path / "videos",
        list(examples("source", "train", count=4, seed=0)),
        camera=Camera(pixels=112, frames=16, seconds=2.0),
        processes=1,
        title="draw",
    )
    changed = tmp_path / "config.toml"
    document = _short(name, videos=tmp_path / "videos/list.csv", start=start, folder=tmp_path)
    changed.write_text(_toml(document), encoding="utf-8")
    _python("-m", "training", "train", str(changed))
    steps = (tmp_path / "run/steps.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([step for step in steps if "loss" in json.loads(step)]) == 1
    if "select" in document:
        _python("-m", "training", "select", "--steps", "2", str(changed))
    _python("-m", "training", "publish", str(changed))
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < LIMIT
    _serve(tmp_path / "model_store", tmp_path)


def _short(name: str, *, videos: Path, start: Path, folder: Path) -> dict[str, Any]:
    """A committed configuration, of one step with two clips of 8 frames, and of videos here."""
    document = tomllib.loads((CONFIGS / f"{name}.toml").read_text(encoding="utf-8"))
    document |= {"run": str(folder / "run"), "clip": str(start), "frames": 8}
    data = document["data"]
    data |= {"train": str(videos), "workers": 0, "evaluation": {}}
    data.pop("subset", None)
    data.pop("captions", None)  # they are in the list
    if "unlabelled" in data:
        data["unlabelled"] = str(videos)
    if "validation" in document:
        document["validation"] = {"videos": str(videos), "every": 1}
    document.pop("select", None)
    if name.startswith(("open_vclip", "text4vis")):  # the others have a λ of their own
        document["select"] = {"maximise": ["drawn"]}
        data["evaluation"] = {"drawn": str(videos)}
    document["optimisation"].pop("epochs", None)
    document["optimisation"] |= {"steps": 1, "batch_size": 2, "accumulate": 1}
    if "snapshots" in document.get("regularisation", {}):
        document["regularisation"]["snapshots"] = 1
    if "stage_one" in document.get("vifi_clip", {}):
        document["vifi_clip"]["stage_one"] = str(start)
    document["publish"]["store"] = str(folder / "model_store")
    return document


def _toml(table: dict[str, Any], where: str = "") -> str:
    """A table and those in it; values are written alike in JSON and TOML."""
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(table[key])}" for key in table if key not in tables]
    for key, value in tables.items():
        lines += [f"[{where}{key}]", _toml(value, f"{where}{key}.")]
    return "\n".join(lines)


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=True)


def _serve(store: Path, folder: Path) -> None:
    """The service answers from the store, below the limit."""
    film = draw_video(folder / "film.mp4").read_bytes()
    settings = {"VTAG_MODEL_STORE": str(store)}
    with (
        state_folder() as state,
        running_service(state, environment=settings, start_seconds=600) as running,
        httpx.Client(base_url=running.url, timeout=300) as client,
    ):
        answer = client.post(
            "/classify", files={"video": film}, data={"labels": ["a red square", "rain"]}
        )
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["tags"]) == 2
        assert client.put("/lambda", json={"lambda": 1.0}).status_code == 200
        assert client.post("/videos", files={"video": film}).status_code == 201
        found = client.post("/search", json={"query": "a red square"})
        assert len(found.json()["data"]) == 1
        assert _peak_bytes(running.process.pid) < LIMIT


def _peak_bytes(pid: int) -> int:
    """Of a process and its children: the sum of the most that each has held."""
    service = psutil.Process(pid)
    total = 0
    for process in (service, *service.children(recursive=True)):
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return total
