"""What a planned sweep will answer: the verdict's intervals before a GPU-hour is spent.

`simulate` judges made-up results of the planned runs; `approximate` reckons the same interval from
the verdict's slope by each run, fast enough to weigh every change of the plan (see `changes`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from clipa_scaling.assumed import ROOT_SHARE, SEED_SD, Truth, learn, logit
from clipa_scaling.censored import fit_slopes
from clipa_scaling.compared import Compared
from clipa_scaling.inverse import SCALES, find_missing, judge
from clipa_scaling.multiplier import Floats, Signs, along, multipliers
from clipa_scaling.resample import estimate_noise, logits
from clipa_scaling.slopes import (
    FIXED_D,
    FIXED_RATIO,
    LEVEL,
    Grid,
    average,
    find_targets,
    make_grid,
)
from clipa_scaling.verdict import NO, UNDETERMINED, YES, Missing

WORLDS, DRAWS = 40, 200
PATHS = (FIXED_D, FIXED_RATIO)
NUDGE = 0.25  # of a run's standard deviation: the step of the slope's derivative


@dataclass(frozen=True)
class Scatter:
    """How runs are taken to scatter: seeds in logits, or as a fraction of 1 where assumed.

    degrees: of freedom behind a measured one, else 0.
    """

    logits: float = math.nan
    fraction: float = SEED_SD
    degrees: float = 0.0

    def of(self, accuracy: Floats) -> Floats:
        """The standard deviation of seeds, in logits."""
        if self.degrees:
            return np.full(len(accuracy), self.logits)
        return self.fraction / (accuracy * (1 - accuracy))


def measure_scatter(compared: Compared, fraction: float = SEED_SD) -> Scatter:
    """The seeds' scatter among finished runs; assumed where no cell of theirs has two."""
    runs = finished(compared)
    if runs.empty:
        return Scatter(fraction=fraction)
    runs = runs.assign(y=logits(runs["value"].to_numpy(float), runs["n"].to_numpy(float)))
    noise = estimate_noise(runs, make_grid(runs, compared).cell, None)
    if not noise.degrees:
        return Scatter(fraction=fraction)
    return Scatter(float(noise.seed_variance[0] ** 0.5), fraction, noise.degrees)


def finished(compared: Compared) -> pd.DataFrame:
    done: pd.DataFrame = compared.runs[compared.runs["done"]].reset_index(drop=True)
    return done


def adapt(truth: Truth, compared: Compared, scatter: Scatter, keep_strength: bool = True) -> Truth:
    """The truth after the comparison's finished runs."""
    runs = finished(compared)
    if runs.empty:
        return truth
    sd = float(np.median(scatter.of(runs["value"].clip(0.01, 0.99).to_numpy(float))))
    pictures = 1 / (runs["n"] * (runs["value"] * (1 - runs["value"])).clip(0.01)).mean()
    return learn(truth, runs, float(np.hypot(sd, pictures**0.5)), keep_strength)


def draw_values(
    compared: Compared, truth: Truth, scatter: Scatter, rng: np.random.Generator
) -> Floats:
    """What the runs measure in one world; finished ones what they did measure."""
    runs = compared.runs
    accuracy = truth.accuracy(runs)
    roots, root = np.unique(runs["root"], return_inverse=True)
    shared = rng.standard_normal(len(roots))[root] * ROOT_SHARE**0.5
    own = rng.standard_normal(len(runs)) * (1 - ROOT_SHARE) ** 0.5
    odds = logit(accuracy) + scatter.of(accuracy) * (shared + own)
    n = runs["n"].to_numpy(int)
    values = rng.binomial(n, 1 / (1 + np.exp(-odds))) / n
    return np.where(runs["done"], runs["value"], values)


def simulate(
    compared: Compared,
    truth: Truth,
    scatter: Scatter,
    worlds: int = WORLDS,
    draws: int = DRAWS,
    scales: Sequence[str] = tuple(SCALES),
) -> pd.DataFrame:
    """The verdict's expected interval for each path, from so many made-up studies.

    Columns: `path`, `slope`, `low`, `high` (medians over worlds), `half` (the median half-width of
    the 95 % interval), `yes`, `no`, `undetermined` (shares of worlds), `told` (worlds that had an
    interval). Where no cell has two seeds, the seeds' noise is taken as known to the verdict.
    """
    seed_sd = None if has_repeats(compared) else scatter.fraction
    found: dict[str, list[tuple[str, float, float, float]]] = {}
    for world in range(worlds):
        values = draw_values(compared, truth, scatter, np.random.default_rng(world))
        runs = compared.runs.assign(value=values)
        made = Compared(**{**vars(compared), "runs": runs})
        for item in judge(made, seed_sd=seed_sd, draws=draws, scales=scales).answers:
            row = (item.answer, item.slope, item.low, item.high)
            found.setdefault(item.path, []).append(row)
    rows = []
    for path, answers in found.items():
        told = [answer for answer, *_ in answers]
        slope, low, high = np.array([numbers for _, *numbers in answers], float).T
        known = ~np.isnan(low)
        middle = [float(np.median(each[known])) if known.any() else math.nan
                  for each in (slope, low, high, (high - low) / 2)]  # fmt: skip
        shares = {answer: told.count(answer) / worlds for answer in (YES, NO, UNDETERMINED)}
        names = ("slope", "low", "high", "half")
        rows.append({"path": path, **dict(zip(names, middle, strict=True)), **shares,
                     "told": int(known.sum())})  # fmt: skip
    return pd.DataFrame(rows)


def has_repeats(compared: Compared) -> bool:
    return bool(compared.runs.duplicated(["model", "length", "samples"]).any())


@dataclass(frozen=True)
class Approximation:
    """The interval that a design is reckoned to give; half: of its width, NaN where it has none."""

    path: str
    slope: float
    half: float


def approximate(
    compared: Compared, truth: Truth, scatter: Scatter, paths: Sequence[str] = PATHS
) -> tuple[Approximation, ...]:
    """Each path's interval without noise drawn: the verdict's slope, linear in every cell.

    Exact where noise is small; blind to cells whose m lies beyond the reference in some worlds
    only. Seeds' noise that is estimated widens the interval by Student's t.
    """
    accuracy = truth.accuracy(compared.runs)
    runs = compared.runs.assign(y=logit(accuracy))
    grid = make_grid(runs, compared)
    present = np.flatnonzero(grid.counts.reshape(-1) > 0)
    errors = cell_errors(grid, runs, scatter.of(accuracy), accuracy)[present]
    steps = NUDGE * np.linalg.norm(errors, axis=1)
    steps = np.where(steps > 0, steps, NUDGE * 1e-3)  # of finished cells, which no longer scatter
    nudges = np.zeros((len(present), grid.counts.size))
    nudges[np.arange(len(present)), present] = steps
    cells = average(grid, runs["y"].to_numpy(float)[None])
    odds = np.concatenate([cells, cells + nudges.reshape(-1, *grid.counts.shape)])
    first, *others = (
        multipliers(
            grid.log_samples, change(odds if scale == "logit" else odds[:1]), grid.counts, 0
        )
        for scale, change in SCALES.items()
    )
    quantile = float(stdtrit(min(degrees(runs, scatter), 1e9), 0.5 + LEVEL / 2))
    found = []
    for path in paths:
        targets = find_targets(path, grid)
        y, signs = stack(*along(grid.log_samples, *first, targets))
        noise = noise_of(np.nan_to_num((y[1:] - y[0]) / steps[:, None, None]), errors, y, signs)
        slopes = fit_slopes(grid.log_size, y, signs, noise)
        told = [float(slopes[0])]
        for other in others:
            at, sides = stack(*along(grid.log_samples, *other, targets))
            told.append(float(fit_slopes(grid.log_size, at, sides, noise)[0]))
        jacobian = (slopes[1:] - slopes[0]) / steps
        half = quantile * float(np.linalg.norm(jacobian @ errors)) + max(told) - min(told)
        found.append(Approximation(path, told[0], half))
    return tuple(found)


def cell_errors(grid: Grid, runs: pd.DataFrame, seeds: Floats, accuracy: Floats) -> Floats:
    """What independent standard normals do to the cells' means, (cells, roots + runs).

    Of each root, which its branches share, and of each run: its own part and its examples.
    """
    counts = np.maximum(grid.counts.reshape(-1)[grid.cell], 1)
    _, root = np.unique(runs["root"], return_inverse=True)
    at = np.arange(len(runs))
    binomial = 1 / (runs["n"].to_numpy(float) * accuracy * (1 - accuracy))
    errors = np.zeros((grid.counts.size, root.max() + 1 + len(runs)))
    np.add.at(errors, (grid.cell.to_numpy(), root), seeds * ROOT_SHARE**0.5 / counts)
    own = np.sqrt(seeds**2 * (1 - ROOT_SHARE) + binomial) / counts
    np.add.at(errors, (grid.cell.to_numpy(), root.max() + 1 + at), own)
    return errors


def degrees(runs: pd.DataFrame, scatter: Scatter) -> float:
    """Of freedom that the verdict will have for the seeds' noise: as `estimate_noise`."""
    repeats = int(runs.duplicated(["model", "length", "samples"]).sum())
    return repeats * runs["root"].nunique() / len(runs) or math.inf


def stack(values: Floats, signs: Signs) -> tuple[Floats, Signs]:
    """(B, G, I, J) of m -> (B, G (J - 1), I): every shorter length's comparisons in a row."""
    shape = (len(values), -1, values.shape[2])
    return tuple(  # type: ignore[return-value]
        np.moveaxis(each[..., 1:], 3, 1).reshape(shape) for each in (values, signs)
    )


def noise_of(jacobian: Floats, errors: Floats, y: Floats, signs: Signs) -> Floats:
    """The scatter of log m in each comparison, (G,), over the sizes that are no bounds.

    jacobian (cells, G, I); errors (cells, E).
    """
    sd = np.linalg.norm(np.tensordot(errors.T, jacobian, 1), axis=0)
    usable = ~np.isnan(y[0]) & (signs[0] == 0)
    counts = usable.sum(axis=1)
    typical = np.sqrt((sd**2 * usable).sum(axis=1) / np.maximum(counts, 1))
    largest = typical[counts > 0].max(initial=1e-3)
    return np.asarray(np.maximum(np.where(counts > 0, typical, largest), 1e-3))


def lacks(compared: Compared, truth: Truth) -> tuple[Missing, ...]:
    """What the design lacks for an answer, whatever its runs will measure."""
    runs = compared.runs.assign(value=truth.accuracy(compared.runs))
    runs = runs.assign(y=logit(runs["value"].to_numpy(float)))
    grid = make_grid(runs, compared)
    return find_missing(grid, compared, estimate_noise(runs, grid.cell, None))
