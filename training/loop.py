"""One training run from a configuration: decode, start from CLIP, fine-tune, keep everything."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from service.videoclip.manifest import Sampling
from training.config import ConfigError
from training.provenance import environment
from training.recipes.open_vclip import OpenVCLIPSettings, StepReport, array_batches, fine_tune
from training.run_config import RunConfig
from training.start import Start, classifier_of, open_start
from training.video_list import (
    DecodedVideos,
    LabelledVideo,
    classes_of,
    decode_videos,
    read_video_list,
)

CLIP_FILE = "clip.safetensors"
TUNED_FILE = "tuned.safetensors"
LAST_FILE = "last.safetensors"
FACTS_FILE = "run.json"
STEPS_FILE = "steps.jsonl"


def train(config: RunConfig, *, source: Path | None = None) -> Path:
    """Run a configuration to its end and return the run's folder.

    The folder gets the weights at both ends, the last step's, every step's numbers, and what is
    needed to do it again (`source`: the configuration file, copied). It must not exist already.
    Raises ConfigError, VideoListError, ArtefactError for what does not fit, FloatingPointError when
    training diverges.
    """
    if config.run.exists():
        raise ConfigError(f"run = {str(config.run)!r}: exists already; a run needs a new folder")
    start = open_start(config.clip)
    videos = read_video_list(config.data.train)
    classes = classes_of(videos)
    decoded = decode_with_progress(
        videos, frames=config.frames, start=start, threads=config.data.threads, title="train"
    )
    network = start.network()
    classifier = classifier_of(
        network, classes, tokenizer=start.tokenizer, template_set=config.template_set
    )
    settings = replace(
        config.open_vclip,
        seed=config.seed,
        mean=start.preprocessing.mean,
        std=start.preprocessing.std,
    )
    config.run.mkdir(parents=True)
    if source is not None:
        (config.run / "config.toml").write_bytes(source.read_bytes())
    begin = time.perf_counter()
    with _log(config.run / STEPS_FILE, settings=settings) as on_step:
        result = fine_tune(
            network,
            array_batches(
                decoded.frames[:, 0],
                decoded.label_ids(classes),
                batch_size=settings.batch_size,
                seed=settings.seed,
            ),
            classifier=torch.from_numpy(classifier),
            settings=settings,
            on_step=on_step,
        )
    save_file(start.weights, config.run / CLIP_FILE)
    save_file(result.last, config.run / LAST_FILE)
    save_file(result.averaged or result.last, config.run / TUNED_FILE)
    facts = {
        "settings": asdict(settings),
        "classes": classes,
        "videos": len(decoded.labels),
        "failed": [f"{path}: {reason}" for path, reason in decoded.failed],
        "frames_sha256": hashlib.sha256(decoded.frames.tobytes()).hexdigest(),
        "clip": f"{start.manifest.name}/{start.manifest.revision}",
        "seconds": round(time.perf_counter() - begin, 1),
        **environment(network.logit_scale.device, precision=settings.precision),
    }
    (config.run / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return config.run


def decode_with_progress(
    videos: list[LabelledVideo], *, frames: int, start: Start, threads: int, title: str
) -> DecodedVideos:
    """Decode `frames` frames a video, spread evenly, and tell which videos were left out."""
    with tqdm(total=len(videos), desc=f"decode {title}", unit="video") as bar:
        decoded = decode_videos(
            videos,
            sampling=Sampling(mode="uniform", frames=frames),
            preprocessing=start.preprocessing,
            threads=threads,
            on_video=bar.update,
        )
    for path, reason in decoded.failed:
        print(f"left out: {path}: {reason}")
    return decoded


@contextlib.contextmanager
def _log(path: Path, *, settings: OpenVCLIPSettings) -> Iterator[Callable[[int, StepReport], None]]:
    """A progress bar, and one line of JSON for every step."""
    with (
        path.open("w", encoding="utf-8") as stream,
        tqdm(total=settings.steps, desc="fine-tune", unit="step") as bar,
    ):

        def on_step(step: int, report: StepReport) -> None:
            stream.write(json.dumps({"step": step, **asdict(report)}) + "\n")
            bar.set_postfix(loss=f"{report.loss:.3f}", refresh=False)
            bar.update()

        yield on_step
