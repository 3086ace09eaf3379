"""Every notebook runs from top to bottom on committed tables, and shows its figures."""

from __future__ import annotations

from collections.abc import Iterator

import nbformat
import pytest
from make_data import ROOT
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

# How many figures each shows.
FIGURES = {
    "1_image_tokens": 5,
    "2_text_tokens": 1,
    "3_finetuning": 1,
    "4_cost": 2,
    "5_your_sweep": 1,
}
LARGEST = 600_000  # bytes, with outputs
WIDGETS = "application/vnd.jupyter.widget-state+json"


def read(name: str) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    return notebook


def execute(notebook: NotebookNode) -> NotebookNode:
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": ROOT / "notebooks"}},
    )
    client.execute()
    return notebook


def outputs(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """Those of all cells, and those that widgets show."""
    for cell in notebook.cells:
        yield from cell.get("outputs", [])
    for item in notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {}).values():
        yield from item["state"].get("outputs", [])


def check(notebook: NotebookNode, figures: int) -> None:
    shown = [item for cell in notebook.cells for item in cell.get("outputs", [])]
    assert sum("image/png" in item.get("data", {}) for item in shown) == figures
    for item in outputs(notebook):
        assert item.get("name") != "stderr", f"a warning in a cell: {item['text']}"
        assert item["output_type"] != "error", item


def test_notebooks_are_those_that_are_tested() -> None:
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == [*FIGURES]


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_is_saved_with_its_outputs(name: str) -> None:
    saved = read(name)
    check(saved, FIGURES[name])
    assert all(cell.execution_count for cell in saved.cells if cell.cell_type == "code")
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < LARGEST


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "5_your_sweep"])
def test_a_notebook_runs_and_shows_its_figures(name: str) -> None:
    check(execute(read(name)), FIGURES[name])


@pytest.mark.slow
def test_another_study_is_one_word_in_the_notebook() -> None:
    notebook = read("1_image_tokens")
    for cell in notebook.cells:
        cell.source = cell.source.replace('SWEEP = "mini"', 'SWEEP = "emoji"')
    assert any('SWEEP = "emoji"' in cell.source for cell in notebook.cells)
    check(execute(notebook), FIGURES["1_image_tokens"])


def test_widgets_choose_what_the_plain_call_shows() -> None:
    notebook = read("5_your_sweep")
    notebook.cells.append(new_code_cell('law.value = "loglinear"\nstudy.value = "emoji"'))
    notebook.cells.append(new_code_cell("print(*model.options, sep=', ')"))
    execute(notebook)
    check(notebook, FIGURES["5_your_sweep"])
    assert notebook.cells[-1].outputs[0]["text"].strip() == "all models, T32/16, T64/16"
    state = notebook.metadata["widgets"][WIDGETS]["state"].values()
    views = [item["state"]["outputs"] for item in state if "outputs" in item["state"]]
    [shown] = [view for view in views if view]
    assert any("image/png" in item.get("data", {}) for item in shown)
    assert "the loglinear form" in "".join(item.get("text", "") for item in shown)
