"""The stages of the demo model: drawn sets, tokenizer, CLIP, fine-tuned weights.

Every stage leaves its result in the work folder and is skipped when that is there, so that an
interrupted run goes on where it stopped. The folder belongs to one configuration: another one
needs another folder.
"""

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.pooling import text_classifier
from service.videoclip.preprocessing import normalize, resize_crop
from service.videoclip.prompts import TEMPLATES, apply
from service.videoclip.tokenizing import Tokenizer, build_tokenizer_json
from training.config import ConfigError
from training.data.annotations import LabelledVideo, read_video_list
from training.data.merges import learn_merges
from training.data.motion_world import files, sets, vocabulary
from training.data.motion_world.drawing import Camera
from training.demo_config import DemoConfig
from training.fine_tuning import fine_tune
from training.models.network import VideoCLIP, build
from training.pixels import Pixels
from training.recipe import Batch
from training.recipes import clip
from training.recipes.open_vclip import OpenVCLIP
from training.select_lambda import EvaluationSet
from training.step import Step
from training.video_list import decode_videos

State = dict[str, Tensor]
Method = Literal["open-vclip", "plain"]
FRAMES = 8
_CHUNK = 32
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Workshop:
    """A work folder with its configuration: the stages, each of which reads what it needs."""

    folder: Path
    config: DemoConfig

    def claim(self) -> None:
        """Make the folder this configuration's own.

        Raises:
            ConfigError: it holds results of another configuration.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        owner = self.folder / "config.json"
        own = json.dumps(asdict(self.config), indent=1, sort_keys=True)
        if owner.exists() and owner.read_text(encoding="utf-8") != own:
            raise ConfigError(
                f"{self.folder}: holds results of another configuration; use another folder or"
                " remove it"
            )
        owner.write_text(own, encoding="utf-8")

    @property
    def preprocessing(self) -> Preprocessing:
        """The network's own size, with CLIP's mean and standard deviation."""
        size = self.config.network.vision["image_size"]
        return Preprocessing(image_size=size, mean=CLIP_MEAN, std=CLIP_STD)

    @property
    def camera(self) -> Camera:
        """How videos are filmed."""
        world = self.config.world
        return Camera(pixels=world.pixels, frames=world.frames, seconds=world.seconds)

    def pictures(self) -> tuple[NDArray[np.uint8], list[str]]:
        """The CLIP stage's set: uint8 (N, S, S, 3) and N captions."""
        target = self.folder / "pictures.npz"
        if not target.exists():
            draw = partial(
                _small_picture,
                seed=self.config.seed,
                pixels=self.config.world.pixels,
                preprocessing=self.preprocessing,
            )
            count = self.config.world.pictures
            with multiprocessing.get_context("spawn").Pool(self.config.processes) as pool:
                drawn = list(
                    tqdm(
                        pool.imap(draw, range(count), chunksize=64),
                        desc="draw pictures",
                        total=count,
                        unit="picture",
                    )
                )
            partial_file = target.with_suffix(".partial.npz")
            np.savez(
                partial_file,
                pictures=np.stack([picture for picture, _ in drawn]),
                captions=np.array([caption for _, caption in drawn]),
            )
            partial_file.rename(target)
        with np.load(target) as stored:
            return stored["pictures"], [str(text) for text in stored["captions"]]

    def videos(self, name: str, split: sets.Split) -> EvaluationSet:
        """A video set: drawn, encoded as H.264, and decoded again as the service would.

        All frames of each video are kept: uint8 (N, world.frames, S, S, 3).
        """
        world = self.config.world
        count = {
            "train": world.source_videos,
            "validation": world.validation_videos,
            "test": world.test_videos,
        }[split]
        examples = list(sets.examples(name, split, count=count, seed=self.config.seed))
        classes = sets.labels(name) if name in sets.CLASS_SETS else tuple(e.label for e in examples)
        folder = self.folder / "videos" / name / split
        if not (folder / files.LIST_NAME).exists():
            files.write_set(
                folder,
                examples,
                camera=self.camera,
                processes=self.config.processes,
                title=f"draw {name} {split}",
            )
        cache = self.folder / f"{name}-{split}.npy"
        if not cache.exists():
            videos = read_video_list(folder / files.LIST_NAME)
            decode = partial(_decode, frames=world.frames, preprocessing=self.preprocessing)
            chunks = [videos[first : first + _CHUNK] for first in range(0, len(videos), _CHUNK)]
            # Small videos are mostly Python: processes, not the threads of `decode_videos`.
            with (
                multiprocessing.get_context("spawn").Pool(self.config.processes) as pool,
                tqdm(total=count, desc=f"decode {name} {split}", unit="video") as bar,
            ):
                decoded = []
                for part in pool.imap(decode, chunks):
                    decoded.append(part)
                    bar.update(len(part))
            partial_file = cache.with_suffix(".partial.npy")
            np.save(partial_file, np.concatenate(decoded))
            partial_file.rename(cache)
        position = {label: index for index, label in enumerate(classes)}
        labels = np.array([position[example.label] for example in examples], np.int64)
        return EvaluationSet(np.load(cache), labels, classes)

    def tokenizer(self) -> Tokenizer:
        """CLIP's tokenizer with merges learnt from the captions."""
        target = self.folder / "tokenizer.json"
        if not target.exists():
            _, captions = self.pictures()
            merges = learn_merges(
                [*captions, *TEMPLATES[self.config.template_set]],
                count=self.config.network.merges,
            )
            target.write_text(build_tokenizer_json(merges), encoding="utf-8")
        return Tokenizer(target, self.config.network.text["context_length"])

    def architecture(self) -> dict[str, Any]:
        """What `training.models.network.build` takes."""
        network = self.config.network
        vocabulary = json.loads((self.folder / "tokenizer.json").read_text(encoding="utf-8"))
        words = len(vocabulary["model"]["vocab"])
        return {
            "embed_dim": network.embed_dim,
            "vision_cfg": dict(network.vision),
            "text_cfg": {**network.text, "vocab_size": words},
            "quick_gelu": network.quick_gelu,
            "temporal": network.temporal,
        }

    def clip(self) -> State:
        """CLIP's weights after the picture stage."""
        target = self.folder / "clip.safetensors"
        if not target.exists():
            pictures, captions = self.pictures()
            tokenizer = self.tokenizer()
            network = build(self.architecture(), temporal="none", seed=self.config.seed)
            clip.train(
                network,
                pictures,
                captions,
                encode=lambda texts: tokenizer.encode(texts)[0],
                normalize=lambda batch: normalize(batch, self.preprocessing),
                prompts=("{}", *TEMPLATES[self.config.template_set]),
                apart=vocabulary.verb_groups(),
                settings=self.config.clip,
                on_step=_progress("train CLIP", self.config.clip.steps),
            )
            _save(network.state_dict(), target)
        return load_file(target)

    def network(self) -> VideoCLIP:
        """The video network with CLIP's weights."""
        weights = self.clip()
        network = build(self.architecture())
        network.load_state_dict(weights, strict=True)
        return network.eval()

    def classifier(self, network: VideoCLIP, labels: Sequence[str]) -> NDArray[np.float32]:
        """Unit rows, float32 (C, D), of the labels in the demo's templates."""
        templates = TEMPLATES[self.config.template_set]
        texts = [apply(template, label) for label in labels for template in templates]
        with torch.no_grad():
            token_ids = torch.from_numpy(self.tokenizer().encode(texts)[0])
            embeddings = network.encode_text(token_ids).numpy()
        return text_classifier(embeddings.reshape(len(labels), len(templates), -1))

    def tuned(self, method: Method, seed: int) -> State:
        """Fine-tuned weights: the running mean of Open-VCLIP, the last step of plain tuning."""
        target = self.folder / f"{method}-{seed}.safetensors"
        if not target.exists():
            settings = self.config.open_vclip
            if method == "plain":
                settings = replace(settings, interpolation_coefficient=0.0, snapshots=0)
            source = self.videos("source", "train")
            network = self.network()
            rows = torch.from_numpy(self.classifier(network, source.classes))
            pixels = Pixels(self.preprocessing)
            clips = _clips(source, frames=FRAMES, batch_size=settings.batch_size, seed=seed)
            progress = _progress(f"fine-tune, {method}, seed {seed}", settings.steps)
            result = fine_tune(
                Step(
                    OpenVCLIP(network, classifier=rows),
                    steps=settings.steps,
                    optimisation=settings.optimisation(),
                    regularisation=settings.regularisation(),
                    seed=seed,
                    original=self.clip(),
                ),
                (Batch(frames=pixels(frames), labels=labels) for frames, labels in clips),
                on_step=lambda step, report: progress(step, report.loss),
            )
            _save(result.last if result.averaged is None else result.averaged, target)
        return load_file(target)


def _small_picture(
    index: int, *, seed: int, pixels: int, preprocessing: Preprocessing
) -> tuple[NDArray[np.uint8], str]:
    picture, caption = sets.image(index, seed=seed, pixels=pixels)
    return resize_crop(picture, preprocessing), caption


def _decode(
    videos: Sequence[LabelledVideo], *, frames: int, preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    """All frames of each video, uint8 (n, frames, S, S, 3)."""
    sampling = Sampling(mode="uniform", frames=frames)
    decoded = decode_videos(videos, sampling=sampling, preprocessing=preprocessing, threads=1)
    if decoded.failed:
        path, reason = decoded.failed[0]
        raise RuntimeError(f"{path}: a video drawn here does not decode: {reason}")
    return decoded.frames[:, 0]


def _clips(
    source: EvaluationSet, *, frames: int, batch_size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless random batches; of each of ``frames`` equal segments a random frame is taken."""
    rng = np.random.default_rng([seed, 3])
    per_segment = source.frames.shape[1] // frames
    while True:
        chosen = rng.integers(0, len(source.labels), batch_size)
        shown = per_segment * np.arange(frames) + rng.integers(0, per_segment, (batch_size, frames))
        yield (
            torch.from_numpy(source.frames[chosen[:, None], shown]),
            torch.from_numpy(source.labels[chosen]),
        )


def _save(state: State, target: Path) -> None:
    partial_file = target.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, partial_file)
    partial_file.rename(target)


def _progress(title: str, steps: int) -> Callable[[int, float], None]:
    bar = tqdm(total=steps, desc=title, unit="step")

    def show(_step: int, loss: float) -> None:
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        bar.update()
        if bar.n >= steps:
            bar.close()

    return show
