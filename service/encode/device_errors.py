"""What an error of a runtime means: no memory for so much at once, or a device that is lost."""

from typing import Final, Literal

Meaning = Literal["memory", "device_lost", "other"]

_MEMORY: Final = (
    "out of memory",
    "failed to allocate memory",
    "bad_alloc",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "available memory of",
)
#: After these every call of the process fails: CUDA calls the context corrupted.
_LOST: Final = (
    "illegal memory access",
    "illegal address",
    "illegal instruction",
    "misaligned address",
    "unspecified launch failure",
    "device-side assert",
    "launch timed out",
    "uncorrectable ecc",
    "hardware stack error",
    "no cuda-capable device",
    "device is lost",
    "context is destroyed",
    "cuda failure 700",
    "cuda failure 719",
)


class OutOfDeviceMemoryError(MemoryError):
    """A runtime could not get memory for a batch. Smaller ones may pass."""


class DeviceLostError(RuntimeError):
    """A device fails every call until the process is a new one."""


def meaning(error: BaseException) -> Meaning:
    """Return what `error`, raised by a runtime, means; runtimes share no classes, so by its words.

    `torch.OutOfMemoryError` and ONNX Runtime's allocation failures are *memory*; CUDA's sticky
    errors (documented with cudaGetLastError: "this leaves the process in an inconsistent state")
    are *device_lost*.
    """
    if isinstance(error, DeviceLostError):
        return "device_lost"
    if isinstance(error, MemoryError):
        return "memory"
    text = str(error).lower()
    if any(words in text for words in _LOST):
        return "device_lost"
    if any(words in text for words in _MEMORY):
        return "memory"
    return "other"
