"""A fitted law and what it is worth: predictions, residuals, draws, profiles, silent choices."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from clipa_scaling.bootstrap import Draws
from clipa_scaling.cells import MAIN_MEASURES
from clipa_scaling.figures.style import (
    COLOURS,
    INK,
    PALE,
    accuracy_axis,
    colour,
    log_axis,
    marker,
    new_figure,
    tidy,
    token_axis,
)
from clipa_scaling.fitted import Fit
from clipa_scaling.lawform import ROLES, Floats, Law
from clipa_scaling.points import LOSS
from clipa_scaling.profile import Interval, Profile
from clipa_scaling.schema import RUNS, label
from clipa_scaling.solve import Points
from clipa_scaling.tournament import varying

RIDGE = 0.95  # rank correlation of two parameters' draws, from which they are one ridge
WARN = COLOURS[1]
SCALES = {"logit": "log odds of error", "log": "log", "raw": "error"}
ACROSS = 4  # panels of profiles
PLAIN = "converged"


def predicted_vs_actual(
    fit: Fit, models: np.ndarray, held: pd.DataFrame, title: str = ""
) -> Figure:
    """Predictions against measurements: of the fitted rows, and of rows that a fit did not see.

    models (n,): of each row. held: `rollout.predict_splits`, an open marker for each of its rows.
    """
    points = fit.points
    figure = new_figure(7.4, 3.9)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    actual, predicted = shown(points, points.y), shown(points, fit.predict(points.x))
    for index, model in enumerate(by_size(points, models)):
        own = models == model
        style = {"color": colour(index), "markersize": 4, "linestyle": "none"}
        left.plot(actual[own], predicted[own], marker(index), label=model, **style)
    for index, (split, rows) in enumerate(held.groupby("split", sort=False)):
        y = shown(points, rows["predicted"].to_numpy(float))
        style = {"color": colour(index), "markersize": 4.5, "linestyle": "none"}
        right.plot(
            actual[rows["row"].to_numpy(int)], y, marker(index), markerfacecolor="none",
            label=str(split), **style,
        )  # fmt: skip
    span = [min(actual.min(), predicted.min()), max(actual.max(), predicted.max())]
    edge = 0.05 * (span[1] - span[0])
    name = measure_name(points)
    for axes, told in ((left, "fitted rows"), (right, "held out")):
        axes.axline((span[0], span[0]), slope=1, color=INK, linewidth=0.8, label="_guide")
        measure_axis(axes, points, name)
        axes.xaxis.set_major_formatter(axes.yaxis.get_major_formatter())
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_xlabel(name)
        axes.set_xlim(span[0] - edge, span[1] + edge)
        axes.set_title(told, fontsize=9)
        tidy(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize=7, loc="upper left", handletextpad=0.2)
    left.set_ylabel(f"Predicted: {name[0].lower()}{name[1:]}")
    outside = beyond(right, span, edge)
    left.set_ylim(span[0] - edge, span[1] + edge)
    figure.suptitle("\n".join(filter(None, [heading(fit, title), outside])), fontsize=9)
    return figure


def beyond(axes: Axes, span: Sequence[float], edge: float) -> str:
    """How many predictions the axes leave out, in words; a law may say anything elsewhere."""
    values = [np.asarray(line.get_ydata(), float) for line in axes.lines[:-1]]
    if not values:
        return "nothing could be held out"
    y = np.concatenate(values)
    count = int(((y < span[0] - edge) | (y > span[1] + edge)).sum())
    return f"{count} held-out predictions lie outside of the axes" if count else ""


def residuals(fit: Fit, models: np.ndarray, title: str = "") -> Figure:
    """Residuals on the scale of the fit against each variable that varies.

    Dotted lines: where Huber's function turns from squares to sizes. models (n,): of each row.
    """
    points = fit.points
    roles = varying(points)
    figure = new_figure(0.9 + 2.5 * max(len(roles), 1), 3.4)
    panels = figure.subplots(1, max(len(roles), 1), sharey=True, squeeze=False)[0]
    groups = by_size(points, models)
    for axes, role in zip(panels, roles, strict=False):
        for index, model in enumerate(groups):
            own = models == model
            # Side by side: at one value of a variable all sizes would lie on each other.
            apart = 1 + 0.03 * (index - (len(groups) - 1) / 2) * (role != "N")
            axes.plot(
                points.x[role][own] * apart, fit.residuals[own], marker(index), label=model,
                color=colour(index), markersize=4, markerfacecolor="none",
            )  # fmt: skip
        axes.axhline(0, color=INK, linewidth=0.8)
        for level in (-fit.delta, fit.delta):
            if np.isfinite(level):
                axes.axhline(level, color=INK, linewidth=0.8, linestyle=":")
        role_axis(axes, points, role)
        tidy(axes)
    panels[0].set_ylabel(f"Law less data, {SCALES[fit.options.scale]}")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, title=label("model"), frameon=False, loc="outside right upper")
    figure.suptitle(heading(fit, title), fontsize=9)
    return figure


def pairs(draws: Draws, title: str = "") -> Figure:
    """Each pair of parameters over the bootstrap's draws, and the estimate as a cross.

    A pair whose ranks correlate at RIDGE or more is a ridge, framed: data fix a combination alone.
    """
    fit = draws.fit
    names = fit.law.names
    known = draws.params[np.isfinite(draws.params).all(axis=1)]
    ranks = pd.DataFrame(known).corr("spearman").to_numpy()
    size = max(len(names) - 1, 1)
    figure = new_figure(1.4 + 1.3 * size, 1.4 + 1.2 * size)
    grid = figure.subplots(size, size, squeeze=False)
    for row in range(size):
        for column in range(size):
            axes = grid[row, column]
            if column > row or len(names) < 2:
                axes.remove()
                continue
            draw_pair(axes, fit, known, column, row + 1, float(ranks[row + 1, column]))
            outer(axes, left=column == 0, bottom=row == size - 1)
    told = f"{len(known)} draws: {draws.told}; framed: |rank correlation| ≥ {RIDGE:g}, a ridge"
    figure.suptitle(f"{heading(fit, title)}\n{told}", fontsize=9)
    return figure


def draw_pair(axes: Axes, fit: Fit, known: Floats, x: int, y: int, rank: float) -> None:
    names, centre = fit.law.names, fit.params
    is_ridge = abs(rank) >= RIDGE
    shade = WARN if is_ridge else COLOURS[0]
    axes.plot(known[:, x], known[:, y], ".", color=shade, markersize=3, alpha=0.6, label="draws")
    axes.plot(centre[names[x]], centre[names[y]], "P", color="black", markersize=5,
              markeredgecolor="white", label="estimate")  # fmt: skip
    for axis, at in ((axes.xaxis, x), (axes.yaxis, y)):
        if fit.law.is_log[at] and known[:, at].max() > 10 * known[:, at].min() > 0:
            axis._set_axes_scale("log")
            axis.set_major_locator(LogLocator(numticks=3))
            axis.set_minor_locator(LogLocator(numticks=3))
        else:
            axis.set_major_locator(MaxNLocator(2))
    axes.set_xlabel(names[x], fontsize=8)
    axes.set_ylabel(names[y], fontsize=8)
    axes.tick_params(labelsize=7)
    told = f"ridge {rank:+.2f}" if is_ridge else f"{rank:+.2f}"
    axes.set_title(
        told, fontsize=7, pad=2, fontweight="bold" if is_ridge else "normal", loc="right"
    )
    axes.spines[:].set(color=WARN if is_ridge else PALE, linewidth=1.8 if is_ridge else 0.8)


def outer(axes: Axes, left: bool, bottom: bool) -> None:
    """Hide names and numbers inside of a grid; the CSV still has the names."""
    axes.xaxis.label.set_visible(bottom)
    axes.yaxis.label.set_visible(left)
    axes.tick_params(labelbottom=bottom, labelleft=left, which="both")


def profiles(found: Sequence[Profile], law: Law, title: str = "") -> Figure:
    """How much worse the law fits with one parameter held, and the 95 % interval where it crosses.

    An end that the data do not give has no mark, and its panel says so.
    """
    columns = min(ACROSS, max(len(found), 1))
    rows = -(-max(len(found), 1) // columns)
    figure = new_figure(2.5 * columns, 0.5 + 2.4 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    meanings = {parameter.name: parameter.meaning for parameter in law.parameters}
    is_log = dict(zip(law.names, law.is_log, strict=True))
    for axes, one in zip(panels, found, strict=False):
        draw_profile(axes, one, bool(is_log[one.name]))
        axes.set_xlabel(textwrap.fill(f"{one.name}: {meanings[one.name]}", 30), fontsize=8)
    for axes in panels[len(found) :]:
        axes.remove()
    for axes in panels[::columns]:
        axes.set_ylabel("Worse by |t|")
    figure.suptitle(f"{title}: profiles of the {law.name} law's parameters", fontsize=9)
    return figure


def draw_profile(axes: Axes, one: Profile, is_log: bool) -> None:
    interval = one.interval
    axes.plot(one.values, one.rise, color=COLOURS[0], label="profile")
    axes.axhline(one.quantile, color=INK, linewidth=0.8, linestyle="--")
    axes.plot([interval.estimate], [0], "o", color="black", markersize=4, label="estimate")
    inside = one.values.min() <= np.array([interval.low, interval.high])
    inside &= one.values.max() >= np.array([interval.low, interval.high])
    ends = np.array([interval.low, interval.high])[inside]
    axes.plot(ends, np.full(len(ends), one.quantile), "D", color=WARN, markersize=5,
              label="95 % interval")  # fmt: skip
    if is_log and one.values.min() > 0 and one.values.max() > 10 * one.values.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylim(-0.1, 1.7 * one.quantile)
    told = f"{interval.estimate:.3g} [{interval.low:.3g}, {interval.high:.3g}]"
    if interval.identified:
        axes.set_title(told, fontsize=8)
    else:
        axes.set_title(f"{told}\nnot identified", fontsize=8, color=WARN)
    axes.tick_params(labelsize=7)
    tidy(axes)


def forest(table: pd.DataFrame, intervals: Mapping[str, Interval], title: str = "") -> Figure:
    """The key parameters under each choice, a row each (`sensitivity.sensitivity`).

    Bars and the pale band: the 95 % intervals of the fit itself. Open markers did not converge.
    """
    keys = list(table.columns[3:])
    figure = new_figure(2.6 + 1.6 * len(keys), 1.3 + 0.2 * len(table))
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    places = np.arange(len(table))[::-1]
    for axes, key in zip(panels, keys, strict=True):
        values = table[key].astype(float).to_numpy()
        given = intervals.get(key)
        if given is not None and np.isfinite([given.low, given.high]).all():
            axes.axvspan(given.low, given.high, color=PALE, alpha=0.5, linewidth=0)
        for place, value, choice, status in zip(
            places, values, table["choice"], table["status"], strict=True
        ):
            if np.isfinite(value):
                face = {} if status == PLAIN else {"markerfacecolor": "white"}
                shape = "s" if place == places[0] else "o"
                axes.plot([value], [place], shape, color=COLOURS[0], markersize=5, label=choice,
                          **face)  # fmt: skip
            else:
                axes.annotate("not identified", (0.5, place), fontsize=7, color=INK, ha="center",
                              va="center", xycoords=axes.get_yaxis_transform())  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.tick_params(labelsize=7)
        axes.set_title(key, fontsize=9)
        axes.set_xlabel(key)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(places, table["choice"], fontsize=8)
    note = "band: 95 % interval as fitted; open: at bound, a ridge, or starts disagree"
    figure.suptitle(f"{title}: the same law under other choices\n{note}", fontsize=9)
    return figure


# Words and axes


def heading(fit: Fit, title: str) -> str:
    kind = "" if fit.status.kind == PLAIN else f" ({fit.status.kind})"
    return f"{title}: {fit.law.name} law{kind}" if title else f"{fit.law.name} law{kind}"


def by_size(points: Points, models: np.ndarray) -> list[str]:
    """The models, the smallest first."""
    size = points.x.get("N", np.arange(len(points)))
    return list(dict.fromkeys(models[np.argsort(size, kind="stable")].tolist()))


def shown(points: Points, y: Floats) -> Floats:
    """A loss as it is, of an error the accuracy."""
    return y if points.columns.get("y") == LOSS else 1 - y


def measure_name(points: Points) -> str:
    measure = points.columns.get("y", "accuracy")
    if measure == LOSS:
        return f"{label(LOSS)} (nats)"
    return MAIN_MEASURES.get(measure) or f"{measure} (%)"


def measure_axis(axes: Axes, points: Points, name: str) -> None:
    if points.columns.get("y") == LOSS:
        axes.set_ylabel(name)
    else:
        accuracy_axis(axes, name)


def by_value(values: Floats) -> list[tuple[float, np.ndarray]]:
    """Each value and its rows, the least first."""
    return [(value, values == value) for value in sorted(set(values.tolist()))]


def role_name(points: Points, role: str) -> str:
    column = points.columns.get(role, "")
    return label(column) if column in RUNS else f"{role} ({ROLES[role]})"


def role_axis(axes: Axes, points: Points, role: str) -> None:
    """A log axis of a variable, with its column's name; lengths are its ticks."""
    log_axis(axes, role_name(points, role))
    if role in ("T", "S") and points.columns.get(role) in RUNS:
        token_axis(axes, points.x[role], points.columns[role])
