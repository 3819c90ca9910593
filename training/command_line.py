"""The command line of `python -m training`: names, arguments and help."""

import argparse
from pathlib import Path

from training import commands as commands_of


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m training",
        description="Fine-tune CLIP on video, measure it, choose λ, export and publish it.",
        epilog="Exit codes: 0 done, 1 a check failed, 2 the input cannot be used.",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND", title="commands")
    _add_check_reference(commands)
    _add_pull(commands)
    _add_train(commands)
    _add_select(commands)
    _add_publish(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_demo(commands)
    return top


_Commands = argparse._SubParsersAction  # argparse has no public name for it


def _add_check_reference(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "check-reference",
        help="compare the network with outputs and gradients of Open-VCLIP's own module",
        description="Build the network that FILE describes, run it on the inputs in FILE, and "
        "print the largest errors. Exit code 0 if every error is below 1e-4, 1 if one is not, "
        "2 if the file cannot be used.",
    )
    command.add_argument("file", type=Path, help="a safetensors file of the reference format")
    command.set_defaults(command=commands_of.check_reference)


def _add_pull(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "pull",
        help="publish CLIP itself, with weights from the hub or from a file",
        description="Publish an open_clip model as an artefact whose both ends are CLIP: something "
        "to serve, and what `train` starts from. OpenAI's weights were trained with QuickGELU, "
        "most others with GELU, and nothing in a file tells. So with --file say it, by a name that "
        "ends in -quickgelu or by --quick-gelu or --no-quick-gelu. Of the hub's it is known.",
    )
    command.add_argument("model", help="open_clip's name, e.g. ViT-B-32-quickgelu")
    command.add_argument("--pretrained", default="openai", help="open_clip's tag (openai)")
    command.add_argument("--file", type=Path, help="weights from this file, without the hub")
    command.add_argument(
        "--quick-gelu",
        action=argparse.BooleanOptionalAction,
        help="the activation of the weights in --file",
    )
    command.add_argument("--name", help="of the artefact (the model's name in lower case)")
    command.add_argument("--frames", type=int, default=8, help="frames per clip (8)")
    command.add_argument("--templates", default="vifi-clip", help="template set (vifi-clip)")
    command.add_argument(
        "--video", type=Path, action="append", default=[], help="compare the exports on it, too"
    )
    _add_store(command)
    command.set_defaults(command=commands_of.pull)


def _add_train(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "train",
        help="fine-tune as a configuration says",
        description="Fine-tunes with Open-VCLIP's objective, regularisation, averaging and "
        "schedule. Not as in its released script: each video is decoded once, to one clip of "
        "evenly spread frames, resized and cropped as the service does, and held in memory; there "
        "are no random clips, scales or crops, and measuring and serving use one clip, not 3.",
    )
    command.add_argument("config", type=Path, help="a TOML file; see training/configs")
    command.set_defaults(command=commands_of.train)


def _add_select(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "select",
        help="measure λ from 0 to 1 and choose one by the configuration's rule",
        description="Sweeps λ over the lists in data.evaluation, and writes the curve to the run.",
    )
    command.add_argument("config", type=Path)
    command.add_argument(
        "--run", type=Path, action="append", default=[], help="runs with other seeds, for the mean"
    )
    command.add_argument("--steps", type=int, default=10, help="distances between 0 and 1 (10)")
    command.set_defaults(command=commands_of.select)


def _add_publish(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("publish", help="export a run and put it into the model store")
    command.add_argument("config", type=Path)
    command.add_argument("--no-activate", action="store_true", help="do not serve it yet")
    command.add_argument("--replace", action="store_true", help="replace the same weights")
    command.set_defaults(command=commands_of.publish)


def _add_evaluate(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "evaluate",
        help="zero-shot accuracy of a published artefact on video files",
        description="Runs the exported graphs, as the service does.",
    )
    command.add_argument("artefact", type=Path, help="model_store/NAME/REVISION")
    command.add_argument("videos", type=Path, help="CSV with path,label; or a folder of classes")
    command.add_argument("--clip-weight", type=float, help="λ (the artefact's default)")
    command.add_argument("--runtime", choices=("onnx", "torchscript"), default="onnx")
    command.add_argument("--threads", type=int, default=2, help="of decoding and encoding (2)")
    command.set_defaults(command=commands_of.evaluate)


def _add_export(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("export", help="write the graphs of an architecture, no weights")
    command.add_argument("model", help="open_clip's name, e.g. ViT-B-16-quickgelu")
    command.add_argument("folder", type=Path)
    command.add_argument("--frames", type=int, default=8, help="frames per clip (8)")
    command.add_argument("--temporal", choices=("neighbour", "none"), default="neighbour")
    command.set_defaults(command=commands_of.export)


def _add_demo(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "demo",
        help="make the demo model from nothing",
        description="Draw Motion World, train CLIP and Open-VCLIP on it, choose λ, publish. An "
        "interrupted run goes on where it stopped.",
    )
    default = Path(__file__).parent / "configs" / "demo.toml"
    command.add_argument("--config", type=Path, default=default, help="(configs/demo.toml)")
    command.add_argument("--work", type=Path, default=Path("runs/demo"), help="(runs/demo)")
    command.add_argument("--store", type=Path, default=Path("model_store"), help="(model_store)")
    command.add_argument("--seeds", type=int, default=1, help="fine-tunings to measure (1)")
    command.add_argument("--compare", action="store_true", help="measure plain fine-tuning too")
    command.add_argument("--samples", type=Path, help="draw sample videos into this folder")
    command.set_defaults(command=commands_of.demo)


def _add_store(command: argparse.ArgumentParser) -> None:
    command.add_argument("--store", type=Path, default=Path("model_store"), help="(model_store)")
    command.add_argument("--no-activate", action="store_true", help="do not serve it yet")
    command.add_argument("--replace", action="store_true", help="replace the same weights")
