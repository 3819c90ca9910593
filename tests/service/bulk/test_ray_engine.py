"""How a cluster is shared out between decoding and encoding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encode.device import CPU, Device

pytest.importorskip("ray", reason="Ray is not installed: pip install 'vtag[ray]'")

from service.bulk.ray_engine import choose_workers

pytestmark = pytest.mark.slow  # the import takes seconds

CUDA = Device("cuda")


@given(cores=st.integers(2, 512), gpus=st.integers(1, 64))
def test_a_cluster_is_filled_and_never_overfilled(cores: int, gpus: int) -> None:
    """With and without graphics processors."""
    plain = choose_workers({"CPU": cores}, decoders=None, encoders=None, device=CPU)
    assert 0 < plain.decoders + plain.encoders * plain.threads <= cores
    assert plain.decoders + plain.threads >= cores - 1
    if gpus < cores:
        found = choose_workers(
            {"CPU": cores, "GPU": gpus}, decoders=None, encoders=None, device=CUDA
        )
        assert (found.encoders, found.decoders) == (gpus, cores - gpus)


@pytest.mark.parametrize(
    ("decoders", "encoders", "device", "words"),
    [
        (None, 3, CUDA, "--encoders: 3, the cluster has 2 GPUs"),
        (8, None, CPU, "8 and 1, at least 1 each, together at most the 8 cores"),
        (0, None, CPU, "0 and 1, at least 1 each"),
    ],
)
def test_what_a_cluster_does_not_have_is_refused(
    decoders: int | None, encoders: int | None, device: Device, words: str
) -> None:
    """One line that names the option, the number and what there is."""
    with pytest.raises(ValueError, match=words):
        choose_workers(
            {"CPU": 8.0, "GPU": 2.0}, decoders=decoders, encoders=encoders, device=device
        )
