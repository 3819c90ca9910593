"""The external initialisers of a graph, read without the onnx package."""

from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encode.graph import external_initializers
from service.store import ArtefactStore
from service.videoclip.manifest import ArtefactError
from service.videoclip.number_formats import Wanted
from tests.service.small_artefact import publish


def test_initialisers_are_those_that_onnx_reads(tmp_path: Path) -> None:
    """Only external ones, in the graph's order; constants inside the graph are left out."""
    manifest = publish(tmp_path)
    folder = ArtefactStore(tmp_path).folder(manifest.name, manifest.revision)
    for name in ("video_encoder.onnx", "text_encoder.onnx"):
        graph = onnx.load_model(folder / name, load_external_data=False).graph
        expected = [
            Wanted(t.name, number_format="float32", shape=tuple(t.dims))
            for t in graph.initializer
            if t.data_location == t.EXTERNAL
        ]
        assert list(external_initializers(folder / name)) == expected
        assert len(graph.initializer) > len(expected)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    """A file that is no ONNX model gives one clear error, never another one."""
    path = tmp_path_factory.getbasetemp() / "fuzz.onnx"
    path.write_bytes(data)
    with pytest.raises(ArtefactError, match=r"fuzz\.onnx: expected"):
        external_initializers(path)


def test_every_truncation_of_a_graph_is_read_or_refused(tmp_path: Path) -> None:
    """Cut anywhere, the file gives names or an ArtefactError."""
    manifest = publish(tmp_path)
    whole = (tmp_path / manifest.name / manifest.revision / "video_encoder.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        try:
            assert external_initializers(path)
        except ArtefactError:
            continue
