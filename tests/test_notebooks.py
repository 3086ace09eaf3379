"""Every notebook runs from top to bottom on committed tables, and shows its figures."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from make_data import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert [path.name for path in NOTEBOOKS] == ["1_inverse_scaling.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("sweep", ["mini", "emoji"])
def test_a_notebook_runs_and_shows_its_figures(path: Path, sweep: str) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('SWEEP = "mini"', f'SWEEP = "{sweep}"')
    assert f'SWEEP = "{sweep}"' in "".join(cell.source for cell in notebook.cells)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    )
    client.execute()
    outputs = [item for cell in notebook.cells for item in cell.get("outputs", [])]
    assert sum("image/png" in item.get("data", {}) for item in outputs) == 2
    assert not [item for item in outputs if item.get("name") == "stderr"], "warnings in a cell"
