"""Draws of a verdict's numbers -> its tables, a row per cell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clipa_scaling.answers import interval, open_interval
from clipa_scaling.compared import Compared
from clipa_scaling.gain import find_crossings
from clipa_scaling.multiplier import Floats, Signs
from clipa_scaling.slopes import Grid

BOUNDS = {1: ">", -1: "<", 0: ""}
M = ["m", "bound", "low", "high"]
GAIN = ["gain", "gain_bound", "gain_low", "gain_high"]
DROP = ["drop", "drop_low", "drop_high"]
TOLERATED = ["path", "model", "size", "samples", "tokens", "bound", "low", "high"]


def tabulate(
    grid: Grid,
    compared: Compared,
    m: tuple[Floats, Signs],
    gain: tuple[Floats, Signs],
    accuracy: Floats,
) -> pd.DataFrame:
    """m, G and the drop in points of every shorter cell, with intervals, bounds and seeds.

    m, gain: logarithms and censoring, (B, I, J, K); accuracy (B, I, J, K); the first draw is the
    study itself. The drop is from the full length at the same samples.
    """
    means = compared.runs["value"].groupby(grid.cell).mean()
    rows = []
    for at in zip(*np.nonzero(grid.counts), strict=True):
        size, length, sample = (int(index) for index in at)
        if length == 0 or np.isnan(m[0][(0, *at)]):
            continue
        row: dict[str, object] = {
            "model": grid.models[size],
            compared.size: float(np.exp(grid.log_size[size])),
            compared.length: grid.lengths[length],
            "samples": round(float(np.exp(grid.log_samples[sample]))),
        }
        for names, (values, signs) in ((M, m), (GAIN, gain)):
            cell = (slice(None), *at)
            row |= dict(zip(names, read(values[cell], signs[cell]), strict=True))
        drops = 100 * (accuracy[:, size, 0, sample] - accuracy[:, size, length, sample])
        row |= dict(zip(DROP, (float(drops[0]), *interval(drops[1:])), strict=True))
        row["seeds"] = int(grid.counts[at])
        row[compared.measure] = float(means[np.ravel_multi_index(at, grid.counts.shape)])
        rows.append(row)
    names = ["model", compared.size, compared.length, "samples", *M, *GAIN, *DROP, "seeds"]
    return pd.DataFrame(rows, columns=[*names, compared.measure])


def read(values: Floats, signs: Signs) -> tuple[float, str, float, float]:
    """The first draw, its bound, and the interval of the others, open where they are bounds."""
    if np.isnan(values[0]):
        return float("nan"), "", float("nan"), float("nan")
    ends = np.where(signs > 0, np.inf, np.where(signs < 0, -np.inf, values))[1:]
    low, high = (float(np.exp(end)) for end in open_interval(ends))
    return float(np.exp(values[0])), BOUNDS[int(signs[0])], low, high


def tabulate_tolerated(
    path: str, grid: Grid, targets: Floats, values: Floats, signs: Signs
) -> pd.DataFrame:
    """T_e of each size and sample count of a path, from log T_e, (B, G, I)."""
    rows = []
    for group, size in np.ndindex(targets.shape):
        if np.isnan(values[0, group, size]):
            continue
        tokens, bound, low, high = read(values[:, group, size], signs[:, group, size])
        row: dict[str, object] = {"path": path, "model": grid.models[size]}
        row |= {"size": float(np.exp(grid.log_size[size]))}
        row |= {"samples": round(float(np.exp(targets[group, size]))), "tokens": tokens}
        full = float(np.exp(grid.log_full[size]))  # which it never exceeds
        rows.append(row | {"bound": bound, "low": low, "high": min(high, full)})
    return pd.DataFrame(rows, columns=TOLERATED)


def tabulate_crossings(grid: Grid, compared: Compared, gain: tuple[Floats, Signs]) -> pd.DataFrame:
    """The N at which G crosses 1, for every shorter length and sample count."""
    values, signs = gain
    found = []
    for at, tokens in enumerate(grid.lengths):
        if at == 0:
            continue
        own = find_crossings(grid.log_size, grid.log_samples, values[:, :, at], signs[:, :, at])
        own.insert(0, compared.length, tokens)
        found.append(own.rename(columns={"size": compared.size}))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()
