"""Execute notebooks in place, each from its own folder: python tools/run_notebooks.py PATH…"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

CELL_SECONDS = 600


def run_notebook(path: Path) -> None:
    """Execute one notebook and write its outputs back; CellExecutionError when a cell fails."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        # Times of day would make every execution a change to commit.
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    nbformat.write(notebook, path)


def main(names: list[str]) -> int:
    """0, or 1 at the first cell that fails; its notebook stays on disk as it was."""
    for name in names:
        print(name, flush=True)
        try:
            run_notebook(Path(name))
        except CellExecutionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
