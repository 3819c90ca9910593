"""The five frozen classifiers against slow, obvious versions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from service.videoclip.tokenizing import Tokenizer, build_tokenizer_json
from tests.training.tiny import ARCHITECTURE, MERGES
from training.captioning.pretrained import transformers_library
from training.frozen_classifiers import (
    ClassifierError,
    FrozenClassifier,
    clip_text,
    linear_discriminants,
    load_classifier,
    random_normal,
    random_orthogonal,
    sentence_embeddings,
)
from training.models.network import build

NAMES = ("a star", "red drops", "of a heart")


@given(classes=st.integers(1, 40), size=st.integers(1, 24), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_random_rows_are_unit_and_the_seed_s(classes: int, size: int, seed: int) -> None:
    """A seed names the rows, another seed others, and every row has length 1."""
    rows = random_normal(classes, size=size, seed=seed)
    assert rows.shape == (classes, size)
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(classes))
    assert torch.equal(rows, random_normal(classes, size=size, seed=seed))
    if size > 1:
        assert not torch.equal(rows, random_normal(classes, size=size, seed=seed + 1))


def test_random_normal_rows_are_those_of_a_normal_matrix() -> None:
    """Many rows have the mean and the covariance of directions spread evenly over the sphere."""
    rows = random_normal(40_000, size=4, seed=0)
    assert rows.mean(dim=0).abs().max() < 0.01
    torch.testing.assert_close(rows.T @ rows / len(rows), torch.eye(4) / 4, atol=0.01, rtol=0)


@given(size=st.integers(1, 24), share=st.floats(0.0, 1.0), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_orthogonal_rows_are_at_right_angles(size: int, share: float, seed: int) -> None:
    """Up to as many classes as dimensions: the products of all rows are the identity."""
    classes = max(1, round(share * size))
    rows = random_orthogonal(classes, size=size, seed=seed)
    torch.testing.assert_close(rows @ rows.T, torch.eye(classes), atol=1e-6, rtol=0)
    assert torch.equal(rows, random_orthogonal(classes, size=size, seed=seed))


def test_too_many_right_angles_are_refused() -> None:
    """Five classes have no five orthogonal rows in four dimensions; the line says both numbers."""
    with pytest.raises(ClassifierError, match="5 classes, but at most 4 directions") as refused:
        random_orthogonal(5, size=4, seed=0)
    assert "\n" not in str(refused.value)


def clouds(classes: int, *, size: int, each: int = 12) -> tuple[Any, Any]:
    """Points around a centre for each class, in a covariance that is not round."""
    rng = np.random.default_rng(classes)
    stretch = rng.normal(size=(size, size))
    labels = np.arange(classes * each) % classes
    points = rng.normal(size=(classes, size))[labels] * 3 + rng.normal(size=(len(labels), size)) @ (
        stretch / size
    )
    return points.astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_discriminants_are_the_textbook_s(classes: int) -> None:
    """Rows are Σ⁻¹(μ_i - μ) with the pooled within-class covariance Σ, in the classes' order.

    Of two classes scikit-learn keeps the difference of both rows; they are opposite.
    """
    points, labels = clouds(classes, size=5)
    x = points.astype(np.float64)
    means = np.stack([x[labels == i].mean(axis=0) for i in range(classes)])
    within = x - means[labels]
    inverse = np.linalg.inv(within.T @ within / (len(x) - classes))
    expected = (means - x.mean(axis=0)) @ inverse
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)

    found = linear_discriminants(points, labels, classes=[f"class {i}" for i in range(classes)])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_discriminants_need_every_class() -> None:
    """A class without a video is named; as many videos as classes are too few."""
    points, labels = clouds(3, size=4)
    with pytest.raises(ClassifierError, match="no video of 'absent'"):
        linear_discriminants(points, labels, classes=("a", "b", "c", "absent"))
    with pytest.raises(ClassifierError, match="3 videos of 3 classes"):
        linear_discriminants(points[:3], labels[:3], classes=("a", "b", "c"))
    with pytest.raises(ClassifierError, match="of 1 classes"):
        linear_discriminants(points, 0 * labels, classes=("a",))


def test_videos_that_say_nothing_are_refused() -> None:
    """Neither equal videos nor classes with the same mean give directions; none are made up."""
    same = np.ones((9, 4), dtype=np.float32)
    with pytest.raises(ClassifierError, match="all the same"):
        linear_discriminants(same, np.arange(9) % 3, classes=("a", "b", "c"))
    twice = np.repeat(np.eye(4, dtype=np.float32), 2, axis=0)
    with pytest.raises(ClassifierError, match="do not tell the classes apart"):
        linear_discriminants(twice, np.arange(8) % 2, classes=("a", "b"))


def test_clip_text_is_the_mean_over_templates(tmp_path: Path) -> None:
    """One text at a time: unit vectors, their mean, unit again."""
    path = tmp_path / "tokenizer.json"
    path.write_text(build_tokenizer_json(MERGES), encoding="utf-8")
    tokenizer = Tokenizer(path, 24)

    def encode(texts: list[str]) -> Tensor:
        return torch.from_numpy(tokenizer.encode(texts)[0])

    network = build(ARCHITECTURE, seed=1)
    templates = ("a video of {}.", "{}")
    found = clip_text(network, NAMES, encode=encode, templates=templates)
    for row, name in zip(found, NAMES, strict=True):
        with torch.no_grad():
            texts = [network.encode_text(encode([t.replace("{}", name)]))[0] for t in templates]
        mean = sum(text / text.norm() for text in texts) / 2
        torch.testing.assert_close(row, mean / mean.norm(), atol=1e-6, rtol=1e-5)


def sentence_encoder(folder: Path, *, kind: str = "distilbert") -> Path:
    """A DistilBERT of 24 dimensions with random weights, and a tokenizer for it."""
    library = transformers_library()
    from tokenizers import Tokenizer as Words
    from tokenizers import models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "a", "star", "red", "drops", "of", "heart"]
    tokens = Words(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=words[1]))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = library.DistilBertConfig(
            vocab_size=len(words), dim=24, n_layers=1, n_heads=2, hidden_dim=16
        )
        library.DistilBertModel(config).save_pretrained(folder)
    library.PreTrainedTokenizerFast(
        tokenizer_object=tokens, unk_token=words[1], pad_token=words[0]
    ).save_pretrained(folder)
    if kind == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        SentenceTransformer(str(folder), device="cpu").save(str(folder / "whole"))
        return folder / "whole"
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `transformers`."""
    return sentence_encoder(tmp_path_factory.mktemp("distilbert"))


def token_means(folder: Path) -> Tensor:
    """The mean over the tokens of each name, one name at a time: (C, 24)."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = []
    for name in NAMES:
        with torch.no_grad():
            out = model(**tokenizer(name, return_tensors="pt", return_token_type_ids=False))
        rows.append(out.last_hidden_state[0].mean(dim=0))
    return F.normalize(torch.stack(rows), dim=-1)


def test_sentences_of_equal_size_are_token_means(encoder: Path) -> None:
    """With the network's own size nothing is projected: unit means over a name's tokens."""
    found = sentence_embeddings(str(encoder), NAMES, size=24, seed=0)
    torch.testing.assert_close(found, token_means(encoder), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [40, 25])
def test_a_larger_size_keeps_all_angles(encoder: Path, size: int) -> None:
    """The projection has orthonormal rows then: the cosines of names are the encoder's."""
    found, own = sentence_embeddings(str(encoder), NAMES, size=size, seed=7), token_means(encoder)
    assert found.shape == (3, size)
    torch.testing.assert_close(found @ found.T, own @ own.T, atol=1e-5, rtol=0)
    again = sentence_embeddings(str(encoder), NAMES, size=size, seed=7)
    other = sentence_embeddings(str(encoder), NAMES, size=size, seed=8)
    assert torch.equal(found, again)
    assert not torch.allclose(found, other)


def test_a_smaller_size_is_a_random_subspace(encoder: Path) -> None:
    """Over many seeds the projected products are the originals', times 8 of 24 dimensions."""
    own = token_means(encoder).double()
    products = []
    for seed in range(300):
        square = torch.randn(24, 8, generator=torch.Generator().manual_seed(seed)).double()
        tall = torch.linalg.qr(square).Q
        products.append(own @ tall @ tall.T @ own.T)
    mean = torch.stack(products).mean(dim=0)
    torch.testing.assert_close(mean, own @ own.T * (8 / 24), atol=0.05, rtol=0)
    found = sentence_embeddings(str(encoder), NAMES, size=8, seed=5)
    square = torch.randn(24, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = F.normalize(own @ torch.linalg.qr(square).Q, dim=-1)
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-4)


def test_a_folder_of_sentence_transformers_is_read_as_its_own_library_does(
    tmp_path: Path, encoder: Path
) -> None:
    """The library's own format, pooling included, gives the same rows."""
    whole = sentence_encoder(tmp_path, kind="sentence-transformers")
    found = sentence_embeddings(str(whole), NAMES, size=24, seed=0)
    torch.testing.assert_close(
        found, sentence_embeddings(str(encoder), NAMES, size=24, seed=0), atol=1e-6, rtol=0
    )


def test_no_such_encoder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a model, and a name when there is no hub: one line that says so."""
    # The library reads HF_HUB_OFFLINE when it is imported; without it, it asks the hub six times.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (str(tmp_path), "nobody/nothing"):
        with pytest.raises(ClassifierError, match="sentence_encoder = ") as refused:
            sentence_embeddings(name, NAMES, size=8, seed=0)
        assert "\n" not in str(refused.value)


def test_a_saved_classifier_comes_back(tmp_path: Path) -> None:
    """Rows, names in any script and kind are what was saved."""
    rows = random_normal(3, size=4, seed=0)
    path = tmp_path / "classifier.safetensors"
    FrozenClassifier(rows=rows, classes=("tai chi", "крик", "a, b"), kind="lda").save(path)
    found = load_classifier(path)
    assert torch.equal(found.rows, rows)
    assert (found.classes, found.kind) == (("tai chi", "крик", "a, b"), "lda")


def test_other_files_are_no_classifiers(tmp_path: Path) -> None:
    """A missing file, another format and other tensors are each one line with the path."""
    weights, text = tmp_path / "weights.safetensors", tmp_path / "text.safetensors"
    save_file({"rows": torch.zeros(2, 3)}, weights)
    text.write_text(json.dumps({}))
    nothing = tmp_path / "nothing.safetensors"
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2, 3)}, other)
    for path in (weights, text, nothing, other):
        with pytest.raises(ClassifierError, match=f"{path.name}: not a classifier") as refused:
            load_classifier(path)
        assert "\n" not in str(refused.value)
