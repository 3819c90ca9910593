"""Publish CLIP itself: weights that open_clip knows by name, or that lie in a file."""

import contextlib
import gzip
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.prompts import TEMPLATES
from service.videoclip.tokenizing import build_tokenizer_json
from training.artefact import Description
from training.artefact_name import require_name
from training.errors import Refusal
from training.models.network import build, describe
from training.models.towers import open_clip
from training.weights import WeightsError, read_weights, require_names

# SimpleTokenizer reads this many merges of its file, after one line that is none.
_MERGES = 49152 - 256 - 2
_HUB = "https://huggingface.co"


class PullError(Refusal):
    """The weights cannot be had; one line that says why."""


@dataclass(frozen=True)
class Pulled:
    """A description to publish, and CLIP's weights: both ends of λ."""

    description: Description
    weights: dict[str, Tensor]


def pull(
    model: str,
    *,
    pretrained: str = "openai",
    file: Path | None = None,
    quick_gelu: bool | None = None,
    name: str | None = None,
    frames: int = 8,
    template_set: str = "vifi-clip",
) -> Pulled:
    """Get CLIP's weights and everything else that its artefact needs.

    model: an open_clip architecture, e.g. "ViT-B-32-quickgelu". pretrained: open_clip's tag of its
    weights on the hub; with `file` the hub is not asked. quick_gelu: the activation that the
    weights in `file` were trained with; None takes it from a name that leaves no choice. name: of
    the artefact; None: from model.
    Raises ValueError for an unknown model, name or template set, and for an activation that would
    have to be guessed, WeightsError for a file that does not fit, PullError when the hub cannot be
    reached and the weights are not in its cache.
    """
    name = name or model.lower()
    require_name(name, where="--name")
    if template_set not in TEMPLATES:
        raise ValueError(f"--templates {template_set}: one of {', '.join(sorted(TEMPLATES))}")
    if file is not None and not file.is_file():  # said before a network is built
        raise WeightsError(f"{file}: no such file")
    # Frames by themselves: this is CLIP, not the video model that recipes make of it.
    architecture = describe(model, temporal="none")
    network = build(architecture)
    if file is None:
        if quick_gelu is not None:
            raise ValueError("--quick-gelu is for --file: of the hub's weights open_clip knows it")
        weights, settings = _from_hub(model, pretrained)
        # The same names and shapes fit both activations; open_clip's tag knows which one it needs.
        architecture["quick_gelu"] = bool(settings.get("quick_gelu", False))
        source = f"open_clip {model}, pretrained {pretrained}"
    else:
        architecture["quick_gelu"] = _activation_of_file(
            model, known=bool(architecture["quick_gelu"]), given=quick_gelu
        )
        weights, settings = read_weights(file), {}
        source = f"file {file.name} for open_clip {model}"
    require_names(weights, expected=network.state_dict(), where=source)
    broken = [n for n, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise WeightsError(f"{source}: values that are not finite in {', '.join(broken)}")
    towers = open_clip()
    return Pulled(
        description=Description(
            name=name,
            recipe="clip",
            architecture=architecture,
            sampling=Sampling(mode="uniform", frames=frames),
            preprocessing=Preprocessing(
                image_size=network.image_size,
                mean=tuple(settings.get("mean") or towers.OPENAI_DATASET_MEAN),
                std=tuple(settings.get("std") or towers.OPENAI_DATASET_STD),
            ),
            tokenizer_json=build_tokenizer_json(_open_clip_merges()),
            template_set=template_set,
            licence="MIT" if pretrained == "openai" and file is None else "see the weights' origin",
            default_clip_weight=1.0,
            clip_weight_rule="CLIP itself: both ends are equal",
            provenance={"weights": source, "open_clip": str(towers.__version__)},
            card="CLIP applied to each frame by itself, as published; no video was used to train "
            "it. Order and motion are invisible to it.",
        ),
        weights=weights,
    )


def _activation_of_file(model: str, *, known: bool, given: bool | None) -> bool:
    """Whether the weights in a file need QuickGELU. Raises ValueError rather than guess.

    known: what open_clip's configuration of this name says. Nothing in the weights tells: OpenAI's
    (QuickGELU) and LAION's (GELU) of one architecture have the same names and shapes, and the wrong
    function costs accuracy without any error.
    """
    if known:
        if given is False:
            raise ValueError(f"--no-quick-gelu: {model} is by its name a model with QuickGELU")
        return True
    if given is not None:
        return given
    towers = open_clip()
    twin = f"{model}-quickgelu"
    if twin in towers.list_models() or "openai" in towers.list_pretrained_tags_by_model(model):
        raise ValueError(
            f"{model}: such weights exist for QuickGELU (OpenAI, DFN, MetaCLIP) and for GELU "
            "(LAION, DataComp), and a file does not tell; add --quick-gelu or --no-quick-gelu"
        )
    return False


def _open_clip_merges() -> list[tuple[str, str]]:
    path = Path(str(open_clip().tokenizer.default_bpe()))
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    pairs = (line.split() for line in lines[1 : _MERGES + 1])
    return [(first, second) for first, second in pairs]


def _from_hub(model: str, pretrained: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with _offline_unless_reachable() as host:
        towers = open_clip()
        settings = towers.get_pretrained_cfg(model, pretrained)
        if not settings:
            tags = ", ".join(towers.list_pretrained_tags_by_model(model)) or "none"
            raise ValueError(f"{model}: no weights named {pretrained!r}; known: {tags}")
        # open_clip logs what it raises, and this says it in one line.
        logging.disable(logging.ERROR)
        try:
            clip = towers.create_model(model, pretrained=pretrained, require_pretrained=True)
        except (OSError, RuntimeError) as error:
            raise PullError(
                f"cannot get {model} ({pretrained}) from {host}, and it is not in the local cache; "
                "with --file the hub is not needed"
            ) from error
        finally:
            logging.disable(logging.NOTSET)
    state: dict[str, Tensor] = clip.state_dict()
    return {name: tensor.float() for name, tensor in state.items()}, dict(settings)


@contextlib.contextmanager
def _offline_unless_reachable() -> Iterator[str]:
    """Tell the hub's client not to try, where its host has no address: it would for minutes."""
    host = urlsplit(os.environ.get("HF_ENDPOINT", _HUB)).hostname or _HUB
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        from huggingface_hub import constants

        before = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = True
        try:
            yield host
        finally:
            constants.HF_HUB_OFFLINE = before
    else:
        yield host
