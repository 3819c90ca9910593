"""Compare exported graphs with the network they came from, at several λ and batch sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import Parity
from training.errors import Refusal
from training.graphs import Weights, load_graph
from training.models.network import VideoCLIP

CLIP_WEIGHTS = (0.0, 0.5, 1.0)
BATCHES = (1, 2, 5)  # at λ = 0; what a graph makes of a size does not depend on its weights
ONE_BATCH = (2,)  # at the other λ: a full-size network takes minutes for each
# Of the largest output: rounding grows with the scale of the weights, a mistake is far above it.
TOLERANCE = 1e-4

GRAPHS = ("video_encoder.onnx", "video_encoder.ts", "text_encoder.onnx", "text_encoder.ts")


class ParityError(Refusal):
    """An exported graph does not compute what the network computes."""


@dataclass(frozen=True)
class RealInputs:
    """Inputs as they are met in use.

    clips: float32 (n, T, 3, S, S), normalised, from real videos. token_ids: int64 (m, L), from real
    labels. Either may be None where there are none; the manifest then says "random" only.
    """

    clips: NDArray[np.float32] | None
    token_ids: NDArray[np.int64] | None


def measure_parity(
    network: VideoCLIP,
    folder: Path,
    *,
    clip: Weights,
    tuned: Weights,
    frames_per_clip: int,
    real: RealInputs,
    seed: int = 0,
) -> tuple[Parity, ...]:
    """Errors of every graph in the folder on random and real inputs. The network is left at λ = 0.

    clip, tuned: whole state dicts as arrays. max_rel_error is the largest absolute error divided by
    the largest absolute value that the network gives. Random texts have several lengths, from the
    shortest to the whole context, and the worst of them is what is given. All sizes of `BATCHES`
    are compared at λ = 0, `ONE_BATCH` at the others.
    """
    rng = np.random.default_rng(seed)
    size = network.image_size
    clips = rng.standard_normal((max(BATCHES), frames_per_clip, 3, size, size), dtype=np.float32)
    tokens = rng.integers(
        0, network.vocabulary_size, (max(BATCHES), network.context_length), dtype=np.int64
    )
    inputs: dict[str, dict[Literal["random", "real"], list[NDArray[Any]]]] = {
        "video": {"random": [clips]},
        "text": {"random": [tokens[:, :n] for n in text_lengths(network.context_length)]},
    }
    if real.clips is not None:
        inputs["video"]["real"] = [real.clips]
    if real.token_ids is not None:
        inputs["text"]["real"] = [real.token_ids]
    found: list[Parity] = []
    # 0 comes last, so that the network ends as the tuned model.
    for clip_weight in sorted(CLIP_WEIGHTS, reverse=True):
        batches = BATCHES if clip_weight == 0.0 else ONE_BATCH
        weights = interpolate(clip, tuned, clip_weight=clip_weight)
        network.load_state_dict({n: torch.tensor(a) for n, a in weights.items()}, strict=True)
        for kind, encode in (("video", network.encode_frames), ("text", network.encode_text)):
            visual = kind == "video"
            part = {n: a for n, a in weights.items() if n.startswith("visual.") == visual}
            graphs = {n: load_graph(folder / n, part) for n in GRAPHS if n.startswith(kind)}
            for source, values in inputs[kind].items():
                # Fewer real inputs than asked for are repeated: the batch size is the point.
                most = [np.resize(value, (max(batches), *value.shape[1:])) for value in values]
                expected = [_eager(encode, value) for value in most]
                for batch in batches:
                    for name, graph in graphs.items():
                        errors = [
                            _errors(graph(value[:batch]), right[:batch])
                            for value, right in zip(most, expected, strict=True)
                        ]
                        found.append(
                            Parity(
                                graph=name,
                                clip_weight=clip_weight,
                                batch=batch,
                                inputs=source,
                                max_abs_error=max(absolute for absolute, _ in errors),
                                max_rel_error=max(relative for _, relative in errors),
                            )
                        )
    return tuple(found)


def text_lengths(context_length: int) -> tuple[int, ...]:
    """Lengths in tokens to compare texts at: start and end alone, the middle, the whole context.

    A graph that is cut or padded wrongly may still be right at the length it was exported with.
    """
    return tuple(sorted({2, max(2, context_length // 2), context_length}))


def require_parity(measured: Sequence[Parity], *, tolerance: float = TOLERANCE) -> None:
    """Raise ParityError, naming the worst case of each graph, if one is above the tolerance."""
    worst: dict[str, Parity] = {}
    for parity in measured:
        if parity.max_rel_error > tolerance:
            before = worst.get(parity.graph)
            if before is None or parity.max_rel_error > before.max_rel_error:
                worst[parity.graph] = parity
    if worst:
        lines = [
            f"{p.graph} at clip_weight {p.clip_weight:g}, batch {p.batch}, {p.inputs} inputs: "
            f"relative error {p.max_rel_error:.2e}"
            for p in worst.values()
        ]
        raise ParityError(f"above the tolerance of {tolerance:.0e}: {'; '.join(lines)}")


def _eager(
    encode: Callable[[torch.Tensor], torch.Tensor], value: NDArray[Any]
) -> NDArray[np.float32]:
    with torch.no_grad():
        out: NDArray[np.float32] = encode(torch.from_numpy(value)).numpy()
    return out


def _errors(found: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    if found.shape != expected.shape:
        raise ParityError(f"the graph gives shape {found.shape}, the network {expected.shape}")
    if not np.isfinite(found).all():
        raise ParityError("the graph gives values that are not finite")
    absolute = float(np.abs(found - expected).max())
    return absolute, absolute / float(np.abs(expected).max())
