"""No file that is read can run code: nothing is unpickled, TorchScript is read in named places."""

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import REPOSITORY
from tests.contracts.test_layout import python_files, relative

UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# A TorchScript archive is a program. The service runs the served artefact's, when its operator
# chose that runtime; training compares the archive that it has just written.
TORCHSCRIPT_READERS = {"service/encode/torchscript.py", "training/graphs.py"}


def findings(source: str, *, reads_torchscript: bool, reads_checkpoints: bool) -> Iterator[str]:
    """What in the source could run code out of a file: line and rule."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in UNPICKLERS:
                    yield f"{line}: imports {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.partition(".")[0] in UNPICKLERS:
                yield f"{line}: imports from {module}"
            if module in ("torch", "torch.jit") and any(a.name == "load" for a in node.names):
                yield f"{line}: hides {module}.load behind another name"
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield f"{node.value.lineno}: allow_pickle"
        elif isinstance(node, ast.Attribute):
            if ast.unparse(node).endswith("jit.load") and not reads_torchscript:
                yield f"{line}: jit.load"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":  # noqa: SIM102
            if not (reads_checkpoints and is_weights_only(node)):
                yield f"{line}: torch.load"


def is_weights_only(call: ast.Call) -> bool:
    """Whether the call says weights_only=True in so many words."""
    return any(
        keyword.arg == "weights_only"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is True
        for keyword in call.keywords
    )


def test_no_file_that_is_read_can_run_code() -> None:
    """No pickle anywhere, `torch.load` only with weights_only=True and never in the service."""
    found = [
        f"{relative(path)}:{finding}"
        for path in python_files("service", "training")
        for finding in findings(
            path.read_text(encoding="utf-8"),
            reads_torchscript=relative(path) in TORCHSCRIPT_READERS,
            reads_checkpoints=path.is_relative_to(REPOSITORY / "training"),
        )
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.memory",
        "from torch import load",
        "from torch.jit import load as f",
        "f = torch.jit.load",
        "numpy.load(p, allow_pickle=True)",
        "numpy.load(p, allow_pickle=x)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
    ],
)
def test_the_rule_finds_what_it_forbids(source: str) -> None:
    """Each forbidden spelling is found, so that an empty list above means something."""
    assert list(findings(source, reads_torchscript=False, reads_checkpoints=True)) != []


def test_the_rule_lets_the_allowed_pass() -> None:
    """Weights-only checkpoints in training, plain arrays, and TorchScript where it is named."""
    for source in ("torch.load(p, weights_only=True)", "numpy.load(p, allow_pickle=False)"):
        assert list(findings(source, reads_torchscript=False, reads_checkpoints=True)) == []
    assert list(findings("torch.jit.load(p)", reads_torchscript=True, reads_checkpoints=True)) == []
