"""What a planned sweep will answer: the verdict's intervals before a GPU-hour is spent.

`simulate` judges made-up results of the planned runs; `reckon` finds the same intervals in closed
form, fast enough to weigh every change of the plan (see `changes`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from clipa_scaling.answers import LEVEL, NO, UNDETERMINED, YES
from clipa_scaling.assumed import ROOT_SHARE, SEED_SD, Truth, learn, logit
from clipa_scaling.censored import fit_slopes
from clipa_scaling.compared import Compared
from clipa_scaling.drops import SCALES
from clipa_scaling.gain import find_costs
from clipa_scaling.judge import Way, find_ways, judge
from clipa_scaling.lacking import Missing, find_missing
from clipa_scaling.multiplier import Floats, Signs, along, multipliers
from clipa_scaling.resample import estimate_noise, logits
from clipa_scaling.slopes import Grid, average, make_grid
from clipa_scaling.tolerated import find_tolerated

WORLDS, DRAWS = 20, 200
ENDS, NU_ENDS = ("slope", "low", "high"), ("nu", "nu_low", "nu_high")
ANSWERS = (YES, NO, UNDETERMINED)
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
) -> pd.DataFrame:
    """The verdict's expected intervals on each path, from so many made-up studies.

    Columns: `path`; of the slope d log m / d log N and of nu their medians over the worlds that
    have an interval, and those of its ends and of half its width: `slope`, `low`, `high`, `half`,
    `nu`, `nu_low`, `nu_high`, `nu_half`; `yes`, `no`, `undetermined`: shares of worlds. Where no
    cell has two seeds, the seeds' noise is taken as known to the verdict.
    """
    seed_sd = None if has_repeats(compared) else scatter.fraction
    rows: list[dict[str, object]] = []
    for world in range(worlds):
        values = draw_values(compared, truth, scatter, np.random.default_rng(world))
        made = replace(compared, runs=compared.runs.assign(value=values))
        verdict = judge(made, seed_sd=seed_sd, draws=draws, with_drops=False)
        nu = verdict.nu.drop_duplicates("path").set_index("path")
        for item in verdict.answers:
            own = nu.loc[item.path]
            row: dict[str, object] = {"path": item.path, item.answer: 1.0}
            row |= {"slope": item.slope, "low": item.low, "high": item.high}
            row |= {"nu": own["nu"], "nu_low": own["low"], "nu_high": own["high"]}
            rows.append(row)
    table = pd.DataFrame(rows, columns=["path", *ENDS, *NU_ENDS, *ANSWERS])
    for value, low, high in (ENDS, NU_ENDS):
        half = "half" if value == "slope" else "nu_half"
        table[half] = (table[high] - table[low]) / 2
        table.loc[table[low].isna(), value] = np.nan
    paths = table.groupby("path", sort=False)
    shares = paths[[*ANSWERS]].sum() / worlds
    return paths.median(numeric_only=True).drop(columns=[*ANSWERS]).join(shares).reset_index()


def has_repeats(compared: Compared) -> bool:
    return bool(compared.runs.duplicated(["model", "length", "samples"]).any())


@dataclass(frozen=True)
class Reckoned:
    """Numbers that a design is reckoned to give on a path, and half their intervals' widths.

    NaN where it gives none. missing: keys of the sweep file that an answer lacks.
    """

    path: str
    slope: float
    half: float
    nu: float
    nu_half: float
    missing: tuple[Missing, ...]


class Reckoning:
    """A study without noise, and every cell nudged once: the verdict's numbers, linear in all.

    Exact where noise is small; blind to cells whose m lies beyond the reference in some worlds
    only. Seeds' noise that is estimated widens intervals by Student's t.
    """

    def __init__(self, compared: Compared, truth: Truth, scatter: Scatter):
        accuracy = truth.accuracy(compared.runs)
        runs = compared.runs.assign(y=logit(accuracy))
        self.grid = grid = make_grid(runs, compared)
        present = np.flatnonzero(grid.counts.reshape(-1) > 0)
        self.errors = cell_errors(grid, runs, scatter.of(accuracy), accuracy)[present]
        self.steps = NUDGE * np.linalg.norm(self.errors, axis=1)
        nudges = np.zeros((len(present), grid.counts.size))
        nudges[np.arange(len(present)), present] = self.steps
        cells = average(grid, runs["y"].to_numpy(float)[None])
        odds = np.concatenate([cells, cells + nudges.reshape(-1, *grid.counts.shape)])
        self.m = [
            multipliers(grid.log_samples, change(odds), grid.counts, 0)
            for change in SCALES.values()
        ]
        shape = (len(grid.models), len(grid.lengths), len(grid.log_samples))
        costs = find_costs(runs[["flops", "fixed_flops", "samples"]], grid.cell, shape)
        self.ways = find_ways(grid, costs, odds[0, :, 0])
        noise = estimate_noise(runs.assign(value=accuracy), grid.cell, None)
        self.missing = find_missing(grid, compared, noise)
        self.quantile = float(stdtrit(min(degrees(runs), 1e9), 0.5 + LEVEL / 2))

    def follow(self, way: Way) -> Reckoned:
        found = [along(self.grid.log_samples, *m, way.targets) for m in self.m]
        slope, half = self.reckon([stack(*each) for each in found])
        tokens = [
            find_tolerated(self.grid.log_lengths, self.grid.log_full, *each) for each in found
        ]
        nu, nu_half = self.reckon(tokens)
        return Reckoned(way.path, slope, half, -nu, nu_half, self.missing or way.missing)

    def reckon(self, scales: list[tuple[Floats, Signs]]) -> tuple[float, float]:
        """A slope against log N of values (1 + cells, G, I), and half its interval's width.

        On every scale; the width is widened by what they differ in, as the verdict's.
        """
        y, signs = scales[0]
        if not y.size:
            return math.nan, math.nan
        jacobian = np.nan_to_num((y[1:] - y[0]) / self.steps[:, None, None])
        noise = noise_of(jacobian, self.errors, y, signs)
        slopes = fit_slopes(self.grid.log_size, y, signs, noise)
        others = [
            float(fit_slopes(self.grid.log_size, at[:1], sides[:1], noise)[0])
            for at, sides in scales[1:]
        ]
        told = [float(slopes[0]), *others]
        sd = float(np.linalg.norm((slopes[1:] - slopes[0]) / self.steps @ self.errors))
        return told[0], self.quantile * sd + max(told) - min(told)


def reckon(compared: Compared, truth: Truth, scatter: Scatter) -> tuple[Reckoned, ...]:
    """Each path's interval in closed form: see `Reckoning`."""
    reckoning = Reckoning(compared, truth, scatter)
    return tuple(reckoning.follow(way) for way in reckoning.ways)


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


def degrees(runs: pd.DataFrame) -> float:
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
