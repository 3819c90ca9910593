"""Plain weights of a CLIP that somebody fine-tuned: open_clip's names, which are OpenAI's.

A state dict in a file of its own or under `state_dict` (open_clip's training), in an archive of
TorchScript (OpenAI), or in a .safetensors file. CLIP itself is what `pull` publishes.
"""

from pathlib import Path

from service.videoclip.manifest import Sampling
from training.conversion import Rule, rename
from training.foreign_model import (
    ForeignModel,
    architecture_of,
    converted,
)
from training.start import Start
from training.weights import read_checkpoint

SECTION = "state_dict"
RULES: tuple[Rule, ...] = ()


def convert(path: Path, original: Start) -> ForeignModel:
    """Read one file. Raises WeightsError and ImportRefused."""
    architecture = architecture_of(original)
    checkpoint = read_checkpoint(path, section=SECTION)
    renamed = rename(checkpoint, RULES)
    return ForeignModel(
        recipe="clip",
        converted=converted(
            renamed,
            architecture,
            original=original,
            from_clip={},
        ),
        sampling=Sampling(mode="uniform", frames=8),
        frames_from="nothing",
        preprocessing=original.preprocessing,
        pooling="normalize_then_mean",
        template_set=original.manifest.template_set,
        clip_weight=0.0,
        clip_weight_rule="the file's weights as they are",
        licence="see the origin of the file; of CLIP: " + original.manifest.licence,
        card="CLIP fine-tuned by others, from a file of plain weights.",
    )
