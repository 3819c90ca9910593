"""Number formats of training."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "auto"]


def resolve(device: torch.device, precision: Precision) -> Literal["fp32", "bf16"]:
    """The format that is really used on a device.

    ``auto`` is bf16 where the device multiplies bf16 in hardware, else fp32: on a CPU without such
    instructions bf16 is several times slower than fp32.
    """
    if precision == "auto":
        return "bf16" if _has_fast_bf16(device) else "fp32"
    return precision


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context in which a forward pass runs; see `resolve`. Weights and updates stay fp32."""
    if resolve(device, precision) == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # oneDNN answers for emulation too (AVX-512 without BF16), so the processor's flag decides.
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
