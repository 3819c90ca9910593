"""FitCLIP's checkpoints: the released student `.pt`, and Lightning's `.ckpt` of its training.

The student has OpenAI's names, and a logit scale that is missing or not a number: the authors
delete CLIP's and train with a temperature of their own. Lightning's file has `state_dict` with
`encoder.model.*` for the student and `teacher.model.*` for CLIP.
"""

from pathlib import Path

from service.videoclip.manifest import Sampling
from training.conversion import SCALE, Rule, rename
from training.foreign_model import (
    ForeignModel,
    architecture_of,
    converted,
    preprocessing_of,
    require_quick_gelu,
)
from training.start import Start
from training.weights import read_checkpoint

SECTION = "state_dict"
_TEMPERATURE = "the temperature of its training, or no number; CLIP's logit scale is used"
RULES = (
    Rule("teacher.", None, "the teacher: CLIP itself"),
    Rule("encoder.model.logit_scale", None, _TEMPERATURE),
    Rule("logit_scale", None, _TEMPERATURE),
    Rule("max_logit_scale", None, _TEMPERATURE),
    Rule("teacher_student_logit_scale", None, _TEMPERATURE),
    Rule("encoder.model.", ""),
)
# The paper's α is the student's share of the ensemble, λ is CLIP's.
_ALPHA = 0.4


def convert(path: Path, original: Start) -> ForeignModel:
    """Read one file. Raises WeightsError and ImportRefused."""
    require_quick_gelu(original, whose="FitCLIP")
    architecture = architecture_of(original)
    checkpoint = read_checkpoint(path, section=SECTION)
    renamed = rename(checkpoint, RULES)
    return ForeignModel(
        recipe="fitclip",
        converted=converted(
            renamed,
            architecture,
            original=original,
            from_clip={"never the file's: the authors delete it": [SCALE]},
        ),
        sampling=Sampling(mode="uniform", frames=4),
        preprocessing=preprocessing_of(original, interpolation="bicubic_without_antialias"),
        pooling="normalize_then_mean",
        template_set="ucf101",
        clip_weight=round(1.0 - _ALPHA, 4),
        clip_weight_rule=f"published: FitCLIP's ensemble has α = {_ALPHA:g} of the student, the "
        "rest is CLIP",
        licence="MIT (FitCLIP's repository); of CLIP: " + original.manifest.licence,
        card="The student of FitCLIP (BMVC 2022), distilled from CLIP on WebVid, at λ = 0; λ = 0.6 "
        "is the ensemble that the paper calls FitCLIP. Frames are seen one by one. The authors "
        "do not normalise the mean over templates again, which this project does; `evaluate "
        "--template-mean plain` measures as they do.",
    )
