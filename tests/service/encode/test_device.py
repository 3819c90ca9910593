"""The device is the one that was asked for, or the start is refused."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from service.encode import onnx, torchscript
from service.encode.device import CPU, Device, DeviceError, parse_device
from service.encode.supervision import EncoderError
from tests.service.encode.started import SHAPE, fill, running


def test_words_name_devices() -> None:
    """cpu, cuda (the first) and cuda:N; anything else is refused."""
    assert parse_device("cpu") == CPU
    assert parse_device("cuda") == Device("cuda", 0)
    assert parse_device("cuda:3") == Device("cuda", 3)
    for word in ("", "tpu", "cpu:0", "cuda:", "cuda:x", "cuda:0 "):
        with pytest.raises(DeviceError, match="VTAG_DEVICE"):
            parse_device(word)


def test_providers_are_those_of_the_device() -> None:
    """CUDA comes first, by its number, with the CPU behind it for what it cannot do."""
    assert onnx.providers(CPU) == ["CPUExecutionProvider"]
    assert onnx.providers(Device("cuda", 2)) == [
        ("CUDAExecutionProvider", {"device_id": 2}),
        "CPUExecutionProvider",
    ]


def test_runtimes_refuse_a_device_they_do_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """No silent run on the CPU; the CPU itself is always there."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for runtime in (onnx, torchscript):
        runtime.require(CPU)
    with pytest.raises(DeviceError, match="onnxruntime-gpu"):
        onnx.require(Device("cuda", 0))
    torchscript.require(Device("cuda", 0))
    with pytest.raises(DeviceError, match="torch finds 1"):
        torchscript.require(Device("cuda", 1))


@pytest.mark.anyio
async def test_the_encoder_does_not_start_on_a_device_that_is_not_there(tmp_path: Path) -> None:
    """The word reaches the worker, and its refusal comes back as one line."""
    with pytest.raises(EncoderError, match=r"^VTAG_DEVICE: cuda:99 [^\n]+$"):
        async with running(tmp_path, devices=["cuda:99"]):
            pass


@pytest.mark.gpu
@pytest.mark.anyio
async def test_cuda_gives_the_vectors_of_the_cpu(tmp_path: Path) -> None:
    """The same clips on both devices, to 1e-3."""
    found = []
    for device in ("cpu", "cuda:0"):
        async with (
            running(tmp_path / device, devices=[device]) as (encoder, slots),
            slots.lease(SHAPE) as slot,
        ):
            fill(slots, slot)
            found.append((await encoder.encode_clips(slot)).vectors)
    assert np.abs(found[0] - found[1]).max() < 1e-3
