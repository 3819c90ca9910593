"""`make dashboards`: write the boards to deploy/grafana/dashboards."""

from tests.operations.boards.files import FOLDER, files

if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text)
