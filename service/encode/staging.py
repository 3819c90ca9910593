"""The input of the video tower, made in one place that is used again and again."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.encode.batcher import BUCKETS
from service.encode.device import Device
from service.encode.runtime import Runtime
from service.videoclip.manifest import Preprocessing
from service.videoclip.preprocessing import normalize


class Staging:
    """Normalised clips, ready for the device; one batch at a time.

    On CUDA the memory is pinned, and batches are padded to few sizes (`BUCKETS`) with clips of
    zeros: a size that is new there costs more than the padding.
    """

    def __init__(self, runtime: Runtime, *, device: Device, preprocessing: Preprocessing) -> None:
        self._runtime = runtime
        self._device = device
        self._preprocessing = preprocessing
        self._memory = np.empty(0, np.uint8)

    def normalized(self, clips: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Return float32 (n or its bucket, T, 3, S, S); valid until the next call.

        Args:
            clips: uint8 (k, T, S, S, 3) each, n clips in all.
        """
        count = sum(len(part) for part in clips)
        _, frames, size, _, channels = clips[0].shape
        target = self._array((self._padded(count), frames, channels, size, size))
        row = 0
        for part in clips:
            normalize(part, self._preprocessing, out=target[row : row + len(part)])
            row += len(part)
        target[count:] = 0
        return target

    def _padded(self, count: int) -> int:
        if self._device.kind == "cpu":
            return count
        return next((bucket for bucket in BUCKETS if bucket >= count), count)

    def _array(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        needed = 4 * math.prod(shape)
        if self._memory.nbytes < needed:
            self._memory = self._runtime.staging(needed, self._device)
        return self._memory[:needed].view(np.float32).reshape(shape)
