"""Number formats of training."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16", "auto"]
Format = Literal["fp32", "bf16", "fp16"]

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve(device: torch.device, precision: Precision) -> Format:
    """The format that is really used on a device.

    ``auto`` is bf16 where the device multiplies bf16 in hardware, else fp32: on a CPU without such
    instructions bf16 is several times slower than fp32.
    """
    if precision == "auto":
        return "bf16" if _has_fast_bf16(device) else "fp32"
    return precision


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context in which a forward pass runs; see `resolve`. Weights and updates stay fp32."""
    chosen = resolve(device, precision)
    if chosen == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_TYPES[chosen])


class LossScale:
    """The factor that keeps small gradients above fp16's smallest number; 1 in other formats.

    It halves when a gradient overflows, and doubles after `PATIENCE` updates without (Micikevicius
    et al., ICLR 2018, section 3.2).
    """

    FIRST = 2.0**16
    LEAST = 2.0**-4
    PATIENCE = 2000

    def __init__(self, chosen: Format) -> None:
        self.used = chosen == "fp16"
        self.factor = self.FIRST if self.used else 1.0
        self.updates = 0  # since the factor last changed

    def after_update(self) -> None:
        """Note that the gradient was finite."""
        self.updates += 1
        if self.used and self.updates >= self.PATIENCE:
            self.factor *= 2.0
            self.updates = 0

    def after_overflow(self) -> bool:
        """Note that it was not. Returns whether a smaller factor can help."""
        self.factor /= 2.0
        self.updates = 0
        return self.used and self.factor >= self.LEAST


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # oneDNN answers for emulation too (AVX-512 without BF16), so the processor's flag decides.
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
