"""The figures of one study's tables: accuracy against lengths, compute and samples."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from clipa_scaling.cells import (
    MAIN_MEASURES,
    at_the_end,
    main_measure,
    name_lines,
    summarise_cells,
)
from clipa_scaling.exclusions import tell_left_out
from clipa_scaling.figures.style import (
    INK,
    PAGE,
    SMALL,
    accuracy_axis,
    colour,
    line_style,
    log_axis,
    marker,
    new_figure,
    save_figure,
    say_title,
    styled,
    tidy,
    token_axis,
)
from clipa_scaling.pipelines import sum_pipelines
from clipa_scaling.published import has_earlier, load_earlier
from clipa_scaling.schema import label

MOST_INSIDE = 6  # lines of a legend that leaves room for the data
MOST_PANELS = 3  # side by side


@styled
def accuracy_vs_image_tokens(tables: dict[str, pd.DataFrame], title: str) -> Figure:
    """Zero-shot accuracy at the end, one line per model: against image tokens and training FLOPs.

    Where cells differ in other fields too, there is a line for each combination, which it names.
    Bars are 95 % intervals over seeds and evaluation pictures; none where a model has one seed.
    """
    cells = at_the_end(known_cells(tables))
    lines = by_size(cells)
    is_many = len(lines) > MOST_INSIDE
    figure = new_figure(PAGE, 3.0 + (0.12 * len(lines) if is_many else 0))
    left, right = figure.subplots(1, 2, sharey=True)
    for index, (name, line) in enumerate(lines):
        for axes, x in ((left, "image_tokens"), (right, "train_flops")):
            draw_line(axes, line.sort_values("image_tokens"), x, name, index)
        if not is_many:
            name_points(right, line)
    token_axis(left, cells["image_tokens"])
    points = "most tokens on the right" if is_many else f"points: {label('image_tokens').lower()}"
    log_axis(right, f"{label('train_flops')} ({points})")
    accuracy_axis(left, MAIN_MEASURES[main_measure(tables)])
    if is_many:
        handles = left.get_legend_handles_labels()
        figure.legend(
            *handles, title=label("model"), frameon=False, loc="outside lower center", ncols=2
        )
    else:
        left.legend(title=label("model"), frameon=False)
    say_title(figure, title, bars(cells), tell_left_out(tables["runs"]))
    return figure


@styled
def accuracy_vs_samples(tables: dict[str, pd.DataFrame], title: str) -> Figure:
    """Zero-shot accuracy during training, one panel per model, one line per image token count."""
    cells = known_cells(tables)
    groups = by_size(cells)
    columns = max(1, min(len(groups), MOST_PANELS))
    rows = max(1, ceil(len(groups) / columns))
    figure = new_figure(PAGE, 0.6 + 2.4 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    styles = {tokens: n for n, tokens in enumerate(sorted(cells["image_tokens"].unique()))}
    handles: dict[int, Any] = {}
    for axes, (name, own) in zip(panels.flat, groups, strict=False):
        for tokens, line in own.groupby("image_tokens"):
            line = line.sort_values("evaluated_at")
            index = styles[tokens]
            handles[index] = draw_line(axes, line, "evaluated_at", f"{tokens}", index)
        axes.set_title(name)
        axes.set_xlabel(label("samples"))
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.xaxis.set_major_locator(MaxNLocator(4))
    for axes in panels[:, 0]:
        accuracy_axis(axes, MAIN_MEASURES[main_measure(tables)])
    for axes in panels.flat[len(groups) :]:
        axes.remove()
    figure.legend(
        handles=[handles[index] for index in sorted(handles)],
        title=label("image_tokens"),
        frameon=False,
        loc="outside right center",
    )
    say_title(figure, title, bars(cells), tell_left_out(tables["runs"]))
    return figure


@styled
def cost_against_earlier(tables: dict[str, pd.DataFrame], title: str) -> Figure:
    """Accuracy against the training FLOPs of whole pipelines, beside published CLIP models.

    Those stand on the same axes only where ours was measured on ImageNet-1k; of other sets only
    costs can be compared, so there they are marks along the axis.
    """
    pipelines, earlier = sum_pipelines(tables), load_earlier()
    names, costs = earlier["model"].tolist(), earlier["train_flops"].tolist()
    done = pipelines[pipelines["accuracy"].notna() & pipelines["left_out"].isna()]
    comparable = done["accuracy_set"].astype("string").str.startswith("imagenet1k").fillna(False)
    figure = new_figure(PAGE, 3.8)
    axes = figure.subplots()
    axes.set_xscale("log")
    for index, (name, rows) in enumerate(done.groupby("model", sort=False)):
        axes.plot(
            rows["pipeline_flops"].astype(float),
            rows["accuracy"].astype(float),
            marker(index),
            color=colour(index),
            label=str(name),
        )
    if len(done) and comparable.all():
        note = "gray: published models, FLOPs in closed form"
        axes.plot(earlier["train_flops"], earlier["imagenet1k"], "o", color="0.6", markersize=4)
        for name, x, y in zip(names, costs, earlier["imagenet1k"].tolist(), strict=True):
            offset: dict[str, Any] = {"textcoords": "offset points", "xytext": (5, -3)}
            axes.annotate(name, (x, y), fontsize=SMALL, color=INK, **offset)
    else:
        note = "gray: cost of published models, whose accuracy is of another set"
        for step, (x, name) in enumerate(sorted(zip(costs, names, strict=True)), 1):
            height = 0.06 * step  # a staircase: several models have the same cost
            axes.axvline(x, ymax=height, color="0.8", linewidth=0.8)
            axes.text(
                x,
                height,
                f"{name} ",
                fontsize=SMALL,
                color=INK,
                ha="right",
                va="top",
                transform=axes.get_xaxis_transform(),
            )
    axes.set_xlabel(f"{label('train_flops')} of the whole pipeline")
    accuracy_axis(axes, label("accuracy"))
    tidy(axes)
    axes.legend(title=label("model"), frameon=False)
    say_title(figure, title, note, tell_left_out(tables["runs"]))
    return figure


def bars(cells: pd.DataFrame) -> str:
    """What the bars are, or why there are none."""
    if cells["half_width"].isna().all():
        return "one seed: no intervals"
    return "bars: 95 % intervals over seeds and evaluation pictures"


def known_cells(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The cells that have a place on an axis: imported ones may have no known length."""
    return summarise_cells(tables).dropna(subset=["image_tokens"])


def by_size(cells: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The lines from the smallest model to the largest, each with its cells."""
    names = name_lines(cells)
    sizes = cells.groupby(names, sort=False)["image_params"].max().sort_values(kind="stable")
    return [(str(name), cells[names == name]) for name in sizes.index]


def draw_line(axes: Axes, line: pd.DataFrame, x: str, name: str, index: int) -> ErrorbarContainer:
    """One line with its 95 % bars."""
    error = line["half_width"].astype(float)
    container = axes.errorbar(
        line[x].astype(float),
        line["mean"].astype(float),
        yerr=None if error.isna().all() else error,
        label=name,
        elinewidth=0.8,
        capsize=2,
        **line_style(index),
    )
    tidy(axes)
    return container


def name_points(axes: Axes, line: pd.DataFrame) -> None:
    """Write each point's image tokens beside it."""
    points = line[["image_tokens", "train_flops", "mean"]].astype(float).dropna()
    for tokens, x, y in points.to_numpy():
        axes.annotate(
            f"{tokens:g}",
            (x, y),
            textcoords="offset points",
            xytext=(6, -4),
            fontsize=SMALL,
            color=INK,
        )


def save_figures(tables: dict[str, pd.DataFrame], name: str, folder: Path) -> list[Path]:
    """Every figure that the tables allow; the paths, the main one first."""
    cells = known_cells(tables)
    if cells.empty:
        return []
    title = f"{name}: accuracy against image tokens and compute"
    drawn = {"accuracy_vs_image_tokens": accuracy_vs_image_tokens(tables, title)}
    if (cells["evaluated_at"] < cells["samples"]).any():  # evaluated during training too
        title = f"{name}: accuracy during training"
        drawn["accuracy_vs_samples"] = accuracy_vs_samples(tables, title)
    runs = tables["runs"]
    tuned = runs[(runs["kind"] == "finetune") & runs["left_out"].isna()]
    if tuned["accuracy"].notna().any() and has_earlier():
        title = f"{name}: cost of pipelines beside earlier CLIP models"
        drawn["cost_against_earlier"] = cost_against_earlier(tables, title)
    paths = []
    for stem, figure in drawn.items():
        paths.append(save_figure(figure, folder / stem))
    return paths
