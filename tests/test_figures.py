"""Figures show the tables' numbers: the same x as the sweep file, the same y as the cells."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_data import ROOT
from matplotlib.container import Container, ErrorbarContainer
from matplotlib.text import Text
from PIL import Image

from clipa_scaling import figures, schema
from clipa_scaling.cells import at_the_end, summarise_cells
from clipa_scaling.collect import make_table
from clipa_scaling.figures.style import PAGE, SMALL

TOKENS, MODELS, POINTS = [4, 9, 36], ["T32/8", "T64/8"], [512, 1024]


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """Two models, three lengths, two seeds, two evaluations; accuracies from a formula."""
    runs, evals = [], []
    for size, model in enumerate(MODELS):
        for tokens in TOKENS:
            for seed in (0, 1):
                run = f"{model}-{tokens}-{seed}"
                spec = {"model": model, "image_tokens": tokens, "seed": seed, "samples": POINTS[-1]}
                cost = {"image_params": 1000 * (2 - size), "train_flops": 1e9 * tokens * (1 + size)}
                runs.append({"run": run, "state": "done", **spec, **cost})
                for samples in POINTS:
                    value = 0.1 + 0.01 * tokens * samples / 1024 + 0.02 * seed + 0.1 * size
                    row = {"run": run, "samples": samples, "set": "s", "protocol": "common"}
                    evals.append({**row, "name": "accuracy", "value": value, "n": 500})
    return {"runs": make_table(runs, schema.RUNS), "evals": make_table(evals, schema.EVALS)}


def drawn(container: Container) -> tuple[list[float], list[float], list[float]]:
    """x, y and half the bars' lengths of a line."""
    assert isinstance(container, ErrorbarContainer)
    line, _, [bars] = container
    ends = [segment[:, 1] for segment in bars.get_segments()]
    x, y = line.get_data()
    return list(x), list(y), [float(high - low) / 2 for low, high in ends]


def test_accuracy_is_drawn_against_the_sweeps_tokens_and_against_flops(
    tables: dict[str, pd.DataFrame],
) -> None:
    figure = figures.accuracy_vs_image_tokens(tables, "title")
    left, right = figure.axes
    cells = at_the_end(summarise_cells(tables)).set_index(["model", "image_tokens"])
    # Smallest first by image parameters, which here are the other way round.
    assert [container.get_label() for container in left.containers] == ["T64/8", "T32/8"]
    for container, model in zip(left.containers, reversed(MODELS), strict=True):
        x, y, half = drawn(container)
        assert x == TOKENS and list(left.get_xticks()) == TOKENS
        assert y == cells.loc[model]["mean"].tolist()
        assert half == pytest.approx(cells.loc[model]["half_width"].tolist())
    for container, model in zip(right.containers, reversed(MODELS), strict=True):
        x, y, _ = drawn(container)
        assert x == cells.loc[model]["train_flops"].tolist()
        assert y == cells.loc[model]["mean"].tolist()
    assert left.get_xlabel() == "Image tokens" and right.get_xlabel().startswith("Training FLOPs")
    assert left.get_ylabel() == "Zero-shot accuracy (%)"


def test_accuracy_during_training_has_a_panel_per_model_and_a_line_per_length(
    tables: dict[str, pd.DataFrame],
) -> None:
    figure = figures.accuracy_vs_samples(tables, "title")
    assert [axes.get_title() for axes in figure.axes] == ["T64/8", "T32/8"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["4", "9", "36"]
    for axes in figure.axes:
        assert [container.get_label() for container in axes.containers] == ["4", "9", "36"]
        assert drawn(axes.containers[0])[0] == POINTS


def test_a_length_keeps_its_colour_where_another_is_missing(
    tables: dict[str, pd.DataFrame],
) -> None:
    runs = tables["runs"]
    shorter = runs[~((runs["model"] == "T64/8") & runs["image_tokens"].isin([4, 36]))]
    figure = figures.accuracy_vs_samples({**tables, "runs": shorter}, "title")
    first, second = figure.axes
    assert [container.get_label() for container in first.containers] == ["9"]
    colours = {c.get_label(): c[0].get_color() for c in second.containers}
    assert first.containers[0][0].get_color() == colours["9"] != colours["4"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["4", "9", "36"]


def test_cells_that_differ_in_more_are_lines_of_their_own(tables: dict[str, pd.DataFrame]) -> None:
    other = {name: table.copy() for name, table in tables.items()}
    other["runs"]["run"] += "-fast"
    other["runs"]["lr"] = 2e-3
    other["evals"]["run"] += "-fast"
    slow = {**tables, "runs": tables["runs"].assign(lr=1e-3)}
    both = {name: pd.concat([slow[name], other[name]]) for name in tables}
    figure = figures.accuracy_vs_image_tokens(both, "title")
    names = [str(container.get_label()) for container in figure.axes[0].containers]
    assert sorted(names) == [
        "T32/8, lr=0.001",
        "T32/8, lr=0.002",
        "T64/8, lr=0.001",
        "T64/8, lr=0.002",
    ]
    assert all(drawn(container)[0] == TOKENS for container in figure.axes[0].containers)


def test_one_seed_has_no_bars(tables: dict[str, pd.DataFrame]) -> None:
    alone = {**tables, "runs": tables["runs"][tables["runs"]["seed"] == 0]}
    figure = figures.accuracy_vs_image_tokens(alone, "title")
    assert all(len(container[2]) == 0 for container in figure.axes[0].containers)
    assert figure.get_suptitle().endswith("one seed: no intervals")


def test_close_accuracies_have_ticks_that_differ(tables: dict[str, pd.DataFrame]) -> None:
    evals = tables["evals"].assign(value=0.317 + 0.001 * (tables["evals"].index % 7))
    figure = figures.accuracy_vs_image_tokens({**tables, "evals": evals}, "title")
    figure.draw_without_rendering()
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert len(set(names)) == len(names) > 2


def test_a_study_of_retrieval_alone_shows_retrieval(tables: dict[str, pd.DataFrame]) -> None:
    evals = tables["evals"].assign(name="text_to_image_r1")
    figure = figures.accuracy_vs_image_tokens({**tables, "evals": evals}, "title")
    assert figure.axes[0].get_ylabel() == "Text-to-image retrieval R@1 (%)"
    assert len(figure.axes[0].containers) == 2


def test_the_same_tables_give_the_same_bytes(
    tables: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    first = figures.save_figures(tables, "x", tmp_path / "a")
    again = figures.save_figures(tables, "x", tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    for path in first:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[1] > 800 and (pixels < 250).mean() > 0.01, "not an empty page"


def test_many_models_stay_on_a_page_with_readable_letters(tables: dict[str, pd.DataFrame]) -> None:
    """Four models in two rows of panels; eight lines, whose legend stands below."""
    names = ("runs", "evals")
    copies = [
        {name: tables[name].assign(run=tables[name]["run"] + f"-{lr}") for name in names}
        for lr in range(4)
    ]
    for lr, copy in enumerate(copies):
        copy["runs"]["lr"] = 1e-3 * (lr + 1)
    many = {name: pd.concat([copy[name] for copy in copies]) for name in names}
    for draw in (figures.accuracy_vs_image_tokens, figures.accuracy_vs_samples):
        figure = draw(many, "a title that is long enough to be cut " * 5)
        figure.draw_without_rendering()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert box is not None and width == PAGE
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= -0.01
        for text in figure.findobj(Text):
            assert isinstance(text, Text) and float(text.get_fontsize()) >= SMALL
    assert len(figure.axes) == 8 and [axes.get_ylabel() != "" for axes in figure.axes[:4]] == [
        True, False, False, True,
    ]  # fmt: skip


def test_nothing_done_draws_nothing(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    runs = tables["runs"].assign(state="planned").astype({"state": "string"})
    assert figures.save_figures({**tables, "runs": runs}, "x", tmp_path) == []


def test_committed_tables_draw_their_figures_again(tmp_path: Path, small_study: Path) -> None:
    results = small_study.parent / "results" / "small"
    before = {path.name: path.read_bytes() for path in (results / "figures").iterdir()}
    command = [sys.executable, "-m", "clipa_scaling.figures", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (results / "figures").iterdir()} == before
    done = subprocess.run([*command[:-1], str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "no such table; make it with" in done.stderr
