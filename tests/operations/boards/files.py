"""The boards as the files that Grafana is given."""

import json
from collections.abc import Mapping
from typing import Final

from tests.conftest import REPOSITORY
from tests.operations.boards.cache import CACHE
from tests.operations.boards.devices import DEVICES
from tests.operations.boards.errors import ERRORS
from tests.operations.boards.overview import OVERVIEW
from tests.operations.boards.pipeline import PIPELINE
from tests.operations.boards.search import SEARCH

FOLDER: Final = REPOSITORY / "deploy" / "grafana" / "dashboards"
BOARDS: Final = (OVERVIEW, PIPELINE, DEVICES, CACHE, SEARCH, ERRORS)


def files() -> Mapping[str, str]:
    """Return name -> text of each file."""
    return {
        f"{board.name}.json": json.dumps(board.json(), indent=1, ensure_ascii=False) + "\n"
        for board in BOARDS
    }
