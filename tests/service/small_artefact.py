"""A published artefact of two linear towers, written without torch in milliseconds.

video: mean colour of each frame @ `visual.proj`; text: mean of token vectors @ `text_projection`.
Small enough to be restated in numpy, so that tests can compare answers and not only shapes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from service.videoclip.golden import (
    GoldenOutputs,
    Outputs,
    golden_bytes,
    golden_weights,
    known_clip,
    known_text,
)
from service.videoclip.manifest import (
    GOLDEN_FILE,
    FileEntry,
    Manifest,
    Preprocessing,
    Sampling,
    describe_file,
    revision_of,
)
from service.videoclip.pooling import Pooling
from service.videoclip.tokenizing import build_tokenizer_json

DIMENSION = 8
FRAMES = 3
SIZE = 16
CLIP_BYTES = FRAMES * SIZE * SIZE * 3
VOCABULARY = 514
WIDTH = 6

Arrays = dict[str, npt.NDArray[np.float32]]


def weights(seed: int, *, logit_scale: float = 20.0) -> Arrays:
    """Random weights of both towers."""
    draw = np.random.default_rng(seed)
    return {
        "visual.proj": draw.normal(size=(3, DIMENSION)).astype(np.float32),
        "visual.bias": draw.normal(size=DIMENSION).astype(np.float32),
        "token_embedding.weight": draw.normal(size=(VOCABULARY, WIDTH)).astype(np.float32),
        "text_projection": draw.normal(size=(WIDTH, DIMENSION)).astype(np.float32),
        "logit_scale": np.array(np.log(logit_scale), np.float32),
    }


def publish(
    root: Path,
    *,
    clip: Arrays | None = None,
    tuned: Arrays | None = None,
    text_tower_tuned: bool = False,
    name: str = "small",
    background: tuple[str, ...] = (),
    context_length: int = 32,
    default_clip_weight: float = 0.5,
    pooling: Pooling = "normalize_then_mean",
    architecture: dict[str, Any] | None = None,
    activate: bool = True,
    video_graph: bytes | None = None,
    golden: Mapping[float, Outputs] | None = None,
) -> Manifest:
    """Write an artefact below `root` and return its manifest.

    Its known outputs are those of its weights, or `golden`; with another video graph or an empty
    `golden` it has none, as one that was published before there were any.
    """
    clip = clip or weights(1)
    tuned = tuned or weights(2, logit_scale=40.0)
    if not text_tower_tuned:
        shared = {key: clip[key] for key in ("token_embedding.weight", "text_projection")}
        tuned = {**tuned, **shared}
    folder = root / name / "unpublished"
    folder.mkdir(parents=True)
    (folder / "video_encoder.onnx").write_bytes(video_graph or _video_graph())
    (folder / "text_encoder.onnx").write_bytes(_text_graph())
    save_file(clip, folder / "weights_clip.safetensors")
    save_file(tuned, folder / "weights_tuned.safetensors")
    (folder / "tokenizer.json").write_text(build_tokenizer_json([]))
    if golden is None and video_graph is None:
        golden = known_outputs(
            clip, tuned, context_length=context_length, default_clip_weight=default_clip_weight
        )
    if golden:
        (folder / GOLDEN_FILE).write_bytes(golden_bytes(GoldenOutputs(golden)))
    files: dict[str, FileEntry] = {p.name: describe_file(p) for p in sorted(folder.iterdir())}
    sampling = Sampling(mode="uniform", frames=FRAMES)
    preprocessing = Preprocessing(image_size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))
    manifest = Manifest(
        name=name,
        revision=revision_of(
            files, sampling=sampling, preprocessing=preprocessing, pooling=pooling
        ),
        created_at="2026-01-01T00:00:00Z",
        recipe="none",
        architecture=architecture or {},
        embedding_size=DIMENSION,
        frames_per_clip=FRAMES,
        sampling=sampling,
        preprocessing=preprocessing,
        pooling=pooling,
        template_set="none",
        logit_scale=float(np.exp(clip["logit_scale"])),
        context_length=context_length,
        text_tower_tuned=text_tower_tuned,
        default_clip_weight=default_clip_weight,
        clip_weight_rule="given",
        curve=(),
        background_labels=background,
        files=files,
        licence="Apache-2.0",
        provenance={},
        parity=(),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    folder.rename(root / name / manifest.revision)
    if activate:
        active = {"name": name, "revision": manifest.revision}
        (root / "active.json").write_text(json.dumps({"active": active, "previous": None}))
    return manifest


def known_outputs(
    clip: Arrays, tuned: Arrays, *, context_length: int = 32, default_clip_weight: float = 0.5
) -> dict[float, Outputs]:
    """What the towers give for the known inputs at the λ that a publication stores."""
    frames = known_clip(frames=FRAMES, image_size=SIZE)
    ids = known_text(context_length=context_length)
    found = {}
    for weight in golden_weights(default_clip_weight):
        arrays = {
            name: np.asarray(weight * clip[name] + (1 - weight) * tuned[name]) for name in clip
        }
        found[weight] = Outputs(expected_video(frames, arrays)[0], expected_text(ids, arrays)[0])
    return found


def expected_video(pixels: npt.NDArray[np.float32], arrays: Arrays) -> npt.NDArray[np.float32]:
    """What the video graph gives for normalised (clips, T, 3, S, S)."""
    result: npt.NDArray[np.float32] = (
        pixels.mean(axis=(3, 4)) @ arrays["visual.proj"] + arrays["visual.bias"]
    )
    return result


def expected_text(ids: npt.NDArray[np.int64], arrays: Arrays) -> npt.NDArray[np.float32]:
    """What the text graph gives for (n, L)."""
    result: npt.NDArray[np.float32] = (
        arrays["token_embedding.weight"][ids].mean(axis=1) @ arrays["text_projection"]
    )
    return result


def fragile_video_graph() -> bytes:
    """A video graph that gives NaN for clips darker than black nearly is, and only for those."""
    darkest = helper.make_tensor("darkest", TensorProto.FLOAT, [1], [1.2])
    nodes = [
        helper.make_node("ReduceMean", ["frames", "axes"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "darkest"], ["light"]),
        helper.make_node("Sqrt", ["light"], ["colour"]),
    ]
    return _video_graph(nodes, [darkest])


def _video_graph(first: Sequence[Any] = (), constants: Sequence[Any] = ()) -> bytes:
    nodes = [
        *(first or [helper.make_node("ReduceMean", ["frames", "axes"], ["colour"], keepdims=0)]),
        helper.make_node("MatMul", ["colour", "visual.proj"], ["product"]),
        helper.make_node("Add", ["product", "visual.bias"], ["frame_embeddings"]),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [3, 4])
    return _model(
        nodes,
        inputs=[("frames", TensorProto.FLOAT, ["clips", FRAMES, 3, SIZE, SIZE])],
        outputs=[("frame_embeddings", TensorProto.FLOAT, ["clips", FRAMES, DIMENSION])],
        initializers=[
            axes,
            *constants,
            _external("visual.proj", (3, DIMENSION)),
            _external("visual.bias", (DIMENSION,)),
        ],
    )


def _text_graph() -> bytes:
    nodes = [
        helper.make_node("Gather", ["token_embedding.weight", "token_ids"], ["tokens"]),
        helper.make_node("ReduceMean", ["tokens", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "text_projection"], ["text_embeddings"]),
    ]
    return _model(
        nodes,
        inputs=[("token_ids", TensorProto.INT64, ["n", "tokens"])],
        outputs=[("text_embeddings", TensorProto.FLOAT, ["n", DIMENSION])],
        initializers=[
            helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            _external("token_embedding.weight", (VOCABULARY, WIDTH)),
            _external("text_projection", (WIDTH, DIMENSION)),
        ],
    )


def _model(
    nodes: list[Any],
    *,
    inputs: list[tuple[str, int, list[Any]]],
    outputs: list[tuple[str, int, list[Any]]],
    initializers: list[Any],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    serialized: bytes = model.SerializeToString()
    return serialized


def _external(name: str, shape: tuple[int, ...]) -> Any:
    tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0")):
        tensor.external_data.add(key=key, value=value)
    tensor.external_data.add(key="length", value=str(4 * int(np.prod(shape))))
    return tensor
