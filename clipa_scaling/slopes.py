"""Runs on a grid -> the slope of log m against log N along a path of sample counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipa_scaling.answers import interval
from clipa_scaling.censored import LEAST_EXACT, fit_slopes
from clipa_scaling.compared import Compared
from clipa_scaling.multiplier import Floats, Signs

FIXED_D, FIXED_RATIO, COMPUTE_OPTIMAL = "fixed D", "fixed D/N", "compute-optimal"
PATHS = (FIXED_D, FIXED_RATIO, COMPUTE_OPTIMAL)
POOLED = 0  # in place of a length


@dataclass(frozen=True)
class Grid:
    """Runs as arrays over sizes I, lengths J (the reference first) and sample counts K."""

    models: list[str]
    log_size: Floats  # (I,)
    lengths: list[int]  # (J,); 0 stands for the reference, whose tokens may differ by patch
    log_samples: Floats  # (K,)
    counts: Floats  # (I, J, K) runs
    cell: pd.Series  # of each run, its flat index
    log_full: Floats  # (I,) of the reference's tokens

    @property
    def log_lengths(self) -> Floats:
        """(J,); the reference's is NaN, since sizes may differ in it: see log_full."""
        return np.log([np.nan, *self.lengths[1:]])


def make_grid(runs: pd.DataFrame, compared: Compared) -> Grid:
    sizes = runs.groupby("model")["size"].first().sort_values(kind="stable")
    is_full = runs["length"] == runs["model"].map(compared.full)
    lengths = [0, *sorted(set(runs.loc[~is_full, "length"]), reverse=True)]
    samples = sorted(set(runs["samples"]))
    places = (
        runs["model"].map({model: at for at, model in enumerate(sizes.index)}),
        runs["length"].mask(is_full, 0).map({tokens: at for at, tokens in enumerate(lengths)}),
        runs["samples"].map({count: at for at, count in enumerate(samples)}),
    )
    shape = (len(sizes), len(lengths), len(samples))
    cell = np.ravel_multi_index([place.to_numpy(int) for place in places], shape)
    counts = np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape).astype(float)
    return Grid(
        list(sizes.index),
        np.log(sizes.to_numpy(float)),
        lengths,
        np.log(np.array(samples, float)),
        counts,
        pd.Series(cell, index=runs.index),
        np.log([float(compared.full[model]) for model in sizes.index]),
    )


def average(grid: Grid, runs: Floats) -> Floats:
    """Means over the seeds of each cell, (B, I, J, K); NaN where there is no run."""
    weights = np.zeros((runs.shape[1], grid.counts.size))
    weights[np.arange(len(weights)), grid.cell] = 1.0
    counts = np.where(grid.counts > 0, grid.counts, np.nan)
    return np.asarray((runs @ weights).reshape(-1, *grid.counts.shape) / counts)


def find_targets(path: str, grid: Grid, log_optimal: Floats | None = None) -> Floats:
    """The logarithms of the samples that are compared over sizes: (G, I), a row each.

    Of a fixed D/N there are as many, evenly spaced, as two sizes or more share. log_optimal (I,),
    the compute-optimal samples, NaN where unknown, is that path's single row.
    """
    if path == COMPUTE_OPTIMAL:
        assert log_optimal is not None, "find_optimal has them"
        return log_optimal[None]
    if path == FIXED_D:
        return np.repeat(grid.log_samples[:, None], len(grid.models), axis=1)
    reach = [grid.log_samples[grid.counts[size].any(axis=0)] for size in range(len(grid.models))]
    low = np.sort([ends.min() - n for ends, n in zip(reach, grid.log_size, strict=True)])
    high = np.sort([ends.max() - n for ends, n in zip(reach, grid.log_size, strict=True)])
    if len(low) < 2 or high[-2] < low[1]:
        return np.empty((0, len(grid.models)))
    ratios = np.linspace(low[1], high[-2], len(grid.log_samples))
    return ratios[:, None] + grid.log_size


def path_slopes(grid: Grid, values: Floats, signs: Signs) -> pd.DataFrame:
    """The slope at every shorter length and pooled, from draws of log m: (B, G, I, J).

    The first draw is the study itself. A comparison is one length at one sample count (or ratio);
    it counts by its noise, sizes within it alike, so that no size's own scatter can tilt it.
    Columns: `length`, `slope`, `low`, `high`, `values` of m that it rests on, `bounds` among them.
    """
    short = range(1, len(grid.lengths))
    y = {grid.lengths[at]: values[..., at] for at in short}
    sides = {grid.lengths[at]: signs[..., at] for at in short}
    noise = {tokens: find_noise(y[tokens], sides[tokens]) for tokens in y}
    if y:
        y[POOLED] = np.concatenate([*y.values()], axis=1)
        sides[POOLED] = np.concatenate([*sides.values()], axis=1)
        noise[POOLED] = np.concatenate([*noise.values()])
    found = []
    for tokens in y:
        fitted = fit_slopes(grid.log_size, y[tokens], sides[tokens], noise[tokens])
        low, high = interval(fitted[1:])
        values_used, bounds = count_used(y[tokens], sides[tokens])
        counts = {"values": values_used, "bounds": bounds}
        found.append({"length": tokens, "slope": fitted[0], "low": low, "high": high, **counts})
    return pd.DataFrame(found, columns=["length", "slope", "low", "high", "values", "bounds"])


def count_used(values: Floats, signs: Signs) -> tuple[int, int]:
    """How many values of the study itself a slope rests on, and how many of them are bounds."""
    known, bounds = ~np.isnan(values[0]), signs[0] != 0
    used = known & ((known & ~bounds).sum(axis=1, keepdims=True) >= LEAST_EXACT)
    return int(used.sum()), int((used & bounds).sum())


def find_noise(values: Floats, signs: Signs) -> Floats:
    """The scatter of log m in each comparison, (G,), over the sizes that are no bounds.

    Half the span of the middle two thirds of the draws, which few strays do not widen.
    """
    open_ended = np.where(signs > 0, np.inf, np.where(signs < 0, -np.inf, values))[1:]
    ends = np.sort(np.where(np.isnan(open_ended), np.inf, open_ended), axis=0)
    last = len(ends) - 1
    low, high = ends[round(0.16 * last)], ends[round(0.84 * last)]
    usable = np.isfinite(low) & np.isfinite(high)
    spans = np.where(usable, np.where(usable, high, 0.0) - np.where(usable, low, 0.0), 0.0) / 2
    counts = usable.sum(axis=1)
    typical = np.sqrt((spans**2).sum(axis=1) / np.maximum(counts, 1))
    largest = typical[counts > 0].max(initial=1e-3)
    return np.asarray(np.maximum(np.where(counts > 0, typical, largest), 1e-3))
