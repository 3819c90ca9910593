"""What runs in an encoder process: networks at several λ, one batch at a time."""

import logging
import os
import selectors
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from service.channel import Channel, Header
from service.encode.device import CPU, DeviceError, parse_device
from service.encode.device_errors import meaning
from service.encode.golden import Golden, bad_rows, check, still_sings
from service.encode.processor import slow_reason
from service.encode.runtime import Model, Network, Precision
from service.encode.staging import Staging
from service.frames import Slot, map_slot
from service.memory import available_bytes
from service.videoclip.golden import GoldenOutputs, read_golden
from service.videoclip.manifest import (
    GOLDEN_FILE,
    ArtefactError,
    Manifest,
    load_manifest,
    verify_files,
)
from service.videoclip.preprocessing import normalize

DEVICE_LOST_STATUS: Final = 70
"""Exit status after an error that only a new process cures."""

_WAKE: Final = b"\0"
_GOLDEN_KEPT: Final = 64
"""Of networks that are not there any more, what they gave for the known input."""
_ROOM: Final = 2.0
"""Memory that a network may take, in sizes of its weights: runtimes pack them a second time."""

_log = logging.getLogger(__name__)


def serve(channel: Channel) -> None:
    """Answer messages until the parent closes the channel.

    `configure` loads an artefact; `clips` and `texts` encode a batch with the weights at the λ that
    they name; `build` makes the network of another λ in a thread meanwhile, `drop` forgets it.
    `trial` builds one for `trial_clips` and `trial_texts`, until `trial_end` or the next `build`.
    `canary` encodes a known text and compares.
    """
    _Worker(channel).run()


class _Worker:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._model: Model | None = None
        self._manifest: Manifest | None = None
        self._precision: Precision = "float32"
        self._device = CPU
        self._published: GoldenOutputs | None = None
        self._networks: dict[float, Network] = {}
        self._golden: dict[float, Golden] = {}
        self._trial: Network | None = None
        self._trial_number: int | None = None  # of the message that asked for the trial
        self._staging: Staging | None = None
        self._arena: npt.NDArray[np.uint8] | None = None
        self._built: list[tuple[Header, Network | Header]] = []
        self._wake_reader, self._wake_writer = os.pipe()

    def run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._channel, selectors.EVENT_READ)
        selector.register(self._wake_reader, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if self._wake_reader in ready:
                os.read(self._wake_reader, len(_WAKE))
                self._take_over(*self._built.pop(0))
            if self._channel in ready:
                message = self._channel.receive()
                if message is None:
                    # A build may still be running in a thread; nobody waits for it.
                    os._exit(0)
                self._handle(*message)

    def _handle(self, header: Header, payload: bytes) -> None:
        if header["op"] in ("build", "trial"):
            self._trial = None  # never a network more than are resident, and one on trial
            self._trial_number = header["id"] if header["op"] == "trial" else None
            there = self._networks.get(float(header["clip_weight"]))
            if there is not None:
                self._take_over(header, there)
                return
            threading.Thread(target=self._build, args=(header,), daemon=True).start()
            return
        began = time.monotonic()
        answer, output = _guarded(lambda: self._answer(header, payload))
        if header.get("timed"):
            answer["worked"] = [began, time.monotonic()]
        self._channel.send({"id": header["id"], **answer}, output)

    def _answer(self, header: Header, payload: bytes) -> tuple[Header, bytes]:
        operation = header["op"]
        if operation == "configure":
            return self._configure(header), b""
        if operation == "drop":
            self._networks.pop(float(header["clip_weight"]), None)
            return {}, b""
        if operation == "trial_end":
            self._trial = self._trial_number = None
            return {}, b""
        if self._manifest is None or self._staging is None or self._arena is None:
            raise RuntimeError("not configured")
        if operation == "canary":
            for weight, any_network in tuple(self._networks.items())[:1]:
                still_sings(
                    any_network,
                    manifest=self._manifest,
                    precision=self._precision,
                    before=self._golden[weight],
                )
            return {}, b""
        network = self._network(header)
        if network is None:
            return {"gone": True}, b""
        if operation == "clips":
            count = sum(last - first for *_, first, last in header["parts"])
            output = network.video(self._clips(header, self._arena, self._staging))[:count]
        elif operation == "trial_clips":
            pixels = np.frombuffer(payload, np.uint8).reshape(header["shape"])
            output = network.video(normalize(pixels, self._manifest.preprocessing))
        else:
            output = network.text(np.frombuffer(payload, np.int64).reshape(header["shape"]))
        vectors = output.astype(np.float32, copy=False)
        return {
            "shape": list(vectors.shape),
            "bad": bad_rows(vectors).tolist(),
            "clip_weight": network.clip_weight,
        }, vectors.tobytes()

    def _network(self, header: Header) -> Network | None:
        weight = header["clip_weight"]
        if header["op"].startswith("trial_"):
            trial = self._trial
            return trial if trial is not None and trial.clip_weight == weight else None
        if weight is None:  # texts that no λ changes
            return next(iter(self._networks.values()), None)
        return self._networks.get(weight)

    def _clips(
        self, header: Header, arena: npt.NDArray[np.uint8], staging: Staging
    ) -> npt.NDArray[np.float32]:
        """Normalise the clips where they lie, straight into the input of the network."""
        parts = []
        for offset, shape, first, last in header["parts"]:
            size = Slot(offset, tuple(shape)).size_bytes
            parts.append(arena[offset : offset + size].reshape(shape)[first:last])
        return staging.normalized(parts)

    def _configure(self, header: Header) -> Header:
        folder = Path(header["folder"])
        manifest = load_manifest(folder)
        verify_files(folder, manifest)
        self._manifest, self._precision = manifest, header["precision"]
        self._device = device = parse_device(header["device"])
        slow = slow_reason(header["precision"]) if device.kind == "cpu" else None
        if slow is not None:
            _log.warning("VTAG_PRECISION: %s", slow)
        self._model = Model(
            folder,
            manifest=manifest,
            runtime=header["runtime"],
            threads=int(header["threads"]),
            device=device,
            precision=header["precision"],
        )
        self._staging = Staging(
            self._model.runtime, device=device, preprocessing=manifest.preprocessing
        )
        descriptor = int(header["descriptor"])
        # Mapped once: pages come and go with the slots, the addresses stay.
        self._arena = map_slot(descriptor, slot=Slot(0, (os.fstat(descriptor).st_size,)))
        clip_weight = float(header["clip_weight"])
        self._published = read_golden(folder, manifest)
        if self._published is None:
            _log.warning(
                "%s@%s lists no %s: what it computes is not checked against published values",
                *(manifest.name, manifest.revision, GOLDEN_FILE),
            )
        elif clip_weight not in self._published.outputs:
            self._made(
                round(manifest.default_clip_weight, 4)
            )  # nothing is published of the λ that serves
        network = self._made(clip_weight)
        self._networks = {network.clip_weight: network}
        golden = self._golden[network.clip_weight]
        return {
            "revision": manifest.revision,
            "seconds": [golden.clip_seconds, golden.text_seconds],
            "tokens": golden.text_tokens,
            **_describe(network),
        }

    def _made(self, clip_weight: float) -> Network:
        """Build and check the network at a λ; in any thread."""
        if self._model is None or self._manifest is None:
            raise RuntimeError("not configured")
        beside = next(iter(tuple(self._networks.values())), None)
        network = self._model.build(clip_weight, beside=beside)
        before = self._golden.get(clip_weight)
        self._golden[clip_weight] = check(
            network,
            manifest=self._manifest,
            precision=self._precision,
            before=before,
            published=self._published,
            device=self._device,
        )
        for old in [w for w in tuple(self._golden) if w not in self._networks][:-_GOLDEN_KEPT]:
            self._golden.pop(old, None)  # a client may name ten thousand
        return network

    def _build(self, header: Header) -> None:
        made: list[Network] = []

        def build() -> tuple[Header, bytes]:
            if self._model is None:
                raise RuntimeError("not configured")
            # Other workers on this machine build at the same time, and see the same memory.
            at_once = int(header.get("at_once", 1))
            needed, there = at_once * _ROOM * self._model.bytes_per_network, available_bytes()
            if there is not None and needed > there:
                mega = 1e6
                return {"no_room": f"{needed / mega:.0f} MB, {there / mega:.0f} are there"}, b""
            made.append(self._made(float(header["clip_weight"])))
            return {}, b""

        problem, _ = _guarded(build)
        self._built.append((header, made[0] if made else problem))
        os.write(self._wake_writer, _WAKE)

    def _take_over(self, header: Header, built: Network | Header) -> None:
        if not isinstance(built, Network):
            self._channel.send({"id": header["id"], **built})
            return
        if header["op"] == "build":
            self._networks[built.clip_weight] = built
        else:
            self._trial = built if header["id"] == self._trial_number else None
        self._channel.send({"id": header["id"], **_describe(built)})


def _guarded(answer: Callable[[], tuple[Header, bytes]]) -> tuple[Header, bytes]:
    try:
        return answer()
    except ArtefactError as error:
        return {
            "artefact": {"file": error.file, "expected": error.expected, "found": error.found}
        }, b""
    except DeviceError as error:
        return {"failure": str(error)}, b""  # for the operator: no stack is needed
    except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
        text = f"{type(error).__name__}: {error}"[:500]
        kind = meaning(error)
        if kind == "device_lost":
            # The next call would fail as this one did: the parent starts a new process.
            _log.critical("the device is lost: %s", text)
            os._exit(DEVICE_LOST_STATUS)
        _log.exception("encoding failed")
        return {"failure": text, "memory": kind == "memory"}, b""


def _describe(network: Network) -> Header:
    return {"clip_weight": network.clip_weight, "logit_scale": network.logit_scale}
