"""Page-locked memory, which a CUDA device reads by itself: no copy through the driver's buffers."""

import ctypes
import logging
import weakref
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_LIBRARIES: Final = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
_log = logging.getLogger(__name__)


def pinned(size_bytes: int) -> npt.NDArray[np.uint8]:
    """Return `size_bytes` of page-locked memory; ordinary memory, said once, where CUDA refuses.

    What is computed is the same either way. ONNX Runtime shows Python no pinned allocator, so
    ordinary memory is registered with the CUDA runtime that it has loaded.
    """
    memory = np.empty(size_bytes, np.uint8)
    runtime = _cuda_runtime()
    status = None
    if runtime is not None:
        address = ctypes.c_void_p(memory.ctypes.data)
        status = runtime.cudaHostRegister(address, ctypes.c_size_t(size_bytes), ctypes.c_uint(0))
        if status == 0:
            weakref.finalize(memory, runtime.cudaHostUnregister, address)
            return memory
    reason = "no CUDA runtime library" if status is None else f"CUDA error {status}"
    _log.warning("inputs are copied from ordinary memory, not from pinned: %s", reason)
    return memory


def _cuda_runtime() -> Any:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
