"""From a foreign checkpoint's names to this project's, with an account of every weight."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.weights import Checkpoint, WeightsError, require_names

SCALE = "logit_scale"
_POSITIONS = "visual.positional_embedding"
_PATCHES = "visual.conv1.weight"
# Above it the stored number can only be the scale itself, and not its logarithm.
_LARGEST_SCALE = math.log(1e4)
# |tuned - CLIP| / |CLIP|. Fine-tuning moves weights by a few percent; unrelated ones are as far
# from each other as they are long, times the square root of two.
_FARTHEST = 0.7
_NAMES_IN_A_LINE = 12


@dataclass(frozen=True)
class Rule:
    """What becomes of one name, or of all names with this prefix if it ends in a dot.

    new: the name or prefix here; None: left out, for `reason`.
    """

    old: str
    new: str | None
    reason: str = ""

    def matches(self, name: str) -> bool:
        """Whether the rule is about this name."""
        return name.startswith(self.old) if self.old.endswith(".") else name == self.old


@dataclass
class Account:
    """Why weights are not in the result, or not from the file: reason -> names.

    left_out: names of the file. from_clip: names of the network. beside: what else the file holds
    that is no weight of the model. notes: sentences about what no weight tells.
    """

    left_out: dict[str, list[str]] = field(default_factory=dict)
    from_clip: dict[str, list[str]] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The account in sentences; long lists of names by their common beginning."""
        lines = [
            f"{what}: {_short(names)} ({reason})"
            for what, reasons in (("left out", self.left_out), ("taken from CLIP", self.from_clip))
            for reason, names in reasons.items()
        ]
        if self.beside:
            lines.append(f"not looked at: {', '.join(self.beside)}")
        return [*lines, *self.notes]


@dataclass
class Renamed:
    """Weights of a file under this project's names, in float32.

    where: the file, for errors. section: where in it they were. in_file: what each was called
    there.
    """

    where: str
    section: str | None
    weights: dict[str, Tensor]
    in_file: dict[str, str]
    account: Account


def rename(checkpoint: Checkpoint, rules: Sequence[Rule]) -> Renamed:
    """Apply to every name the first rule that is about it; a name without a rule stays.

    Raises WeightsError when two names of the file become one.
    """
    where, account = str(checkpoint.path), Account(beside=checkpoint.beside)
    renamed = Renamed(where, checkpoint.section, weights={}, in_file={}, account=account)
    for old, tensor in checkpoint.tensors.items():
        rule = next((rule for rule in rules if rule.matches(old)), None)
        if rule is not None and rule.new is None:
            renamed.account.left_out.setdefault(rule.reason, []).append(old)
            continue
        new = old if rule is None else f"{rule.new}{old.removeprefix(rule.old)}"
        if new in renamed.weights:
            raise WeightsError(f"{where}: {old} and {renamed.in_file[new]} are both {new}")
        renamed.weights[new] = tensor.detach().float()
        renamed.in_file[new] = old
    return renamed


def complete(
    renamed: Renamed,
    *,
    expected: Mapping[str, Tensor],
    clip: Mapping[str, Tensor],
    from_clip: Mapping[str, Collection[str]],
) -> dict[str, Tensor]:
    """The whole state dict: the file's weights, and CLIP's where the format has none.

    expected: names and shapes of the network. from_clip: reason -> names that CLIP gives if the
    file has none of them. A logit scale that is missing or not a number is CLIP's, too. What is
    taken is written into the account. Raises WeightsError that lists every name that is missing,
    unknown, of another shape, or not finite.
    """
    where = renamed.where
    weights = dict(renamed.weights)
    scale = _logit_scale(weights.pop(SCALE, None), where=where)
    reasons = {reason: [n for n in names if n in expected] for reason, names in from_clip.items()}
    if scale is None:
        reasons["missing in the file, or not a number"] = [SCALE]
    else:
        weights[SCALE] = scale
    for reason, names in reasons.items():
        if names and not any(name in weights for name in names):
            weights.update({name: clip[name] for name in names})
            renamed.account.from_clip.setdefault(reason, []).extend(names)
    _require_image_size(weights, expected=expected, where=where)
    require_names(weights, expected=expected, where=where, in_file=renamed.in_file)
    broken = [n for n, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        listed = ", ".join(renamed.in_file.get(name, name) for name in broken)
        raise WeightsError(f"{where}: values that are not finite in {listed}")
    return {name: weights[name] for name in expected}


def distance_from_clip(clip: Mapping[str, Tensor], tuned: Mapping[str, Tensor]) -> float:
    """|tuned - CLIP| / |CLIP|, over the matrices that both have."""
    names = [n for n in clip if n in tuned and clip[n].dim() > 1]
    moved = sum(float((tuned[n] - clip[n]).double().square().sum()) for n in names)
    length = sum(float(clip[n].double().square().sum()) for n in names)
    return math.sqrt(moved / length)


def require_descent(
    clip: Mapping[str, Tensor], tuned: Mapping[str, Tensor], *, where: str
) -> float:
    """The distance from CLIP; WeightsError if these weights were not fine-tuned from this CLIP.

    Between unrelated weights there is no good λ, and nothing else would tell: another CLIP of the
    same architecture has the same names and shapes.
    """
    distance = distance_from_clip(clip, tuned)
    if not distance < _FARTHEST:
        raise WeightsError(
            f"{where}: was not fine-tuned from the CLIP of --clip: its weights are {distance:.2f} "
            f"of CLIP's length away, and fine-tuning moves them by less than {_FARTHEST:g}"
        )
    return distance


def _logit_scale(stored: Tensor | None, *, where: str) -> Tensor | None:
    if stored is None or stored.numel() != 1 or not bool(torch.isfinite(stored).all()):
        return None
    if float(stored) > _LARGEST_SCALE:
        raise WeightsError(
            f"{where}: logit_scale is {float(stored):g}; a checkpoint stores its logarithm, at "
            f"most {_LARGEST_SCALE:.1f}"
        )
    return stored.reshape(())


def _require_image_size(
    weights: Mapping[str, Tensor], *, expected: Mapping[str, Tensor], where: str
) -> None:
    """Say pixels, and not only rows of a matrix, where that is all that differs."""
    found, wanted = weights.get(_POSITIONS), expected[_POSITIONS]
    patches = weights.get(_PATCHES)
    if found is None or patches is None or patches.shape != expected[_PATCHES].shape:
        return
    if found.dim() == 2 and found.shape[1] == wanted.shape[1] and len(found) != len(wanted):
        patch = patches.shape[-1]
        pixels = [patch * math.isqrt(len(positions) - 1) for positions in (found, wanted)]
        raise WeightsError(
            f"{where}: visual.positional_embedding has {len(found)} positions, for pictures of "
            f"{pixels[0]} pixels; CLIP's artefact has {len(wanted)}, for {pixels[1]}: name one "
            f"with --clip that takes {pixels[0]} pixels"
        )


def _short(names: Sequence[str]) -> str:
    if len(names) <= _NAMES_IN_A_LINE:
        return ", ".join(names)
    prefixes: dict[str, int] = {}
    for name in names:
        head = ".".join(name.split(".")[:2]) + ".*" if name.count(".") > 1 else name
        prefixes[head] = prefixes.get(head, 0) + 1
    return ", ".join(f"{head} ({n} weights)" if n > 1 else head for head, n in prefixes.items())
