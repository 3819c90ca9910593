"""`python -m training`: fine-tune CLIP on video, measure it, choose λ, export and publish it."""

import os
import sys
from collections.abc import Sequence

from service.videoclip.manifest import ArtefactError
from training.command_line import parser
from training.errors import Refusal

# A path that the user named, as a rule one to write to, and that cannot be.
_PATHS = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 a check failed, 2 wrong input."""
    parsed = parser().parse_args(arguments)
    try:
        code: int = parsed.command(parsed)
        sys.stdout.flush()
    except (Refusal, ArtefactError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has read enough; the interpreter would flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _PATHS as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
