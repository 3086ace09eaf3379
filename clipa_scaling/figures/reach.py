"""How far laws reach beyond their runs, and which runs make the best use of their compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from clipa_scaling.figures.fitaxes import (
    by_value,
    measure_axis,
    measure_name,
    role_name,
    shown,
)
from clipa_scaling.figures.style import (
    INK,
    colour,
    log_axis,
    marker,
    new_figure,
    tidy,
)
from clipa_scaling.points import LOSS
from clipa_scaling.rollout import BASELINES
from clipa_scaling.solve import Points
from clipa_scaling.tournament import varying

WORST = 1.0  # the largest error of a fraction; what a law says beyond it is no prediction
ACROSS = 4
GRAYS = ("0.25", "0.6")
BASELINE_MARKS = ("_", "x")


def rollout_errors(table: pd.DataFrame, points: Points, title: str = "") -> Figure:
    """Errors of held-out rows against how far those lie beyond the rest, a panel for each form.

    table: `rollout.rollout`. Gray marks: the baselines, which know no law. Forms stand from the
    least median error to the largest.
    """
    known = table[table["error"].notna()]
    splits = list(dict.fromkeys(known["split"]))
    order = known.groupby("form")["error"].median().sort_values(kind="stable").index
    forms = [name for name in order if name not in BASELINES]
    columns = min(ACROSS, max(len(forms), 1))
    rows = -(-max(len(forms), 1) // columns)
    figure = new_figure(2.0 * columns + 1.8, 0.8 + 2.1 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for at, (axes, form) in enumerate(zip(panels, forms, strict=False)):
        draw_errors(axes, known, form, splits)
        axes.set_title(form, fontsize=9)
        error_axis(axes, known, points)
        axes.yaxis.label.set_visible(at % columns == 0)
        axes.xaxis.label.set_visible(at + columns >= len(forms))
        axes.tick_params(labelbottom=at + columns >= len(forms))
    for axes in panels[len(forms) :]:
        axes.remove()
    lines = {
        str(line.get_label()): line for axes in panels[: len(forms)] for line in axes.get_lines()
    }
    names = [name for name in (*BASELINES, *splits) if name in lines]
    handles = [lines[name] for name in names]
    figure.legend(handles, names, frameon=False, fontsize=8, loc="outside right upper")
    figure.suptitle(f"{title}: errors of held-out runs", fontsize=9)
    return figure


def draw_errors(axes: Axes, known: pd.DataFrame, form: str, splits: Sequence[str]) -> None:
    for name, shade, shape in zip(BASELINES, GRAYS, BASELINE_MARKS, strict=True):
        rows = known[known["form"] == name]
        axes.plot(rows["factor"], rows["error"], shape, color=shade, markersize=8, label=name,
                  markeredgewidth=1.4)  # fmt: skip
    rows = known[known["form"] == form]
    for split, factor, error in zip(rows["split"], rows["factor"], rows["error"], strict=True):
        index = splits.index(split)
        axes.plot([factor], [error], marker(index), color=colour(index), markersize=6, label=split)
        if error > WORST:
            axes.annotate("above ↑", (factor, 0.97), fontsize=7, ha="center", va="top", color=INK,
                          xycoords=axes.get_xaxis_transform())  # fmt: skip


def error_axis(axes: Axes, known: pd.DataFrame, points: Points) -> None:
    """Logs both ways; errors in points of the measure, or nats."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    is_loss = points.columns.get("y") == LOSS
    inside = known["error"] if is_loss else known["error"][known["error"] <= WORST]
    axes.set_ylim(0.8 * inside.min(), 1.6 * inside.max())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("Mean error (nats)" if is_loss else "Mean error (points)", fontsize=8)
    if not is_loss:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    factors = known["factor"]
    low, high = float(factors.min()), float(factors.max())
    axes.set_xlim(low / 1.15, high * 1.15)
    ticks = [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50) if low / 1.15 <= tick <= high * 1.15]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
    axes.set_xlabel("Beyond the fitted runs", fontsize=8)
    tidy(axes)


def find_frontier(points: Points) -> pd.DataFrame:
    """Cells, the mean of runs alike in all variables, with those that no cheaper one equals.

    Columns: `y`, `C`, the roles that vary, `best`, and `edge`: the roles at an end of the grid,
    with `+` at the largest value and `-` at the least; an optimum there may lie beyond.
    """
    roles = varying(points)
    table = pd.DataFrame({role: points.x[role] for role in (*roles, "C")})
    keys = [np.log(table[role]).round(6) for role in (*roles, "C")]
    table = table.assign(y=points.y).groupby(keys, sort=False).mean().reset_index(drop=True)
    table = table.sort_values(["C", "y"], kind="stable", ignore_index=True)
    before = np.minimum.accumulate(np.concatenate([[np.inf], table["y"].to_numpy()[:-1]]))
    ends = {role: (table[role].min(), table[role].max()) for role in roles}
    edges = [
        " ".join(
            f"{role}{'+' if row[role] == high else '-'}"
            for role, (low, high) in ends.items()
            if row[role] in (low, high)
        )
        for _, row in table.iterrows()
    ]
    return table.assign(best=table["y"].to_numpy() < before, edge=edges)


def frontier(points: Points, title: str = "") -> Figure:
    """The measure against compute, every cell, and the best at each compute, coloured by tokens.

    Filled: best; under it, which variables stand at an end of the grid.
    """
    cells = find_frontier(points)
    role = next((role for role in ("T", "S", "N", "D") if role in varying(points)), "C")
    figure = new_figure(7.2, 4.2)
    axes = figure.subplots()
    y = shown(points, cells["y"].to_numpy())
    is_best = cells["best"].to_numpy()
    x = cells["C"].to_numpy()
    axes.step(x[is_best], y[is_best], where="post", color=INK, linewidth=1)
    for index, (value, own) in enumerate(by_value(cells[role].to_numpy())):
        style: dict[str, Any] = {
            "color": colour(index),
            "linestyle": "none",
            "marker": marker(index),
        }
        rest, best = own & ~is_best, own & is_best
        axes.plot(x[rest], y[rest], markerfacecolor="none", markersize=4, alpha=0.7,
                  label=f"{value:g}", **style)  # fmt: skip
        axes.plot(x[best], y[best], markersize=7, label=f"{value:g}, best", **style)
    for edge, at, height in zip(cells["edge"][is_best], x[is_best], y[is_best], strict=True):
        axes.annotate(edge.replace("-", "−"), (at, height), fontsize=7, color=INK, ha="right",
                      xytext=(-6, 3), textcoords="offset points")  # fmt: skip
    axes.margins(x=0.1)
    log_axis(axes, role_name(points, "C"))
    measure_axis(axes, points, measure_name(points))
    tidy(axes)
    name = role_name(points, role)
    figure.legend(title=name, frameon=False, fontsize=8, loc="outside right upper")
    note = "filled: no cheaper cell is as good; − and +: on the grid's edge, least and largest"
    figure.suptitle(f"{title}: the best use of compute\n{note}", fontsize=9)
    return figure
