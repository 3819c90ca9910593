"""Work in the background waits while requests decode: that takes the processor, too."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from service.jobs.evaluation_tools import EvaluationTools

_PATIENCE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.02


async def stand_back(tools: EvaluationTools) -> None:
    """Wait, but not for ever, until no request decodes or waits for it."""
    end = time.monotonic() + _PATIENCE_SECONDS
    decoder, slots = tools.decoder, tools.slots
    while decoder.busy or decoder.waiting or slots.waiting:
        if time.monotonic() > end:
            break
        await asyncio.sleep(_LOOK_SECONDS)
