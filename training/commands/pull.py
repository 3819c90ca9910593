"""`python -m training pull`."""

import argparse
from pathlib import Path

from training.commands.publication import add_publication, publish_as_told

NAME = "pull"
HELP = "publish CLIP itself, with weights from the hub or from a file"
DESCRIPTION = (
    "Publish an open_clip model as an artefact whose both ends are CLIP: something to serve, and "
    "what `train` starts from. OpenAI's weights were trained with QuickGELU, most others with "
    "GELU, and nothing in a file tells. So with --file say it, by a name that ends in -quickgelu "
    "or by --quick-gelu or --no-quick-gelu. Of the hub's it is known."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("model", help="open_clip's name, e.g. ViT-B-32-quickgelu")
    parser.add_argument("--pretrained", default="openai", help="open_clip's tag (openai)")
    parser.add_argument("--file", type=Path, help="weights from this file, without the hub")
    parser.add_argument(
        "--quick-gelu",
        action=argparse.BooleanOptionalAction,
        help="the activation of the weights in --file",
    )
    parser.add_argument("--name", help="of the artefact (the model's name in lower case)")
    parser.add_argument("--frames", type=int, default=8, help="frames per clip (8)")
    parser.add_argument("--templates", default="vifi-clip", help="template set (vifi-clip)")
    add_publication(parser)


def run(parsed: argparse.Namespace) -> int:
    """Publish CLIP itself."""
    from training.config import ConfigError
    from training.pull import pull
    from training.run_config import reason_of

    try:
        pulled = pull(
            parsed.model,
            pretrained=parsed.pretrained,
            file=parsed.file,
            quick_gelu=parsed.quick_gelu,
            name=parsed.name,
            frames=parsed.frames,
            template_set=parsed.templates,
        )
    except ValueError as error:
        raise ConfigError(reason_of(error)) from error
    print(publish_as_told(parsed, pulled.description, clip=pulled.weights, tuned=pulled.weights))
    return 0
