"""`python -m training draw`."""

import argparse
from pathlib import Path

from training.data.annotations import DRAWN_FOLDER

NAME = "draw"
HELP = "draw Motion World: a small data set of labelled videos with captions"
DESCRIPTION = (
    "Draws coloured shapes that move, encodes them as H.264, and writes FOLDER/SET/SPLIT with "
    "list.csv (path, label, caption). The sets: source, which models are fine-tuned on; "
    "unseen-pairs, unseen-nouns and unseen-attributes, whose classes source does not have; "
    "retrieval, where every video has its own sentence. The same seed draws the same videos; sets "
    "that are there already are left as they are, and refused if they were drawn with another seed "
    "or camera. training/configs/motion_world trains on them."
)

_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.1, 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=DRAWN_FOLDER,
        help="where the sets go (runs/motion-world/videos)",
    )
    parser.add_argument("--sets", nargs="+", metavar="SET", help="only these (all)")
    parser.add_argument("--train", type=int, default=9600, help="videos to train on (9600)")
    parser.add_argument("--validation", type=int, default=384, help="videos of each set (384)")
    parser.add_argument("--test", type=int, default=768, help="videos of each set (768)")
    parser.add_argument("--seed", type=int, default=1, help="of the world (1, the demo's)")
    parser.add_argument("--pixels", type=int, default=80, help="side of the square videos (80)")
    parser.add_argument("--frames", type=int, default=16, help="of each video (16)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each video (2)")
    parser.add_argument("--processes", type=int, default=2, help="that draw and encode (2)")


def run(parsed: argparse.Namespace) -> int:
    """Draw what is not there yet, and print the lists."""
    from training.data.annotations import read_video_list
    from training.data.motion_world import files, sets
    from training.data.motion_world.drawing import Camera
    from training.errors import Refusal

    for name in ("train", "validation", "test", "frames", "processes"):
        if not getattr(parsed, name) > 0:
            raise Refusal(f"--{name} {getattr(parsed, name)}: must be above 0")
    if not _SHORTEST_SECONDS <= parsed.seconds <= _LONGEST_SECONDS:
        raise Refusal(
            f"--seconds {parsed.seconds:g}: from {_SHORTEST_SECONDS:g} to {_LONGEST_SECONDS:g}"
        )
    if parsed.seed < 0:
        raise Refusal(f"--seed {parsed.seed}: must not be negative")
    if parsed.pixels < 16 or parsed.pixels % 2:
        raise Refusal(f"--pixels {parsed.pixels}: an even number from 16 on")
    camera = Camera(pixels=parsed.pixels, frames=parsed.frames, seconds=parsed.seconds)
    chosen = parsed.sets or sets.VIDEO_SETS
    unknown = sorted(set(chosen) - set(sets.VIDEO_SETS))
    if unknown:
        raise Refusal(f"--sets {unknown[0]}: one of {', '.join(sets.VIDEO_SETS)}")
    wanted: list[tuple[str, sets.Split, int]] = []
    for name in chosen:
        wanted += [(name, "train", parsed.train)] if name == "source" else []
        wanted += [(name, "validation", parsed.validation), (name, "test", parsed.test)]
    own = {name: getattr(parsed, name) for name in ("seed", "pixels", "frames", "seconds")}
    for name, split, count in wanted:
        folder = parsed.folder / name / split
        listed = folder / files.LIST_NAME
        if listed.exists():
            there = {"videos": len(read_video_list(listed)), **files.read_facts(folder)}
            asked = {"videos": count, **own}
            for key, value in there.items():
                if value != asked[key]:
                    raise Refusal(
                        f"{listed}: was drawn with {key} = {value}, not {asked[key]}; remove the "
                        "folder, or name another"
                    )
        else:
            files.write_set(
                folder,
                list(sets.examples(name, split, count=count, seed=parsed.seed)),
                camera=camera,
                processes=parsed.processes,
                title=f"draw {name} {split}",
                facts=own,
            )
        print(listed)
    return 0
