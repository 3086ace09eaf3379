"""A fitted law and what it is worth: predictions, residuals, draws, profiles, silent choices."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from clipa_scaling.bootstrap import Draws
from clipa_scaling.figures.fitaxes import (
    PLAIN,
    by_size,
    heading,
    measure_axis,
    measure_name,
    role_axis,
    shown,
)
from clipa_scaling.figures.style import (
    COLOURS,
    INK,
    PALE,
    colour,
    marker,
    new_figure,
    tidy,
)
from clipa_scaling.fitted import Fit
from clipa_scaling.lawform import Floats, Law
from clipa_scaling.profile import Interval, Profile
from clipa_scaling.schema import RUNS, label
from clipa_scaling.tournament import varying

RIDGE = 0.95  # rank correlation of two parameters' draws, from which they are one ridge
WARN = COLOURS[1]
SCALES = {"logit": "log odds of error", "log": "log", "raw": "error"}
ACROSS = 4  # panels of profiles
APART = 0.06  # inches
NEAR = 0.3  # of the data's span
OFF = 0.1  # of the quantile


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
        style: dict[str, Any] = {"color": colour(index), "markersize": 4, "linestyle": "none"}
        left.plot(actual[own], predicted[own], marker(index), label=model, **style)
    for index, (split, rows) in enumerate(held.groupby("split", sort=False)):
        y = shown(points, rows["predicted"].to_numpy(float))
        style = {"color": colour(index), "markersize": 4.5, "linestyle": "none"}
        right.plot(
            actual[rows["row"].to_numpy(int)], y, marker(index), markerfacecolor="none",
            label=str(split), **style,
        )  # fmt: skip
    told = shown(points, held["predicted"].to_numpy(float))
    room = NEAR * np.ptp(actual)  # what a law says far away would squeeze all others
    near = told[(told > actual.min() - room) & (told < actual.max() + room)]
    every = np.concatenate([actual, predicted, near])
    span = [every.min(), every.max()]
    edge = 0.05 * (span[1] - span[0])
    name = measure_name(points)
    for axes, said in ((left, "fitted rows"), (right, "held out")):
        axes.axline((span[0], span[0]), slope=1, color=INK, linewidth=0.8, label="_guide")
        measure_axis(axes, points, name)
        axes.xaxis.set_major_formatter(axes.yaxis.get_major_formatter())
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_xlabel(name)
        axes.set_xlim(span[0] - edge, span[1] + edge)
        axes.set_title(said, fontsize=9)
        tidy(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize=7, loc="upper left", handletextpad=0.2)
        axes.set_ylabel(f"Predicted: {name[0].lower()}{name[1:]}")
        axes.yaxis.label.set_visible(axes is left)
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
    return f"held-out predictions outside of the axes: {count}" if count else ""


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
        axes.margins(x=0.1)
        for index, model in enumerate(groups):
            own = models == model
            # Side by side: at one value of a variable all sizes would lie on each other.
            aside = APART * (index - (len(groups) - 1) / 2) * (role != "N")
            place = axes.transData + ScaledTranslation(aside, 0, figure.dpi_scale_trans)
            [line] = axes.plot(
                points.x[role][own], fit.residuals[own], marker(index), label=model,
                color=colour(index), markersize=4, markerfacecolor="none",
            )  # fmt: skip
            line.set_transform(place)
        axes.axhline(0, color=INK, linewidth=0.8)
        for level in (-fit.delta, fit.delta):
            if np.isfinite(level):
                axes.axhline(level, color=INK, linewidth=0.8, linestyle=":")
        role_axis(axes, points, role)
        tidy(axes)
    weighted = "" if points.noise is None else "\nover relative noise"
    panels[0].set_ylabel(f"Law less data, {SCALES[fit.options.scale]}{weighted}", fontsize=9)
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
    axes.plot(centre[names[x]], centre[names[y]], "P", color="black", markersize=8,
              markeredgecolor="white", label="estimate")  # fmt: skip
    sides: tuple[tuple[Axis, Callable[[str], None], int], ...] = (
        (axes.xaxis, axes.set_xscale, x),
        (axes.yaxis, axes.set_yscale, y),
    )
    for axis, set_scale, at in sides:
        if fit.law.is_log[at] and known[:, at].max() > 10 * known[:, at].min() > 0:
            set_scale("log")
            axis.set_major_locator(LogLocator(numticks=3))
            axis.set_minor_locator(NullLocator())
        else:
            axis.set_major_locator(MaxNLocator(2))
    axes.set_xlabel(names[x], fontsize=8)
    axes.set_ylabel(names[y], fontsize=8)
    axes.tick_params(labelsize=7)
    number = f"{rank:+.2f}".replace("-", "−")
    told = f"ridge {number}" if is_ridge else number
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
    both = np.array([interval.low, interval.high])
    seen = (one.values.min() <= both) & (both <= one.values.max())
    ends = both[np.isfinite(both) & (seen | interval.identified)]
    axes.plot(ends, np.full(len(ends), one.quantile), "D", color=WARN, markersize=5,
              label="95 % interval")  # fmt: skip
    if is_log and one.values.min() > 0 and one.values.max() > 10 * one.values.min():
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        if one.values.max() < 1000 * one.values.min():
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylim(-0.1, 1.7 * one.quantile)
    told = f"{interval.estimate:.3g} [{interval.low:.3g}, {interval.high:.3g}]".replace("-", "−")
    doubt = "" if interval.identified else "not identified"
    if not doubt and are_off(one, ends):
        doubt = "an end lies off the profile"
    axes.set_title(f"{told}\n{doubt}" if doubt else told, fontsize=8, color=WARN if doubt else "k")
    axes.tick_params(labelsize=7)
    tidy(axes)


def are_off(one: Profile, ends: Floats) -> bool:
    """Whether the profile is not at the quantile where an interval ends: one search went astray."""
    known = np.isfinite(one.rise)
    at = np.interp(ends, one.values[known], one.rise[known])
    return bool((np.abs(at - one.quantile) > OFF * one.quantile).any())


def forest(table: pd.DataFrame, intervals: Mapping[str, Interval], title: str = "") -> Figure:
    """The key parameters under each choice, a row each (`sensitivity.sensitivity`).

    Bars and the pale band: the 95 % intervals of the fit itself. Open markers did not converge.
    """
    keys = list(table.columns[3:])
    figure = new_figure(2.4 + 1.4 * max(len(keys), 2), 1.3 + 0.2 * len(table))
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    places = np.arange(len(table))[::-1]
    choices = [tell_choice(str(choice)) for choice in table["choice"]]
    for axes, key in zip(panels, keys, strict=True):
        values = table[key].astype(float).to_numpy()
        given = intervals.get(key)
        if given is not None and np.isfinite([given.low, given.high]).all():
            axes.axvspan(given.low, given.high, color=PALE, alpha=0.5, linewidth=0)
        for place, value, choice, status in zip(
            places, values, choices, table["status"], strict=True
        ):
            if np.isfinite(value):
                face = {} if status == PLAIN else {"markerfacecolor": "white"}
                shape = "s" if place == places[0] else "o"
                axes.plot([value], [place], shape, color=COLOURS[0], markersize=5, label=choice,
                          **face)  # fmt: skip
            else:
                axes.annotate("not identified", (0.5, place), fontsize=7, color=INK, ha="center",
                              va="center", xycoords=axes.get_yaxis_transform())  # fmt: skip
        axes.margins(x=0.1)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.tick_params(labelsize=7)
        axes.set_xlabel(key)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(places, choices, fontsize=8)
    panels[0].set_ylim(-0.7, len(table) - 0.3)
    note = "band: 95 % interval as fitted; open: at bound, a ridge, or starts disagree"
    figure.suptitle(f"{title}: the same law under other choices\n{note}", fontsize=9)
    return figure


def tell_choice(choice: str) -> str:
    """A count of parameters by its label, as `N = Parameters`."""
    head, _, column = choice.partition(" = ")
    return f"{head} = {label(column)}" if column in RUNS else choice
