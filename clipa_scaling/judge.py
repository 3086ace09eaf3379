"""The verdict of one comparison: multipliers, slopes along paths, tolerated lengths, drops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipa_scaling.answers import BAND, UNDETERMINED, agree
from clipa_scaling.compared import Compared
from clipa_scaling.drops import SCALES, Cells, describe
from clipa_scaling.frontier import find_optimal
from clipa_scaling.gain import Costs, find_costs, find_gain
from clipa_scaling.lacking import Missing, find_missing, find_missing_optimal, find_missing_ratio
from clipa_scaling.multiplier import Floats, along, multipliers
from clipa_scaling.resample import draw, estimate_noise, logits
from clipa_scaling.slopes import (
    COMPUTE_OPTIMAL,
    FIXED_RATIO,
    PATHS,
    POOLED,
    Grid,
    average,
    find_targets,
    make_grid,
    path_slopes,
)
from clipa_scaling.tabulate import tabulate, tabulate_crossings, tabulate_tolerated
from clipa_scaling.tolerated import EPSILON, find_exponent, find_tolerated
from clipa_scaling.verdict import Answer, Verdict

DRAWS = 1000


@dataclass(frozen=True)
class Way:
    """A path: the log samples that it compares, (G, I), and what the design lacks for it."""

    path: str
    targets: Floats
    missing: tuple[Missing, ...]


def judge(
    compared: Compared,
    *,
    seed_sd: float | None = None,
    band: float = BAND,
    draws: int = DRAWS,
    scales: Sequence[str] = tuple(SCALES),
    epsilon: float = EPSILON,
    with_drops: bool = True,
) -> Verdict:
    """The verdict on the runs of one comparison (see `compared.find_compared`).

    m is read off the reference's curve, isotonic and then a monotone cubic in log D. Its slope has
    an intercept for each length and sample count; bounds enter as bounds. Intervals are those of
    `draws` repetitions with the noise of `resample`, of fixed seed, the answer's widened by what
    slopes differ over scales. The compute-optimal samples are those of the study itself in all
    draws. seed_sd: the standard deviation of seeds as a fraction, where cells are not repeated.
    no: the 95 % interval above 0, or within the band; yes: below 0; else undetermined. A design
    that cannot answer is no error: `missing` says which axis it lacks. with_drops: the slow part,
    which decides nothing.
    """
    y = logits(compared.runs["value"].to_numpy(float), compared.runs["n"].to_numpy(float))
    runs = compared.runs.assign(y=y)
    grid = make_grid(runs, compared)
    noise = estimate_noise(runs, grid.cell, seed_sd)
    errors = draw(runs, grid.cell, noise, draws, np.random.default_rng(0))
    odds = average(grid, np.vstack([np.zeros(len(runs)), errors]) + y)
    shape = (len(grid.models), len(grid.lengths), len(grid.log_samples))
    costs = find_costs(runs[["flops", "fixed_flops", "samples"]], grid.cell, shape)
    ways = find_ways(grid, costs, odds[0, :, 0])
    missing = find_missing(grid, compared, noise)
    found = [follow(grid, way, odds, scale, epsilon) for scale in scales for way in ways]
    slopes = pd.concat([item.slopes for item in found], ignore_index=True)
    nu = answer_exponents(pd.DataFrame([item.exponent for item in found]), ways, band, missing)
    m = multipliers(grid.log_samples, SCALES[scales[0]](odds), grid.counts, 0)
    gain = find_gain(grid.log_samples, *m, costs)
    answers = tuple(answer_path(way, slopes, band, missing) for way in ways)
    answer = find_answer(answers)
    return Verdict(
        answer=answer,
        robust=len(scales) > 1 and is_robust(answer, answers, nu),
        answers=answers,
        missing=missing,
        multipliers=tabulate(grid, compared, m, gain, SCALES["accuracy"](odds)),
        slopes=slopes,
        tolerated=pd.concat([item.tolerated for item in found[: len(ways)]], ignore_index=True),
        nu=nu,
        crossings=tabulate_crossings(grid, compared, gain),
        drops=(
            find_drops(grid, compared, odds, noise.degrees > 0, band, scales)
            if with_drops
            else pd.DataFrame()
        ),
        noise=noise.told,
        band=band,
        epsilon=epsilon,
        compared=compared,
    )


@dataclass(frozen=True)
class Followed:
    """A path's numbers on one scale."""

    slopes: pd.DataFrame
    tolerated: pd.DataFrame
    exponent: dict[str, object]


def follow(grid: Grid, way: Way, odds: Floats, scale: str, epsilon: float) -> Followed:
    """Slopes of m, tolerated lengths and their exponent along a path; odds (B, I, J, K)."""
    values, signs = multipliers(grid.log_samples, SCALES[scale](odds), grid.counts, 0)
    at, sides = along(grid.log_samples, values, signs, way.targets)
    tokens, ends = find_tolerated(grid.log_lengths, grid.log_full, at, sides, epsilon)
    named: dict[str, object] = {"path": way.path, "scale": scale}
    return Followed(
        path_slopes(grid, at, sides).assign(path=way.path, scale=scale),
        tabulate_tolerated(way.path, grid, way.targets, tokens, ends),
        named | find_exponent(grid.log_size, tokens, ends),
    )


def find_ways(grid: Grid, costs: Costs, odds: Floats) -> list[Way]:
    """All paths; odds (I, K) of the full length."""
    flops = np.log(costs.fixed[:, :1] + costs.rate[:, :1] * np.exp(grid.log_samples))  # (I, K)
    if np.isnan(flops).all():
        because = ["has no known FLOPs"] * len(grid.models)
        optimal = np.full(len(grid.models), np.nan)
    else:
        found, because = find_optimal(grid.log_size, flops, odds, grid.counts[:, 0])
        share = (np.exp(found) - costs.fixed[:, 0]) / costs.rate[:, 0]
        optimal = np.log(np.where(share > 0, share, np.nan))
    ways = []
    for path in PATHS:
        targets = find_targets(path, grid, optimal)
        missing: tuple[Missing, ...] = ()
        if path == FIXED_RATIO:
            missing = find_missing_ratio(grid, targets)
        if path == COMPUTE_OPTIMAL:
            missing = find_missing_optimal(grid, optimal, because)
        ways.append(Way(path, targets, missing))
    return ways


def answer_path(
    way: Way, slopes: pd.DataFrame, band: float, missing: tuple[Missing, ...]
) -> Answer:
    pooled = slopes[(slopes["path"] == way.path) & (slopes["length"] == POOLED)]
    lacks = missing or way.missing
    if pooled.empty:
        return Answer(way.path, UNDETERMINED, np.nan, np.nan, np.nan, False, lacks)
    ends = widen(pooled["slope"], pooled)
    told, agrees = agree(ends, band)
    slope, low, high = float(pooled["slope"].iloc[0]), float(ends[0, 0]), float(ends[0, 1])
    return Answer(way.path, UNDETERMINED if lacks else told, slope, low, high, agrees, lacks)


def widen(values: pd.Series, rows: pd.DataFrame) -> Floats:
    """Each scale's interval, (scales, 2), and what scales differ by on both sides.

    What is left of the scale is interpolation's doing, and no resampling shows it.
    """
    spread = float(values.max() - values.min())
    return np.stack([rows["low"] - spread, rows["high"] + spread], axis=1)


def answer_exponents(
    nu: pd.DataFrame, ways: Sequence[Way], band: float, missing: tuple[Missing, ...]
) -> pd.DataFrame:
    """nu with its intervals widened as the slopes' are, and each path's `answer` and `agrees`."""
    told = []
    for way in ways:
        rows = nu[nu["path"] == way.path]
        ends = widen(rows["nu"], rows)
        answer, agrees = agree(-ends[:, ::-1], band)
        answer = UNDETERMINED if missing or way.missing else answer
        told.append(rows.assign(low=ends[:, 0], high=ends[:, 1], answer=answer, agrees=agrees))
    return pd.concat(told).sort_index()


def find_answer(answers: Sequence[Answer]) -> str:
    """That of all paths that the design can follow, where they agree."""
    told = {item.answer for item in answers if not item.missing}
    return told.pop() if len(told) == 1 else UNDETERMINED


def is_robust(answer: str, answers: Sequence[Answer], nu: pd.DataFrame) -> bool:
    """Whether every path has the answer, on every scale, and no exponent of T_e another."""
    everywhere = all(item.answer == answer and item.agrees for item in answers)
    return answer != UNDETERMINED and everywhere and set(nu["answer"]) <= {answer, UNDETERMINED}


def find_drops(
    grid: Grid,
    compared: Compared,
    odds: Floats,
    is_noise_known: bool,
    band: float,
    scales: Sequence[str],
) -> pd.DataFrame:
    """d of the drop at every sample count, from draws of the cells' logits, (B, I, J, K)."""
    found = []
    for at, samples in enumerate(np.exp(grid.log_samples)):
        size, length = np.nonzero(grid.counts[:, :, at])
        full = np.array([compared.full[grid.models[index]] for index in size], float)
        tokens = np.where(length == 0, full, np.array(grid.lengths, float)[length])
        cells = Cells(np.array(grid.models)[size], np.exp(grid.log_size[size]), tokens, full)
        own = odds[:, size, length, at]
        errors = own[1:] - own[0] if is_noise_known else None
        rows = describe(cells, own[0], errors, band, len(odds) - 1, scales)
        rows.insert(0, "samples", round(float(samples)))
        found.append(rows)
    return pd.concat(found, ignore_index=True)
