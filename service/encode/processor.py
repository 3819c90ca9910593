"""What the processor is fast at: read from what it says of itself, never assumed."""

from pathlib import Path
from typing import Final

from service.encode.runtime import Precision

_FACTS: Final = Path("/proc/cpuinfo")
_HEADS: Final = ("flags", "featu")  # x86: flags; ARM: Features
#: Flags of Linux: instructions that multiply int8, or float16, without widening them first.
_FLAGS: Final[dict[Precision, frozenset[str]]] = {
    "int8": frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}),
    "float16": frozenset({"avx512_fp16", "amx_fp16", "asimdhp", "fphp"}),
}


def slow_reason(precision: Precision, *, facts: Path = _FACTS) -> str | None:
    """Return why `precision` will hardly be faster than float32 on this processor, None if it may.

    It computes the same either way; only the operator can say if fewer bits are worth it then.
    """
    wanted = _FLAGS.get(precision)
    if wanted is None:
        return None
    try:
        lines = facts.read_text().splitlines()
    except OSError:
        return None
    named = (line.partition(":")[2].split() for line in lines if line[:5].lower() in _HEADS)
    found = {flag for flags in named for flag in flags}
    if not found or found & wanted:
        return None
    return f"the processor has no {precision} instructions ({', '.join(sorted(wanted))})"
