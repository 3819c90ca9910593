"""Classifiers that are made before the training and stay as they are (Text4Vis, section 3.2).

Row i of such a classifier is a unit vector that stands for class i, in the space of the video
embeddings. Only rows that CLIP's text tower made can be had for any other text as well; all others
know their own classes and nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from service.videoclip.pooling import TemplateMean, text_classifier
from service.videoclip.prompts import apply
from training.errors import Refusal
from training.models.network import VideoCLIP
from training.models.towers import open_clip

ClassifierKind = Literal["clip-text", "sentences", "lda", "random-orthogonal", "random-normal"]

CLASSIFIER_FILE = "classifier.safetensors"


class ClassifierError(Refusal):
    """A classifier that cannot be made or read; names the value, the class or the file."""


@dataclass(frozen=True, eq=False)
class FrozenClassifier:
    """rows: float32 (C, D), unit length. classes: C names in words. kind: how they were made."""

    rows: Tensor
    classes: tuple[str, ...]
    kind: ClassifierKind

    def save(self, path: Path) -> None:
        """Write a safetensors file that `load_classifier` reads."""
        names = {f"class.{i}": name for i, name in enumerate(self.classes)}
        save_file({"rows": self.rows.contiguous()}, path, metadata={"kind": self.kind, **names})


def load_classifier(path: Path) -> FrozenClassifier:
    """Read what `FrozenClassifier.save` wrote. Raises ClassifierError."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata, rows = file.metadata() or {}, file.get_tensor("rows")
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ClassifierError(f"{path}: not a classifier: {reason}") from error
    kind: Any = metadata.get("kind")
    classes = tuple(metadata.get(f"class.{i}", "") for i in range(len(rows)))
    if kind not in get_args(ClassifierKind) or rows.ndim != 2 or "" in classes:
        raise ClassifierError(f"{path}: not a classifier: its kind or a class name is missing")
    return FrozenClassifier(rows=rows, classes=classes, kind=kind)


def random_normal(classes: int, *, size: int, seed: int) -> Tensor:
    """Directions that know nothing: N(0, 1) in each place. Returns float32 (classes, size)."""
    return F.normalize(torch.randn(classes, size, generator=_generator(seed)), dim=-1)


def random_orthogonal(classes: int, *, size: int, seed: int) -> Tensor:
    """The first rows of the Q of a random normal square matrix: classes at right angles.

    Returns float32 (classes, size). Raises ClassifierError when there are more classes than
    dimensions: so many right angles do not exist.
    """
    if classes > size:
        raise ClassifierError(
            f"classifier = 'random-orthogonal': {classes} classes, but at most {size} directions "
            f"are at right angles in {size} dimensions"
        )
    square = torch.randn(size, size, generator=_generator(seed), dtype=torch.float64)
    rows: Tensor = torch.linalg.qr(square).Q[:classes]
    return rows.float()


def linear_discriminants(
    embeddings: NDArray[np.float32], labels: NDArray[np.integer], *, classes: Sequence[str]
) -> Tensor:
    """Directions along which linear discriminant analysis tells the classes apart.

    embeddings: float32 (n, D), CLIP's of some videos of each class (60 in the paper), not
    normalised. labels: integer (n,), positions in `classes`. Returns float32 (C, D), unit rows: the
    coefficients of scikit-learn's LinearDiscriminantAnalysis with its defaults, without the
    intercepts. Of two classes scikit-learn gives one direction; the other class has its opposite.

    Raises ClassifierError when a class has no video, there is not more than one on average, or they
    do not differ where it matters.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    absent = sorted(set(range(len(classes))) - set(labels.tolist()))
    if absent:
        raise ClassifierError(
            f"classifier = 'lda': no video of {classes[absent[0]]!r} ({len(absent)} classes in all)"
        )
    if len(classes) < 2 or len(embeddings) <= len(classes):
        raise ClassifierError(
            f"classifier = 'lda': {len(embeddings)} videos of {len(classes)} classes; it needs two "
            "classes or more, and more videos than classes"
        )
    groups = (embeddings[labels == i] for i in range(len(classes)))
    if not any(np.ptp(group, axis=0).any() for group in groups):
        raise ClassifierError("classifier = 'lda': the videos of each class are all the same")
    with np.errstate(invalid="ignore"):  # equal class means; what comes of them is checked below
        fitted = LinearDiscriminantAnalysis().fit(embeddings.astype(np.float64), labels)
    rows: Tensor = torch.from_numpy(fitted.coef_)
    if len(classes) == 2:
        rows = torch.cat([-rows, rows])
    lengths = rows.norm(dim=-1)
    if not bool((lengths.isfinite() & (lengths > 0)).all()):
        raise ClassifierError("classifier = 'lda': the videos do not tell the classes apart")
    return F.normalize(rows, dim=-1).float()


def sentence_embeddings(encoder: str, classes: Sequence[str], *, size: int, seed: int) -> Tensor:
    """Class names as a sentence encoder understands them, brought to `size` dimensions.

    encoder: folder or hub id of a model of `sentence-transformers`, or of `transformers`
    (DistilBERT, say), whose tokens are then averaged. Returns float32 (C, size), unit rows.

    The paper does not say how DistilBERT's 768 dimensions become the tower's 512. Here a random
    matrix with orthonormal rows or columns, the same for the same seed, multiplies the unit
    vectors: all angles stay as they are if `size` is the larger, and about as they are if it is
    the smaller (Johnson & Lindenstrauss, 1984). With equal sizes nothing is done.

    Raises ClassifierError when the library is missing or there is no such model.
    """
    rows = torch.from_numpy(_encode_sentences(encoder, classes)).double()
    rows = F.normalize(rows, dim=-1)
    own = rows.shape[1]
    if own != size:
        longer, shorter = max(own, size), min(own, size)
        square = torch.randn(longer, shorter, generator=_generator(seed), dtype=torch.float64)
        tall = torch.linalg.qr(square).Q  # (longer, shorter), orthonormal columns
        rows = F.normalize(rows @ (tall if own > size else tall.T), dim=-1)
    return rows.float()


def clip_text(
    network: VideoCLIP,
    classes: Sequence[str],
    *,
    encode: Callable[[list[str]], Tensor],
    templates: Sequence[str],
    template_mean: TemplateMean = "unit",
) -> Tensor:
    """Class names in sentences, by the network's text tower as it is now.

    encode: texts -> int64 (n, L). Returns float32 (C, D): the mean over the templates of unit
    vectors, made unit again, as when the model is served, or as `template_mean` says.
    """
    device = network.logit_scale.device
    rows = []
    for name in classes:
        token_ids = encode([apply(template, name) for template in templates])
        with torch.no_grad():
            rows.append(network.encode_text(token_ids.to(device)).float().cpu().numpy())
    return torch.from_numpy(text_classifier(np.stack(rows), template_mean=template_mean))


def _encode_sentences(encoder: str, classes: Sequence[str]) -> NDArray[np.float32]:
    open_clip()  # makes torchvision importable, which transformers looks for
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ClassifierError(
            "classifier = 'sentences': sentence-transformers is missing: install the extra "
            "'sentences'"
        ) from error
    try:
        model = SentenceTransformer(encoder, device="cpu", model_kwargs={"use_safetensors": True})
    except (OSError, ValueError) as error:
        raise ClassifierError(
            f"sentence_encoder = {encoder!r}: no model in such a folder, and none of that name on "
            f"a hub that can be reached ({type(error).__name__})"
        ) from error
    rows: NDArray[np.float32] = model.encode(list(classes), show_progress_bar=False)
    return rows


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
