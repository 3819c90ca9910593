"""Small parts of the encoder process: errors, memory, staging, bound inputs, precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.encode import onnx, pinned, torchscript
from service.encode.device import CPU, Device, DeviceError
from service.encode.device_errors import DeviceLostError, OutOfDeviceMemoryError, meaning
from service.encode.processor import slow_reason
from service.encode.runtime import Model, Precision
from service.encode.staging import Staging
from service.memory import available_bytes
from service.videoclip.input_spec import Preprocessing
from service.videoclip.preprocessing import normalize
from tests.service.small_artefact import SIZE, _text_graph, publish, weights


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "memory"),
        (
            RuntimeError(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while "
                "running MatMul node. bfc_arena.cc Available memory of 0 is smaller than requested"
            ),
            "memory",
        ),
        (RuntimeError("Failed to allocate memory for requested buffer of size 1"), "memory"),
        (MemoryError(), "memory"),
        (OutOfDeviceMemoryError(), "memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "device_lost"),
        (RuntimeError("CUDA failure 719: unspecified launch failure ; GPU=0"), "device_lost"),
        (RuntimeError("CUDA error: device-side assert triggered"), "device_lost"),
        (DeviceLostError(), "device_lost"),
        (RuntimeError("indices element out of data bounds, idx=1000000"), "other"),
        (ValueError("a shape"), "other"),
    ],
)
def test_errors_are_told_apart_by_their_words(error: Exception, expected: str) -> None:
    """As torch, ONNX Runtime and CUDA word them."""
    assert meaning(error) == expected


def _group(root: Path, name: str, *, limit: str, used: int, cache: int = 0) -> None:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\n")


def test_the_smallest_limit_counts(tmp_path: Path) -> None:
    """The machine, the group of the process, or one around it; file cache counts as free."""
    machine, groups, root = tmp_path / "meminfo", tmp_path / "cgroup", tmp_path / "root"
    machine.write_text("MemTotal: 9 kB\nMemAvailable:    1000 kB\n")
    groups.write_text("0::/pod/service\n")

    def ask() -> int | None:
        return available_bytes(machine=machine, groups=groups, group_root=root)

    assert ask() == 1_024_000
    _group(root, "pod/service", limit="max", used=5)
    assert ask() == 1_024_000
    _group(root, "pod", limit="600000", used=500_000, cache=50_000)
    assert ask() == 150_000
    _group(root, "pod/service", limit="10", used=50)
    assert ask() == 0
    assert available_bytes(machine=tmp_path / "no", groups=tmp_path / "no") is None
    assert available_bytes() != 0


def test_staging_normalises_several_requests_into_one_input() -> None:
    """In order, in the same memory each time, and padded with zeros to a bucket on CUDA only."""
    preprocessing = Preprocessing(image_size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))
    draw = np.random.default_rng(0)
    clips = [draw.integers(0, 256, (n, 2, SIZE, SIZE, 3), np.uint8) for n in (1, 2)]
    expected = np.concatenate([normalize(part, preprocessing) for part in clips])
    here = Staging(onnx, device=CPU, preprocessing=preprocessing)
    first = here.normalized(clips)
    assert np.array_equal(first, expected)
    assert here.normalized(clips).ctypes.data == first.ctypes.data
    there = Staging(onnx, device=Device("cuda"), preprocessing=preprocessing)
    padded = there.normalized(clips)
    assert padded.shape == (4, 2, 3, SIZE, SIZE)
    assert np.array_equal(padded[:3], expected)
    assert not padded[3].any()
    assert torchscript.staging(10, CPU).shape == (10,)


class _Library:
    """A CUDA runtime that locks pages, or does not."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.held: set[int] = set()

    def cudaHostRegister(self, address: Any, size: Any, flags: Any) -> int:  # noqa: N802
        """Lock."""
        assert (size.value, flags.value) == (4096, 0)
        if self.status == 0:
            self.held.add(address.value)
        return self.status

    def cudaHostUnregister(self, address: Any) -> int:  # noqa: N802
        """Unlock."""
        self.held.remove(address.value)
        return 0


def test_pinned_memory_is_unlocked_before_it_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when only a view of it is left."""
    library = _Library(0)
    monkeypatch.setattr(pinned, "_cuda_runtime", lambda: library)
    view = pinned.pinned(4096).view(np.float32).reshape(32, 32)[:3]
    assert len(library.held) == 1
    del view
    assert library.held == set()


@pytest.mark.parametrize("library", [None, _Library(2)])
def test_memory_that_cannot_be_pinned_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, library: _Library | None
) -> None:
    """It is said, once for each piece of memory."""
    monkeypatch.setattr(pinned, "_cuda_runtime", lambda: library)
    assert pinned.pinned(4096).shape == (4096,)
    assert "not from pinned" in caplog.text


def test_a_bound_tower_gives_what_a_plain_run_gives(tmp_path: Path) -> None:
    """Inputs and outputs bound, as on CUDA, here on the CPU; few shapes are kept."""
    path = tmp_path / "text.onnx"
    path.write_bytes(_text_graph())
    session = onnx._session(path, weights(1), 1, CPU)
    tower = onnx.BoundTower(
        session, names=("token_ids", "text_embeddings"), device="cpu", number=0, shapes=2
    )
    for rows in (1, 2, 3, 1):
        ids = np.arange(4 * rows, dtype=np.int64).reshape(rows, 4)
        [expected] = session.run(None, {"token_ids": ids})
        assert np.array_equal(tower(ids), expected)
    assert len(tower._inputs) == 2


@pytest.mark.parametrize(
    ("flags", "slow"),
    [
        ("flags\t\t: fpu avx2 avx512f", {"int8", "float16"}),
        ("flags\t\t: fpu avx2 avx_vnni", {"float16"}),
        ("Features\t: fp asimd asimddp fphp asimdhp", set()),
        ("model name\t: unknown", set()),
    ],
)
def test_the_processor_is_asked_what_it_is_fast_at(
    tmp_path: Path, flags: str, slow: set[str]
) -> None:
    """Missing instructions are named; float32 is never slow; what is not known is not claimed."""
    facts = tmp_path / "cpuinfo"
    facts.write_text(f"processor\t: 0\n{flags}\nbugs\t: none\n")
    known: tuple[Precision, ...] = ("float32", "float16", "int8")
    for precision in known:
        reason = slow_reason(precision, facts=facts)
        assert (reason is not None) == (precision in slow)
    assert slow_reason("int8", facts=tmp_path / "none") is None


@pytest.mark.parametrize(
    ("runtime", "precision", "words"),
    [
        ("onnx", "int8", "VTAG_PRECISION: int8 is no variant of small .published: none."),
        ("torchscript", "float16", "VTAG_PRECISION: float16 needs VTAG_RUNTIME=onnx"),
    ],
)
def test_a_precision_that_is_not_there_is_refused(
    tmp_path: Path, runtime: Any, precision: Any, words: str
) -> None:
    """By name, at the start, never replaced by another in silence."""
    manifest = publish(tmp_path)
    folder = tmp_path / manifest.name / manifest.revision
    with pytest.raises(DeviceError, match=words):
        Model(
            folder, manifest=manifest, runtime=runtime, threads=1, device=CPU, precision=precision
        )
