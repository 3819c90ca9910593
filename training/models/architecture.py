"""The architecture dict: which network `training.models.network.build` makes."""

from collections.abc import Mapping
from typing import Any, Literal

from training.errors import Refusal
from training.models.towers import open_clip

Temporal = Literal["neighbour", "none"]
TemporalHead = Literal["none", "t-trans", "token-t1d", "t1d"]

_TOP_KEYS = {
    "embed_dim",
    "vision_cfg",
    "text_cfg",
    "quick_gelu",
    "temporal",
    "temporal_head",
    "prompts",
}
_VISION_KEYS = {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio"}
_TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_PROMPT_KEYS = ("vision", "vision_depth", "text", "text_depth")
_CHOICES: dict[str, tuple[str, ...]] = {
    "temporal": ("neighbour", "none"),
    "temporal_head": ("none", "t-trans", "token-t1d", "t1d"),
}
# Start, one word and end: the shortest text that says something.
_SHORTEST_TEXT = 3
# open_clip's own defaults, for what a dict leaves out.
_VISION_DEFAULTS = {"image_size": 224, "patch_size": 16, "width": 768, "head_width": 64}
_TEXT_DEFAULTS = {"context_length": 77, "width": 512, "heads": 8}
_LAYERS = 12


class ArchitectureError(Refusal):
    """An architecture that cannot be built; names the key and what is expected there."""


def describe(
    architecture: Mapping[str, Any] | str, *, temporal: Temporal | None = None
) -> dict[str, Any]:
    """The complete, checked architecture dict that `build` takes and the manifest records.

    Arguments and errors as of `build`.
    """
    if isinstance(architecture, str):
        config = open_clip().get_model_config(architecture)
        if config is None:
            raise ArchitectureError(f"architecture: open_clip has no model named {architecture!r}")
        # get_model_config returns the registered dict itself, or a copy: never hand it out.
        architecture = dict(config)
    spec = dict(architecture)
    spec["vision_cfg"] = dict(spec.get("vision_cfg", {}))
    spec["text_cfg"] = dict(spec.get("text_cfg", {}))
    spec.setdefault("quick_gelu", False)
    spec["temporal"] = temporal or spec.get("temporal", "neighbour")
    spec.setdefault("temporal_head", "none")
    spec["prompts"] = _prompts(spec.get("prompts"))
    _check_keys(spec, known=_TOP_KEYS, where="architecture")
    _check_keys(spec["vision_cfg"], known=_VISION_KEYS, where="architecture.vision_cfg")
    _check_keys(spec["text_cfg"], known=_TEXT_KEYS, where="architecture.text_cfg")
    for key, choices in _CHOICES.items():
        if spec[key] not in choices:
            raise ArchitectureError(
                f"architecture.{key}: {spec[key]!r} is none of {', '.join(choices)}"
            )
    _check_sizes(spec)
    _check_prompts(spec)
    return spec


def temporal_heads_of(spec: Mapping[str, Any]) -> int:
    """Attention heads of T-Trans: as many as a text tower of 64 wide heads has."""
    return max(1, int(_with_defaults(spec["text_cfg"], _TEXT_DEFAULTS)["width"]) // 64)


def _prompts(given: Any) -> dict[str, int] | None:
    if given is None:
        return None
    where = "architecture.prompts"
    if not isinstance(given, Mapping):
        raise ArchitectureError(f"{where}: {given!r} is no table of {', '.join(_PROMPT_KEYS)}")
    _check_keys(given, known=set(_PROMPT_KEYS), where=where)
    prompts = {key: given.get(key, 0) for key in _PROMPT_KEYS}
    for key, value in prompts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ArchitectureError(f"{where}.{key} must be a whole number from 0, got {value!r}")
    return prompts


def _check_keys(config: Mapping[str, Any], *, known: set[str], where: str) -> None:
    unknown = sorted(set(config) - known)
    if unknown:
        raise ArchitectureError(
            f"{where}: not supported: {', '.join(unknown)}; known: {sorted(known)}"
        )


def _check_sizes(spec: Mapping[str, Any]) -> None:
    vision, text = spec["vision_cfg"], spec["text_cfg"]
    for where, value in (("embed_dim", spec.get("embed_dim")), *vision.items(), *text.items()):
        if not isinstance(value, (int, float)) or value <= 0:
            raise ArchitectureError(
                f"architecture: {where} must be a positive number, got {value!r}"
            )
    vision = _with_defaults(vision, _VISION_DEFAULTS)
    text = _with_defaults(text, _TEXT_DEFAULTS)
    pairs = [
        ("image_size", vision["image_size"], "patch_size", vision["patch_size"]),
        ("vision width", vision["width"], "head_width", vision["head_width"]),
        ("text width", text["width"], "heads", text["heads"]),
    ]
    if spec["temporal_head"] == "t-trans":
        heads = temporal_heads_of(spec)
        pairs.append(("embed_dim", spec["embed_dim"], "the heads of t-trans,", heads))
    if spec["temporal_head"] in ("token-t1d", "t1d"):
        groups = f"the groups of {spec['temporal_head']},"
        pairs.append(("vision width", vision["width"], groups, 4))
    for name, value, divisor_name, divisor in pairs:
        if value % divisor:
            raise ArchitectureError(
                f"architecture: {name} {value} is not a multiple of {divisor_name} {divisor}"
            )


def _check_prompts(spec: Mapping[str, Any]) -> None:
    prompts = spec["prompts"]
    if prompts is None:
        return
    where = "architecture.prompts"
    if not prompts["vision"] and not prompts["text"]:
        raise ArchitectureError(f"{where}: neither vision nor text has any; leave the table out")
    for tower, config in (("vision", spec["vision_cfg"]), ("text", spec["text_cfg"])):
        number, depth = prompts[tower], prompts[f"{tower}_depth"]
        layers = config.get("layers", _LAYERS)
        least = 1 if number else 0
        most = layers if number else 0
        if not least <= depth <= most:
            raise ArchitectureError(
                f"{where}.{tower}_depth: {depth} is not from {least} to {most}, "
                f"with {number} prompts in {layers} layers"
            )
    context = _with_defaults(spec["text_cfg"], _TEXT_DEFAULTS)["context_length"]
    if prompts["text"] > context - _SHORTEST_TEXT:
        raise ArchitectureError(
            f"{where}.text: {prompts['text']} leave fewer than {_SHORTEST_TEXT} of "
            f"{context} positions for a text"
        )


def _with_defaults(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {**defaults, **config}
