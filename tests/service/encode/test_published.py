"""The encoder process beside the known outputs of its artefact."""

from pathlib import Path

import numpy as np
import pytest

from service.encode.process import EncoderProcess
from service.frames import FrameSlots
from service.videoclip.golden import Outputs
from service.videoclip.manifest import ArtefactError
from tests.service.encode.started import CLIP, TUNED
from tests.service.small_artefact import known_outputs, publish

pytestmark = pytest.mark.anyio


def _encoder(
    root: Path, golden: dict[float, Outputs], *, clip_weight: float, slots: FrameSlots
) -> EncoderProcess:
    manifest = publish(root, clip=CLIP, tuned=TUNED, text_tower_tuned=True, golden=golden)
    folder = root / manifest.name / manifest.revision
    return EncoderProcess(
        folder, manifest=manifest, slots=slots, threads=1, clip_weight=clip_weight
    )


@pytest.mark.parametrize("clip_weight", [0.5, 0.3])
async def test_an_artefact_that_computes_something_else_does_not_start(
    tmp_path: Path, clip_weight: float
) -> None:
    """Whole by its hashes, with others' weights; also at a λ of which nothing is published."""
    slots = FrameSlots(1, slot_bytes=1 << 16)
    others = known_outputs(CLIP, {**TUNED, "visual.bias": 2 * TUNED["visual.bias"]})
    encoder = _encoder(tmp_path, others, clip_weight=clip_weight, slots=slots)
    with pytest.raises(ArtefactError, match=r"^video_encoder at clip_weight 0\.5: .*published"):
        await encoder.start()
    assert not encoder.alive
    slots.close()


async def test_a_lambda_that_is_not_what_was_published_is_refused(tmp_path: Path) -> None:
    """One end is other than it was: every λ that tells is refused, what serves goes on."""
    slots = FrameSlots(1, slot_bytes=1 << 16)
    golden = known_outputs(CLIP, TUNED)
    golden[1.0] = Outputs(golden[1.0].video, np.asarray(-golden[1.0].text))
    encoder = _encoder(tmp_path, golden, clip_weight=0.5, slots=slots)
    await encoder.start()
    with pytest.raises(ArtefactError, match=r"^text_encoder at clip_weight 1: .*published"):
        await encoder.set_clip_weight(1.0)
    assert encoder.clip_weight == 0.5
    assert (await encoder.set_clip_weight(0.0)).clip_weight == 0.0
    await encoder.stop()
    slots.close()


async def test_an_older_artefact_is_served_with_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It says nothing of its outputs: the log does, once."""
    slots = FrameSlots(1, slot_bytes=1 << 16)
    encoder = _encoder(tmp_path, {}, clip_weight=0.5, slots=slots)
    await encoder.start()
    await encoder.stop()
    slots.close()
    line = (
        f"small@{encoder.manifest.revision} lists no golden.safetensors: what it computes is not "
        "checked against published values"
    )
    assert capfd.readouterr().err.count(line) == 1
