"""Measuring: what is printed equals what each video gives alone, and nothing is decoded twice."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.videoclip import decoding
from service.videoclip.clips import DecodedClip
from service.videoclip.pooling import unit
from tests.conftest import REPOSITORY
from tests.drawn_video import draw_video
from training.__main__ import main
from training.evaluate import embedding
from training.evaluate.artefact import PublishedModel
from training.evaluate.embedding import EmbeddingError, embed_once
from training.evaluate.inputs import EvaluationList, open_plan
from training.evaluate.measure import Measured, distinct_videos, means, measure
from training.evaluate.model_folder import open_model
from training.evaluate.network_model import network_of_artefact
from training.evaluate.plan import Plan
from training.evaluate.retrieval import Retrieval, retrieval


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of each of three classes, of which every draw has one; one more is no video."""
    root = tmp_path_factory.mktemp("videos")
    for i, name in enumerate(("kick", "kick_ball", "situp")):
        (root / name).mkdir()
        for j in range(2):
            draw_video(root / name / f"{j}.mp4", seconds=0.5 + 0.2 * i, width=80 + 16 * j)
    (root / "situp" / "broken.mp4").write_bytes(b"no video")
    return root


@pytest.fixture(scope="module")
def artefact() -> Path:
    """The demo model, a published artefact that is small and quick."""
    (folder,) = (REPOSITORY / "model_store" / "demo").iterdir()
    return folder


@pytest.mark.slow
def test_a_video_is_decoded_once_for_all_models_lambdas_and_plans(
    videos: Path, artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little memory there is, and the scores do not depend on it."""
    counts: Counter[Path] = Counter()

    def counted(path: Path, **arguments: object) -> DecodedClip:
        counts[path] += 1
        return decoding.decode_planned(path, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(embedding, "decode_planned", counted)
    plans = {
        "folder": open_plan(EvaluationList(videos=(videos,))),
        "hmdb": open_plan(EvaluationList(videos=(videos,), protocol="EP2", dataset="hmdb51")),
    }
    models = {"a": open_model(artefact, threads=1), "b": network_of_artefact(artefact)}
    found = []
    for memory_bytes in (1, 10**9):
        counts.clear()
        done: list[int] = []
        results, failed = measure(
            models,
            plans,
            clip_weights=(0.0, 0.5),
            memory_bytes=memory_bytes,
            on_videos=done.append,
        )
        assert sum(done) == len(distinct_videos(plans)) == 7
        assert set(counts.values()) == {1}
        assert len(counts) == 7
        assert [path.name for path, _ in failed] == ["broken.mp4"]
        found.append(results)
    assert found[0] == found[1]
    # The graphs and the network they were exported from agree.
    assert found[0]["a"] == found[0]["b"]


def test_scores_are_those_of_each_video_alone(videos: Path, artefact: Path) -> None:
    """Decoded, embedded and compared one by one."""
    plan = open_plan(EvaluationList(videos=(videos,), protocol="EP1", dataset="hmdb51"))
    network = network_of_artefact(artefact)
    results, _ = measure({"m": network}, {"p": plan}, clip_weights=(0.4,))
    model = PublishedModel(artefact, clip_weight=0.4)
    for part in plan.parts:
        hits = []
        for path, label in zip(part.videos, part.labels, strict=True):  # type: ignore[union-attr]
            if path.name == "broken.mp4":
                continue
            clip = decoding.decode_clips(
                path,
                sampling=model.way.sampling,
                preprocessing=model.way.preprocessing,
                limits=decoding.Limits(),
            )
            scores = model.classifier(part.classes) @ model.embed(clip.pixels[None])[0]  # type: ignore[union-attr]
            hits.append(int(scores.argmax()) == label)
        score = results["m"]["p"][0.4].scores[part.name]
        assert score.headline == pytest.approx(100 * np.mean(hits))
        assert score.videos == len(hits)


def test_sentences_find_videos_and_broken_videos_take_theirs_along(
    videos: Path, artefact: Path, tmp_path: Path
) -> None:
    """Retrieval over what can be decoded."""
    table = tmp_path / "list.csv"
    rows = [(f"kick/{i}.mp4", f"a kick number {i}") for i in range(2)]
    rows += [("situp/broken.mp4", "nothing"), ("situp/1.mp4", "sitting"), ("kick/0.mp4", "again")]
    table.write_text("path,caption\n" + "".join(f"{videos / p},{t}\n" for p, t in rows))
    plan = open_plan(EvaluationList(videos=(table,), protocol="retrieval"))
    model = open_model(artefact)
    results, failed = measure({"m": model}, {"p": plan}, clip_weights=(0.0,))
    assert len(failed) == 1
    texts = model.sentences([text for _, text in rows if text != "nothing"])
    paths = [videos / name for name in ("kick/0.mp4", "kick/1.mp4", "situp/1.mp4")]
    vectors = embed_once({"m": model}, paths, clip_weights=(0.0,)).features["m", 0.0][:, 0]
    expected = retrieval(texts, vectors, np.array([0, 1, 2, 0]))
    assert results["m"]["p"][0.0] == Measured({"all": expected})
    assert isinstance(expected, Retrieval)


def test_views_and_attention_can_be_others_than_the_models(videos: Path, artefact: Path) -> None:
    """Three clips of a video; frames that do not see each other."""
    paths = [videos / "kick/0.mp4", videos / "situp/1.mp4"]
    three = open_model(artefact, views=3)
    assert three.way.views == 3
    assert embed_once({"m": three}, paths, clip_weights=(0.5,)).features["m", 0.5].shape[1] == 3
    alone, together = (
        embed_once({"m": open_model(artefact, temporal=t)}, paths, clip_weights=(0.5,))
        for t in ("none", "neighbour")
    )
    difference = unit(alone.features["m", 0.5]) - unit(together.features["m", 0.5])
    assert np.abs(difference).max() > 1e-3
    with pytest.raises(EmbeddingError, match="a and b differ in sparse_views"):
        embed_once({"a": open_model(artefact), "b": three}, paths, clip_weights=(0.5,))


def test_nothing_that_can_be_decoded_is_one_line(tmp_path: Path, artefact: Path) -> None:
    """With the reason of the first."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.mp4").write_bytes(b"no video")
    plan: Plan = open_plan(EvaluationList(videos=(tmp_path,)))
    with pytest.raises(EmbeddingError, match=r"none of 1 videos can be decoded; .*b\.mp4"):
        measure({"m": open_model(artefact)}, {"p": plan}, clip_weights=(0.0,))


def test_the_command_prints_a_table_and_writes_how_it_was_measured(
    videos: Path, artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seeds, templates, normalisation, list hash and protocol version stand beside the figures."""
    target = tmp_path / "results" / "ep1.json"
    arguments = ["evaluate", str(artefact), str(videos), "--protocol", "EP1", "--dataset", "hmdb51"]
    arguments += ["--clip-weight", "0", "1", "--templates", "kinetics", "--json", str(target)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "left out: " in printed
    assert "EP1/hmdb51 v1, list " in printed
    written = json.loads(target.read_text())
    assert written["protocol"]["version"] == 1
    assert len(written["list_sha256"]) == 64
    assert written["template_set"] == "kinetics"
    assert len(written["templates"]) == 28
    assert written["pooling"] == "normalize_then_mean"
    assert written["model"]["artefact"] == f"demo/{artefact.name}"
    assert written["failed"][0]["video"] == "broken.mp4"
    assert [part["classes"] for part in written["parts"]] == [25] * 10
    assert [result["clip_weight"] for result in written["results"]] == [0.0, 1.0]
    for result in written["results"]:
        top1 = [part["figures"]["top1"] for part in result["parts"]]
        assert result["mean"]["top1"] == pytest.approx(np.mean(top1))
        assert result["spread"]["top1"] == pytest.approx(np.std(top1, ddof=1))
        shown = f"| mean |  | {result['mean']['top1']:.1f} ± {result['spread']['top1']:.1f} |"
        assert shown in printed


def test_base_to_novel_ends_in_the_harmonic_mean(
    videos: Path, artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over the two halves; that is what stands for it on a curve."""
    for name, text in (("base", "kick\nsitup\n"), ("novel", "kick ball\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    files = [str(tmp_path / "base.txt"), str(tmp_path / "novel.txt")]
    target = tmp_path / "found.json"
    arguments = ["evaluate", str(artefact), str(videos), "--protocol", "base-to-novel"]
    assert main([*arguments, "--classes", *files, "--json", str(target)]) == 0
    (result,) = json.loads(target.read_text())["results"]
    base, novel = (part["figures"]["top1"] for part in result["parts"])
    harmonic = 2 * base * novel / (base + novel) if base + novel else 0.0
    assert result["headline"] == result["harmonic mean"]["top1"] == pytest.approx(harmonic)
    assert "| harmonic mean |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "EP7"], "protocol 'EP7': unknown"),
        (["--templates", "mine"], "--templates mine: one of"),
        (["--views", "0"], "--views 0: not within 1 and 64"),
        (["--clip-weight", "1.5"], "--clip-weight 1.5: not within 0 and 1"),
        (["--classes", "nowhere.txt"], "nowhere.txt: No such file"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    videos: Path,
    artefact: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, and nothing was decoded."""
    assert main(["evaluate", str(artefact), str(videos), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_that_is_no_model_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what a model's folder holds."""
    assert main(["evaluate", str(tmp_path), str(tmp_path)]) == 2
    assert "neither a finished run (run.json) nor an artefact" in capsys.readouterr().err


def test_means_are_over_parts() -> None:
    """A single part has no spread."""

    def score(value: float) -> Retrieval:
        rows: NDArray[np.float32] = np.eye(2, dtype=np.float32)
        return retrieval(rows, rows[:: int(value)], np.array([0, 1]))

    assert means([score(1.0)])["t2v r1"] == (100.0, None)
    assert means([score(1.0), score(-1.0)])["t2v r1"] == pytest.approx((50.0, np.sqrt(5000.0)))
