"""What a study could have measured instead: its cells drawn again with the noise of its runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipa_scaling.multiplier import Floats

LEAST_CLUSTERS = 20  # with repetitions; below it, residuals are too few to draw from


@dataclass(frozen=True)
class Noise:
    """How the runs of a study scatter, in logits; `told` is for a reader.

    seed_variance: of each run; shared by all branches of a root. degrees: of freedom behind it,
    infinite where assumed, 0 where unknown.
    """

    seed_variance: Floats
    binomial: Floats
    degrees: float
    clusters: int
    method: str
    told: str


def logits(values: Floats, n: Floats) -> Floats:
    """Log odds of fractions of n examples, finite at 0 and 1 (half an example added to each)."""
    right = values * n
    return np.log((right + 0.5) / (n - right + 0.5))


def estimate_noise(runs: pd.DataFrame, cell: pd.Series, seed_sd: float | None) -> Noise:
    """The variances of runs: of the evaluation's examples, and of seeds beyond that.

    runs: `y` (logits), `value`, `n`, `root`; cell: which runs repeat each other. Seeds' variance is
    pooled over all cells, less what the examples explain, at least 0; seed_sd (a fraction) replaces
    it. A shared evaluation set makes the examples' part common, so that this is rather too wide.
    """
    odds = 1 / (1 + np.exp(-runs["y"].to_numpy(float)))
    slope = odds * (1 - odds)
    binomial = 1 / (runs["n"].to_numpy(float) * slope)
    clusters = int(runs["root"].nunique())
    if seed_sd is not None:
        assumed = (seed_sd / slope) ** 2
        told = f"seed noise assumed: {100 * seed_sd:g} points"
        return Noise(assumed, binomial, np.inf, clusters, "parametric", told)
    counts = runs.groupby(cell)["y"].transform("size").to_numpy()
    repeats = len(runs) - cell.nunique()
    if repeats == 0:
        told = (
            "one seed a cell: its noise is unknown, and intervals hold that of the examples alone"
        )
        return Noise(np.zeros(len(runs)), binomial, 0.0, clusters, "parametric", told)
    squares = (runs["y"] - runs.groupby(cell)["y"].transform("mean")) ** 2
    pooled = float(squares.sum()) / repeats
    # Branches of one root are no independent repetitions.
    degrees = repeats * clusters / len(runs)
    seeds = max(0.0, pooled - float(binomial[counts > 1].mean()))
    repeated = int(runs.loc[counts > 1, "root"].nunique())
    enough = repeated >= LEAST_CLUSTERS and has_equal_roots(runs)
    method = "residuals" if enough else "parametric"
    way = "residuals drawn again, root by root" if enough else "drawn from a normal"
    told = f"seed noise {seeds**0.5:.3f} logits, {degrees:.0f} degrees of freedom, {way}"
    return Noise(np.full(len(runs), seeds), binomial, degrees, clusters, method, told)


def has_equal_roots(runs: pd.DataFrame) -> bool:
    """Whether every root has branches at the same counts, or all have a single one."""
    counts = {tuple(sorted(rows)) for _, rows in runs.groupby("root")["samples"]}
    return len(counts) == 1 or all(len(branches) == 1 for branches in counts)


def draw(
    runs: pd.DataFrame, cell: pd.Series, noise: Noise, count: int, rng: np.random.Generator
) -> Floats:
    """Errors of the runs' logits, (count, runs): those of one root are drawn together.

    The variance of seeds is itself only estimated, so that every draw has another (chi-squared).
    """
    if noise.degrees > 0 and np.isfinite(noise.degrees):
        scale = noise.degrees / rng.chisquare(noise.degrees, (count, 1))
    else:
        scale = np.ones((count, 1))
    roots, root = np.unique(runs["root"], return_inverse=True)
    if noise.method == "residuals":
        return draw_residuals(runs, cell, root, scale, rng)
    total = noise.seed_variance + noise.binomial.mean()
    seeds = np.maximum(0.0, scale * total - noise.binomial.mean())
    shared = rng.standard_normal((count, len(roots)))[:, root] * np.sqrt(seeds)
    alone = rng.standard_normal((count, len(runs))) * np.sqrt(noise.binomial)
    return np.asarray(shared + alone)


def draw_residuals(
    runs: pd.DataFrame,
    cell: pd.Series,
    root: np.ndarray,
    scale: Floats,
    rng: np.random.Generator,
) -> Floats:
    """Each root takes the residuals of one that has repetitions, at the same place, any sign."""
    groups = runs.groupby(cell)["y"]
    counts = groups.transform("size").to_numpy(float)
    mean = groups.transform("mean").to_numpy(float)
    factor = np.sqrt(counts / np.maximum(counts - 1, 1))
    order = runs.groupby("root")["samples"].rank(method="first").astype(int).to_numpy() - 1
    table = np.zeros((root.max() + 1, order.max() + 1))
    table[root, order] = (runs["y"].to_numpy(float) - mean) * factor
    able = np.unique(root[counts > 1])
    source = rng.choice(able, (len(scale), len(table)))
    sign = rng.choice([-1.0, 1.0], source.shape)
    return np.asarray((sign[:, root] * table[source[:, root], order]) * np.sqrt(scale))
