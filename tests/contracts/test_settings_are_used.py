"""A setting that nothing reads is a promise that is not kept."""

import ast

from service.settings import Settings
from tests.conftest import REPOSITORY
from tests.contracts.test_layout import python_files


def test_every_setting_is_read_by_the_service() -> None:
    """Each field of Settings is read as `settings.<field>` in service/ outside settings.py."""
    own = REPOSITORY / "service" / "settings.py"
    read = {
        node.attr
        for path in python_files("service")
        if path != own
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value).rpartition(".")[2] in ("settings", "_settings")
    }
    assert sorted(set(Settings.model_fields) - read) == []
