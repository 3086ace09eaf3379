"""A verdict's figures: m and gain over sizes and lengths, tolerated lengths, slopes by path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from clipa_scaling.compared import Compared
from clipa_scaling.figures.style import (
    INK,
    PAGE,
    PALE,
    SMALL,
    colour,
    dashes,
    marker,
    new_figure,
    save_figure,
    styled,
    tidy,
)
from clipa_scaling.inverse import judge_study
from clipa_scaling.schema import label
from clipa_scaling.show import si
from clipa_scaling.verdict import Verdict

MOST_PANELS = 5  # of sample counts, the largest ones
LARGEST_M = 8.0  # where the colours of m, and of the gain either way, end
COLOUR_TICKS = (0.125, 0.25, 0.5, 1, 2, 4, 8)
M, GAIN = "m: samples needed", "G: compute saved"
MAPS = {"m": (M, "cividis", ""), "gain": (GAIN, "PuOr", "gain_")}  # `bound`, `low`, `high` of each


@styled
def multiplier_maps(verdict: Verdict) -> Figure:
    """m (above) and the gain in compute (below) over sizes and lengths, a column a sample count.

    `>` and `<` mark bounds; bold: the 95 % interval leaves out 1. G > 1: the short length
    is the cheaper way to its accuracy.
    """
    table, compared = verdict.multipliers, verdict.compared
    counts = sorted(table["samples"].unique())[-MOST_PANELS:]
    models = list(dict.fromkeys(table.sort_values(compared.size)["model"]))
    lengths = sorted(table[compared.length].unique(), reverse=True)
    width = 1.3 + len(counts) * max(1.6, 0.55 * len(lengths))
    figure = new_figure(min(width, PAGE), 1.3 + 2 * max(1.1, 0.42 * len(models)))
    panels = figure.subplots(2, len(counts), sharex=True, sharey=True, squeeze=False)
    for row, (column, (name, colours, prefix)) in zip(panels, MAPS.items(), strict=True):
        least = 1 if column == "m" else 1 / LARGEST_M
        norm = LogNorm(least, LARGEST_M)
        for axes, samples in zip(row, counts, strict=True):
            own = table[table["samples"] == samples].set_index(["model", compared.length])
            own["is_sure"] = (own[f"{prefix}low"] > 1) | (own[f"{prefix}high"] < 1)
            values, bounds, is_sure = (
                own[wanted].unstack(fill_value=fill).reindex(index=models, columns=lengths)
                for wanted, fill in ((column, np.nan), (f"{prefix}bound", ""), ("is_sure", False))
            )
            draw_map(axes, values, bounds.fillna(""), is_sure, norm, colours, name)
            axes.set_title(f"{si(float(samples))} samples")
        bar = figure.colorbar(row[-1].collections[0], ax=row.tolist(), extend="both", aspect=12)
        ticks = [tick for tick in COLOUR_TICKS if tick >= least]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks], fontsize=SMALL)
        bar.ax.minorticks_off()
        bar.set_label(name)
    for axes in panels[-1]:
        axes.set_xlabel(label(compared.length))
    return figure


def draw_map(
    axes: Axes,
    values: pd.DataFrame,
    bounds: pd.DataFrame,
    is_sure: pd.DataFrame,
    norm: Normalize,
    colours: str,
    name: str,
) -> None:
    """One map with its numbers written in; a bound has no colour, since it is no value."""
    numbers = values.to_numpy(float)
    mesh = axes.pcolormesh(np.ma.masked_invalid(numbers), norm=norm, cmap=colours, label=name)
    axes.set_facecolor("0.93")
    axes.set_xticks(np.arange(numbers.shape[1]) + 0.5, [str(item) for item in values.columns])
    axes.set_yticks(np.arange(numbers.shape[0]) + 0.5, [str(item) for item in values.index])
    axes.tick_params(length=0, labelsize=8)
    signs, sure = bounds.to_numpy(str), (is_sure == 1).to_numpy(bool)  # not 1: no such cell
    for (row, column), value in np.ndenumerate(numbers):
        if np.isnan(value):
            continue
        red, green, blue, _ = mesh.cmap(norm(value))
        is_dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
        if signs[row, column]:
            axes.add_patch(
                Rectangle((column, row), 1, 1, facecolor="0.93", edgecolor=PALE, hatch="///", lw=0)
            )
            is_dark = False
        axes.text(
            column + 0.5, row + 0.5, f"{signs[row, column]}{value:.2g}", ha="center", va="center",
            fontsize=SMALL, color="white" if is_dark else "black",
            fontweight="bold" if sure[row, column] else "normal",
        )  # fmt: skip


@styled
def tolerated_lengths(verdict: Verdict) -> Figure:
    """T_e against N, a panel a path and a line a sample count; open markers are bounds.

    The dashed line falls with N to the power of nu, its band with the ends of nu's interval; both
    go through the mean of the points, since a path has an intercept for each sample count.
    """
    table, compared = verdict.tolerated, verdict.compared
    paths = list(dict.fromkeys(table["path"]))
    figure = new_figure(min(PAGE, 1 + 3.3 * max(1, len(paths))), 4)
    panels = figure.subplots(1, max(1, len(paths)), sharey=True, squeeze=False)[0]
    for axes, path in zip(panels, paths, strict=False):
        own = table[table["path"] == path]
        counts = sorted(own["samples"].unique()) if path == paths[0] else [0]
        for index, samples in enumerate(counts):
            line = own[own["samples"] == samples] if len(counts) > 1 or samples else own
            name = f"{si(float(samples))}" if samples else "each at its own samples"
            draw_tolerated(axes, line.sort_values("size"), index, name, joined=bool(samples))
        nu = verdict.nu[verdict.nu["path"] == path]
        told = draw_exponent(axes, own, nu.iloc[0].to_dict()) if len(nu) else "no exponent"
        size_axis(axes, compared)
        axes.set_yscale("log")
        axes.set_title(f"{path}\n{told}")
        axes.legend(
            frameon=False, title="samples", loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2
        )
        tidy(axes)
    tokens = sorted(set(compared.runs["length"]) | set(compared.full.values()))
    panels[0].set_yticks(tokens, [str(count) for count in tokens])
    panels[0].minorticks_off()
    panels[0].set_ylabel(
        f"Fewest {label(compared.length).lower()} with m ≤ {1 + verdict.epsilon:g}"
    )
    return figure


def size_axis(axes: Axes, compared: Compared) -> None:
    """A log axis whose ticks are the sizes of the study, with their names."""
    sizes = compared.runs.drop_duplicates("model").sort_values("size")
    axes.set_xscale("log")
    names = [
        f"{model}\n{si(float(size))}"
        for model, size in zip(sizes["model"], sizes["size"], strict=True)
    ]
    axes.set_xticks(sizes["size"].astype(float), names)
    axes.minorticks_off()
    low, high = sizes["size"].min(), sizes["size"].max()
    margin = (high / low) ** 0.08
    axes.set_xlim(low / margin, high * margin)
    axes.set_xlabel(label(compared.size))


def draw_tolerated(axes: Axes, line: pd.DataFrame, index: int, name: str, joined: bool) -> None:
    """Points with their intervals; bounds as open markers. joined: those of equal samples."""
    exact = line["bound"] == ""
    x, y = line["size"].astype(float), line["tokens"].astype(float)
    ends = np.stack([y - line["low"].astype(float), line["high"].astype(float) - y])
    ends = np.where(exact & np.isfinite(ends).all(axis=0), np.maximum(ends, 0), 0)
    axes.errorbar(
        x, y, yerr=ends, color=colour(index), linewidth=1, capsize=2,
        label=name, marker="", linestyle=dashes(index) if joined else "none",
    )  # fmt: skip
    style: dict[str, Any] = {"color": colour(index), "markersize": 5, "linestyle": "none"}
    axes.plot(x[exact], y[exact], marker(index), **style)
    if not exact.all():
        told = f"{name}, bound"
        axes.plot(x[~exact], y[~exact], marker(index), markerfacecolor="white", label=told, **style)


def draw_exponent(axes: Axes, points: pd.DataFrame, nu: dict[str, float]) -> str:
    """The line of the exponent with its band, where it has an interval; what it is, in words."""
    if not np.isfinite([nu["nu"], nu["low"], nu["high"]]).all():
        return "ν not known"
    log_n, log_t = np.log(points["size"].astype(float)), np.log(points["tokens"].astype(float))
    x = np.linspace(log_n.min(), log_n.max(), 40)
    away = x - log_n.mean()
    axes.plot(np.exp(x), np.exp(log_t.mean() - nu["nu"] * away), "--", color=INK, label="ν")
    ends = [np.exp(log_t.mean() - nu[end] * away) for end in ("low", "high")]
    axes.fill_between(
        np.exp(x),
        np.minimum(*ends),
        np.maximum(*ends),
        color=PALE,
        alpha=0.5,
        label="95 %",
        zorder=0,
    )
    return f"ν = {nu['nu']:.2f} [{nu['low']:.2f}, {nu['high']:.2f}]"


@styled
def slopes_by_path(verdict: Verdict) -> Figure:
    """d log m / d log N with its 95 % interval: each path, each length and pooled, each scale."""
    slopes = verdict.slopes[verdict.slopes["slope"].notna()]
    scales = list(dict.fromkeys(verdict.slopes["scale"]))
    rows = slopes.drop_duplicates(["path", "length"])[["path", "length"]].to_records(index=False)
    figure = new_figure(6, 1.2 + 0.32 * max(3, len(rows)))
    axes = figure.subplots()
    axes.axvspan(-verdict.band, verdict.band, color=PALE, alpha=0.5, zorder=0)
    axes.axvline(0, color=INK, linewidth=0.8)
    for index, scale in enumerate(scales):
        own = slopes[slopes["scale"] == scale].set_index(["path", "length"])
        known = [at for at, (path, length) in enumerate(rows) if (path, length) in own.index]
        chosen = own.loc[[tuple(rows[at]) for at in known]]
        slope = chosen["slope"].to_numpy(float)
        ends = np.abs(chosen[["low", "high"]].to_numpy(float).T - slope)
        has_ends = ~np.isnan(ends).any(axis=0)
        y = np.array(known) + 0.2 * (index - 1)
        style: dict[str, Any] = {"color": colour(index), "linestyle": "none", "markersize": 4}
        axes.errorbar(
            slope[has_ends], y[has_ends], xerr=ends[:, has_ends], marker=marker(index), capsize=2,
            label=scale, **style,
        )  # fmt: skip
        if not has_ends.all():
            told = f"{scale}, interval not known"
            rest = slope[~has_ends], y[~has_ends]
            axes.plot(*rest, marker(index), markerfacecolor="white", label=told, **style)
    names = [f"{path}, {'all' if length == 0 else f'{length} tokens'}" for path, length in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set_xlabel("d log m / d log N (below 0: larger models need fewer tokens)")
    axes.legend(frameon=False, loc="best")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


FIGURES = {
    "multiplier_maps": multiplier_maps,
    "tolerated_lengths": tolerated_lengths,
    "slopes_by_path": slopes_by_path,
}


def save_verdict(verdict: Verdict, folder: Path, suffix: str = "") -> list[Path]:
    return [
        save_figure(draw(verdict), folder / f"{name}{suffix}") for name, draw in FIGURES.items()
    ]


def save_verdicts(tables: dict[str, pd.DataFrame], folder: Path) -> list[Path]:
    """The figures of every verdict of a study, numbered where there are several."""
    verdicts = judge_study(tables)
    paths = []
    for number, verdict in enumerate(verdicts, 1):
        paths += save_verdict(verdict, folder, f"_{number}" if len(verdicts) > 1 else "")
    return paths
