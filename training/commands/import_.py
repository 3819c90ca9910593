"""`python -m training import`."""

import argparse
from pathlib import Path

from training.commands.publication import add_publication, publish_as_told

NAME = "import"
HELP = "publish a checkpoint of the papers' authors"
DESCRIPTION = """\
Turn a checkpoint that others trained into an artefact: something to serve, to
evaluate, to fine-tune further, and to move between it and CLIP by λ.

  python -m training pull ViT-B-16-quickgelu
  python -m training import open_vclip swa_2_22.pth --clip model_store/NAME/REVISION

--clip names CLIP, the one that the checkpoint was tuned from: an artefact that
`pull` made of OpenAI's weights, of the same size. It gives the other end of λ,
the tokenizer, and whatever a format leaves out because it was frozen.

What the authors did to a video is in the artefact, too: which frames, how they
are resized and normalised, how frames become one vector, which sentences a label
is put into, and the λ that they published. Options change what is open to taste.

Every weight of the file is accounted for. What is left out or taken from CLIP is
printed and written into the manifest and the model card, and so is the number of
frames where a file does not tell it. Names that are missing
or unknown, other shapes, values that are no numbers, and weights that were not
tuned from this CLIP are refused, all of them listed. Nothing is filled with
random numbers.

Nothing in a file is run. Files that hold more than tensors (settings objects of
yacs or omegaconf) are refused, with the line that takes the weights out in a
sandbox.

`python -m training import FORMAT --help` tells about one format."""

_FORMATS: dict[str, tuple[str, str]] = {
    "open_vclip": (
        "Open-VCLIP (ICML 2023): swa_*.pth, checkpoint_epoch_*.pyth",
        """\
Open-VCLIP's released `swa_2_22.pth`, or `checkpoint_epoch_*.pyth` of its training.

Read:      `model_state`, names after `model.`; `module.` before it is removed.
Left out:  `raw_model.*` (the original CLIP), the frozen text tower (compared with
           CLIP's, which is used), optimiser, scaler, settings.
Video:     3 clips of 8 frames, 16/30 s apart; shorter side resized without
           antialiasing, CLIP's mean and deviation; each frame's vector is
           normalised, then averaged; attention to the neighbouring frames.
Text:      28 templates of Kinetics.
λ:         the file is not patched; 0.5, and 0.6 for ViT-L/14, as published.

Other temporal variants of its code (channel_shift, wider windows) have the same
names as the published one; only that one is meant.""",
    ),
    "vifi_clip": (
        "ViFi-CLIP (CVPR 2023): .pth, prompts of the second stage included",
        """\
ViFi-CLIP's `.pth` of full fine-tuning, or with the prompts of its second stage.

Read:      `model`, names after `module.`: `image_encoder.*`, `text_encoder.*`,
           and `prompt_learner.ctx`, `VPT`, `VPT_shallow` as prompts.
Left out:  `complete_text_embeddings`, `token_prefix`, `token_suffix`: embeddings
           of the class names it was trained with; optimiser, schedule, settings.
From CLIP: the token embedding, which is frozen and not in the file.
Video:     32 frames, the middles of equal parts; the fully supervised ones had
           16, which no file tells: say --frames 16; shorter side 256 of 224;
           ImageNet's mean and deviation; the mean of frame vectors is normalised.
Text:      `a photo of a {}.`; with prompts, the learned vectors and `{}.`.
λ:         0, the tuned weights; prompts stay as tuned at every λ.

Most files hold their settings as a yacs object and are refused with a line that
takes out `model`; import what it writes.""",
    ),
    "fitclip": (
        "FitCLIP (BMVC 2022): the student's .pt, Lightning's .ckpt",
        """\
FitCLIP's released student `.pt`, or Lightning's `.ckpt` of its training.

Read:      OpenAI's names, or `state_dict` with `encoder.model.*`.
Left out:  `teacher.*` (CLIP itself), all logit scales (temperatures of the
           training, or no number at all), optimisers, loops, hyper-parameters.
From CLIP: the logit scale.
Video:     4 frames, the middles of equal parts, to within one frame; bicubic
           without antialiasing; each frame's vector is normalised, then averaged.
Text:      48 templates of UCF-101, the mean normalised again (theirs is not).
λ:         0.6: α = 0.4 is the share of the student, λ that of CLIP. For a file
           that is the ensemble already, say --clip-weight 0.""",
    ),
    "text4vis": (
        "Text4Vis (AAAI 2023): k400-vitb-16-f8.pt and the like",
        """\
Text4Vis's released `.pt` of a ViT.

Read:      `model_state_dict` (and `fusion_model_state_dict` of older files):
           `visual.*`, `logit_scale`, `fusion_model.*` (T-Trans),
           `control_point.conv.weight` (TokenT1D); `module.` is removed.
Left out:  the optimiser.
From CLIP: the text tower, with which the authors made their classifiers.
Video:     as many frames as the file's name says (16 for k400-vitb-16-f16.pt), 8
           where it says nothing, the first of each segment; shorter side 256 of 224,
           bilinear; the mean of the frames' vectors, after the temporal head, is
           normalised.
Text:      `a video of a person {}.`
λ:         0, the tuned weights. At λ = 1 a temporal head changes nothing.

TSM, joint space-time attention and ResNets are refused. TokenShift has no weights,
so a file does not show it; it is not supported.""",
    ),
    "plain_clip": (
        "a CLIP that somebody fine-tuned: open_clip's or OpenAI's names",
        """\
Plain weights of a CLIP that somebody fine-tuned; CLIP itself is what `pull` is for.

Read:      open_clip's names (which are OpenAI's) in .safetensors, in a file of
           `torch.save`, alone or as `state_dict`, or in OpenAI's TorchScript
           archives, whose program is not run; `module.` is removed.
Video:     8 frames, the middles of equal parts; resized and normalised as --clip
           does; each frame's vector is normalised, then averaged.
Text:      the templates of --clip, unless --templates names others.
λ:         0, the file's weights.""",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT", title="formats")
    for name, (short, long) in _FORMATS.items():
        one = formats.add_parser(
            name,
            help=short,
            description=long,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.add_argument("file", type=Path, help="the checkpoint")
        one.add_argument(
            "--clip", type=Path, required=True, help="artefact of CLIP, model_store/NAME/REVISION"
        )
        one.add_argument("--name", help="of the new artefact (the format's and CLIP's)")
        one.add_argument("--frames", type=int, help="frames per clip (as published, see above)")
        one.add_argument("--templates", help="template set (as published)")
        one.add_argument("--clip-weight", type=float, help="default λ (as published)")
        one.add_argument("--licence", help="of the weights, if you know better")
        if name == "open_vclip":
            one.add_argument("--views", type=int, help="clips per video (3)")
        if name == "plain_clip":
            one.add_argument(
                "--temporal",
                choices=("none", "neighbour"),
                help="whether frames attend to their neighbours, as in Open-VCLIP (none)",
            )
        add_publication(one)


def run(parsed: argparse.Namespace) -> int:
    """Import one checkpoint."""
    from training.foreign_model import Options
    from training.importers import import_checkpoint
    from training.start import open_start

    imported = import_checkpoint(
        parsed.format,
        parsed.file,
        original=open_start(parsed.clip),
        options=Options(
            name=parsed.name,
            frames=parsed.frames,
            views=getattr(parsed, "views", None),
            template_set=parsed.templates,
            clip_weight=parsed.clip_weight,
            licence=parsed.licence,
            temporal=getattr(parsed, "temporal", None),
        ),
    )
    for line in imported.account.lines():
        print(line)
    print(f"distance from CLIP: {imported.distance_from_clip:.2%} of its length")
    print(publish_as_told(parsed, imported.description, clip=imported.clip, tuned=imported.tuned))
    return 0
