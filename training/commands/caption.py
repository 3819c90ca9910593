"""`python -m training caption`."""

import argparse
from pathlib import Path

from training.captioning import BLIP2, LANGUAGE_MODEL
from training.commands.numbers import at_least_one

NAME = "caption"
HELP = "describe videos in sentences, for Open-VCLIP++"
DESCRIPTION = """\
Write a caption for every video of a list, as Open-VCLIP++ learns from.

  python -m training caption data/k400/train.csv runs/k400-captions.jsonl

First a picture captioner (BLIP-2) describes some frames of each video, then a
language model (Llama 2 chat) makes one sentence of them. Both come from
`transformers` (the extra `captions`), each from a folder or by its name on the
hub; no file but safetensors is read, and no code that comes with a model is run.

OUT gets JSON Lines with `path` (from the list's folder) and `caption`:
`data.captions` of a training configuration. Beside it lies OUT.frames.jsonl with
the captions of the frames. An interrupted job goes on where it stopped when it is
started again; videos that cannot be decoded are listed, and tried again then.

--part 2/8 does every eighth video, from the second on, for eight machines or
devices; `cat` joins their files.

Mind the licences of both models, and of the videos that are described."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("videos", type=Path, help="a list of videos, or a folder")
    parser.add_argument("out", type=Path, help="the captions, a .jsonl file")
    parser.add_argument("--root", type=Path, help="folder of the list's paths (the list's own)")
    parser.add_argument(
        "--blip2", default=BLIP2, help=f"the picture captioner: a folder, or its name ({BLIP2})"
    )
    parser.add_argument(
        "--language-model",
        default=LANGUAGE_MODEL,
        help=f"what makes one sentence of them: a folder, or its name ({LANGUAGE_MODEL})",
    )
    parser.add_argument("--frames", type=int, default=16, help="frames of each video (16)")
    parser.add_argument("--beams", type=int, default=1, help="of BLIP-2's search; 1 is greedy (1)")
    parser.add_argument("--batch-size", type=int, default=16, help="frames at once (16)")
    parser.add_argument("--texts-at-once", type=int, default=8, help="videos to merge at once (8)")
    parser.add_argument("--threads", type=at_least_one, default=2, help="that decode (2)")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="of the videos (1/1)")
    parser.add_argument(
        "--only", choices=("frames", "merge"), help="one of the two stages, with its model alone"
    )


def run(parsed: argparse.Namespace) -> int:
    """Caption the videos of a list."""
    from training.captioning.job import CaptionJob, caption

    caption(
        CaptionJob(
            videos=parsed.videos,
            out=parsed.out,
            root=parsed.root,
            blip2=parsed.blip2,
            language_model=parsed.language_model,
            frames=parsed.frames,
            beams=parsed.beams,
            batch_size=parsed.batch_size,
            texts_at_once=parsed.texts_at_once,
            threads=parsed.threads,
            part=parsed.part,
            only=parsed.only,
        )
    )
    return 0
