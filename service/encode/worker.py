"""What runs in an encoder process: one network, one call at a time, λ swapped between two calls."""

import logging
import os
import selectors
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from service.channel import Channel, Header
from service.encode.device import DeviceError, parse_device
from service.encode.runtime import Model, Network
from service.frames import Slot, map_slot
from service.videoclip.manifest import ArtefactError, Preprocessing, load_manifest, verify_files
from service.videoclip.preprocessing import normalize

_WAKE: Final = b"\0"
_log = logging.getLogger(__name__)


def serve(channel: Channel) -> None:
    """Answer messages until the parent closes the channel.

    `configure` loads an artefact; `clips` and `texts` encode; `set` builds the network of another
    λ in a thread while the present one goes on, and swaps between two calls.
    """
    _Worker(channel).run()


class _Worker:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._model: Model | None = None
        self._network: Network | None = None
        self._tuned_text = True
        self._descriptor = -1
        self._preprocessing: Preprocessing | None = None
        self._built: list[tuple[int, Network | Header]] = []
        self._wake_reader, self._wake_writer = os.pipe()

    def run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._channel, selectors.EVENT_READ)
        selector.register(self._wake_reader, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if self._wake_reader in ready:
                os.read(self._wake_reader, len(_WAKE))
                self._swap(*self._built.pop(0))
            if self._channel in ready:
                message = self._channel.receive()
                if message is None:
                    # A build may still be running in a thread; nobody waits for it.
                    os._exit(0)
                self._handle(*message)

    def _handle(self, header: Header, payload: bytes) -> None:
        number = int(header["id"])
        if header["op"] == "set":
            thread = threading.Thread(
                target=self._build, args=(number, float(header["clip_weight"])), daemon=True
            )
            thread.start()
            return
        answer, output = _guarded(lambda: self._answer(header, payload))
        self._channel.send({"id": number, **answer}, output)

    def _answer(self, header: Header, payload: bytes) -> tuple[Header, bytes]:
        if header["op"] == "configure":
            return self._configure(header), b""
        network = self._network
        if network is None or self._preprocessing is None:
            raise RuntimeError("not configured")
        if header["op"] == "clips":
            if header["expect"] not in (None, network.clip_weight):
                return {"stale": True}, b""
            slot = Slot(int(header["offset"]), tuple(header["shape"]))
            pixels = map_slot(self._descriptor, slot=slot)[header["first"] : header["last"]]
            output = network.video(normalize(pixels, self._preprocessing))
        else:
            # A text tower that does not depend on λ cannot give a stale answer.
            if self._tuned_text and header["expect"] not in (None, network.clip_weight):
                return {"stale": True}, b""
            ids = np.frombuffer(payload, np.int64).reshape(header["shape"])
            output = network.text(ids)
        _require_directions(output)
        return {
            "shape": list(output.shape),
            **_describe(network),
        }, output.astype(np.float32, copy=False).tobytes()

    def _configure(self, header: Header) -> Header:
        folder = Path(header["folder"])
        manifest = load_manifest(folder)
        verify_files(folder, manifest)
        self._descriptor = int(header["descriptor"])
        self._preprocessing = manifest.preprocessing
        self._tuned_text = manifest.text_tower_tuned
        self._model = Model(
            folder,
            manifest=manifest,
            runtime=header["runtime"],
            threads=int(header["threads"]),
            device=parse_device(header["device"]),
        )
        self._network = self._model.build(float(header["clip_weight"]))
        return {"revision": manifest.revision, **_describe(self._network)}

    def _build(self, number: int, clip_weight: float) -> None:
        made: list[Network] = []

        def build() -> tuple[Header, bytes]:
            if self._model is None:
                raise RuntimeError("not configured")
            made.append(self._model.build(clip_weight, beside=self._network))
            return {}, b""

        problem, _ = _guarded(build)
        self._built.append((number, made[0] if made else problem))
        os.write(self._wake_writer, _WAKE)

    def _swap(self, number: int, built: Network | Header) -> None:
        if isinstance(built, Network):
            self._network = built
            self._channel.send({"id": number, **_describe(built)})
        else:
            self._channel.send({"id": number, **built})


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
        _log.exception("encoding failed")
        return {"failure": f"{type(error).__name__}: {error}"[:500]}, b""


def _describe(network: Network) -> Header:
    return {"clip_weight": network.clip_weight, "logit_scale": network.logit_scale}


def _require_directions(output: npt.NDArray[np.float32]) -> None:
    lengths = np.linalg.norm(output, axis=-1)
    if not np.all(np.isfinite(lengths)) or not np.all(lengths > 0):
        raise FloatingPointError("an embedding is zero or not finite")
