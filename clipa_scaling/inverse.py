"""Does a larger model need fewer tokens? The verdict, from runs alone and not from a law.

python -m clipa_scaling.inverse RESULTS_DIR prints multipliers, slopes, verdict and sentence.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from clipa_scaling.collect import load_tables
from clipa_scaling.compared import LENGTHS, SIZES, Compared, find_compared
from clipa_scaling.multiplier import Floats, Signs, along, multipliers
from clipa_scaling.resample import Noise, draw, estimate_noise, logits
from clipa_scaling.schema import TableError
from clipa_scaling.slopes import (
    FIXED_D,
    FIXED_RATIO,
    LEVEL,
    POOLED,
    Grid,
    average,
    find_targets,
    make_grid,
    path_slopes,
)
from clipa_scaling.verdict import NO, UNDETERMINED, YES, Answer, Missing, Verdict, print_verdict

DRAWS = 1000
BAND = 0.03  # assumed: a model ten times as large then changes m by less than 7 %
LEAST_LEVELS = 3  # of sizes, lengths and sample counts: fewer cannot tell a trend from an accident
# Increasing functions of an accuracy's log odds. The first decides; all must agree to be robust.
SCALES: Mapping[str, Callable[[Floats], Floats]] = {
    "logit": lambda odds: odds,
    "accuracy": lambda odds: 1 / (1 + np.exp(-odds)),
    "-log error": lambda odds: np.log1p(np.exp(odds)),
}


def judge(
    compared: Compared,
    *,
    seed_sd: float | None = None,
    band: float = BAND,
    draws: int = DRAWS,
    scales: Sequence[str] = tuple(SCALES),
    paths: Sequence[str] = (FIXED_D, FIXED_RATIO),
) -> Verdict:
    """The verdict on the runs of one comparison (see `compared.find_compared`).

    m is read off the reference's curve, isotonic and then a monotone cubic in log D. Its slope has
    an intercept for each length and sample count; bounds enter as bounds. Intervals are those of
    `draws` repetitions with the noise of `resample`, of fixed seed, the answer's widened by what
    slopes differ over scales. seed_sd: the standard deviation of seeds as a fraction, where cells
    are not repeated.
    yes: the 95 % interval below 0; no: above 0, or within the band; else undetermined. A design
    that cannot answer is no error: `missing` says which axis it lacks.
    """
    y = logits(compared.runs["value"].to_numpy(float), compared.runs["n"].to_numpy(float))
    runs = compared.runs.assign(y=y)
    grid = make_grid(runs, compared)
    noise = estimate_noise(runs, grid.cell, seed_sd)
    errors = draw(runs, grid.cell, noise, draws, np.random.default_rng(0))
    odds = average(grid, np.vstack([np.zeros(len(runs)), errors]) + y)
    rows: list[pd.DataFrame] = []
    table = pd.DataFrame()
    for scale in scales:
        values, signs = multipliers(grid.log_samples, SCALES[scale](odds), grid.counts, 0)
        if scale == scales[0]:
            table = tabulate(grid, compared, runs, values, signs)
        for path in paths:
            at, sides = along(grid.log_samples, values, signs, find_targets(path, grid))
            rows.append(path_slopes(grid, at, sides).assign(path=path, scale=scale))
    slopes = pd.concat(rows, ignore_index=True)
    missing = find_missing(grid, compared, noise)
    answers = tuple(answer_path(path, slopes, band, missing) for path in paths)
    told = {item.answer for item in answers}
    agreed = told.pop() if len(told) == 1 else UNDETERMINED
    everywhere = len(scales) > 1 and len(paths) > 1 and all(item.agrees for item in answers)
    return Verdict(
        answer=agreed,
        robust=agreed != UNDETERMINED and everywhere,
        answers=answers,
        missing=missing,
        multipliers=table,
        slopes=slopes,
        noise=noise.told,
        band=band,
        compared=compared,
    )


def find_missing(grid: Grid, compared: Compared, noise: Noise) -> tuple[Missing, ...]:
    """What the design lacks for any path, by the key of the sweep file that would add it."""
    found = []
    full = sorted(set(compared.full.values()))
    lengths = sorted(set(compared.runs["length"]) | set(full))
    named = " or ".join(map(str, full))
    has_full = grid.counts[:, 0].sum(axis=1) > 0
    without = [grid.models[at] for at in np.flatnonzero(~has_full)]
    if without:
        because = f"no run of {', '.join(without)} at the full length ({named}), the reference"
        found.append(Missing(compared.length, because))
    if len(grid.lengths) < LEAST_LEVELS:
        told = ", ".join(map(str, lengths))
        because = f"only {told}; needed: the full length and two shorter ones"
        found.append(Missing(compared.length, because))
    if len(grid.models) < LEAST_LEVELS:
        because = f"only {', '.join(grid.models)}; needed: {LEAST_LEVELS} sizes"
        found.append(Missing("model", because))
    levels = (grid.counts[:, 0] > 0).sum(axis=1)
    if has_full.any() and levels[has_full].min() < LEAST_LEVELS:
        least = grid.models[int(np.flatnonzero(has_full)[levels[has_full].argmin()])]
        count = int(levels[has_full].min())
        because = f"{least} has {count} at full length; needed: {LEAST_LEVELS}, to read m off them"
        found.append(Missing("samples", because))
    if noise.degrees == 0:
        because = "no cell has two, so that their noise is unknown; or name it with --seed-sd"
        found.append(Missing("seeds", because))
    return tuple(found)


def tabulate(
    grid: Grid, compared: Compared, runs: pd.DataFrame, values: Floats, signs: Signs
) -> pd.DataFrame:
    """m of every shorter cell, with interval, bound, seeds and mean of the measure."""
    means = runs["value"].groupby(grid.cell).mean()
    rows = []
    for at in zip(*np.nonzero(grid.counts), strict=True):
        size, length, sample = (int(index) for index in at)
        if length == 0 or np.isnan(values[(0, *at)]):
            continue
        sides, draws = signs[(slice(1, None), *at)], np.exp(values[(slice(1, None), *at)])
        ends = np.sort(np.where(sides > 0, np.inf, np.where(sides < 0, 0.0, draws)))
        last = len(ends) - 1
        rows.append(
            {
                "model": grid.models[size],
                compared.size: float(np.exp(grid.log_size[size])),
                compared.length: grid.lengths[length],
                "samples": round(float(np.exp(grid.log_samples[sample]))),
                "m": float(np.exp(values[(0, *at)])),
                "bound": {1: ">", -1: "<", 0: ""}[int(signs[(0, *at)])],
                "low": float(ends[round((1 - LEVEL) / 2 * last)]),
                "high": float(ends[round((1 + LEVEL) / 2 * last)]),
                "seeds": int(grid.counts[at]),
                compared.measure: float(means[np.ravel_multi_index(at, grid.counts.shape)]),
            }
        )
    names = ["model", compared.size, compared.length, "samples", "m", "bound", "low", "high"]
    return pd.DataFrame(rows, columns=[*names, "seeds", compared.measure])


def answer_path(
    path: str, slopes: pd.DataFrame, band: float, missing: tuple[Missing, ...]
) -> Answer:
    pooled = slopes[(slopes["path"] == path) & (slopes["length"] == POOLED)]
    if path == FIXED_RATIO and not missing and not pooled["values"].any():
        because = "no D/N is shared by two sizes; samples must span more than the sizes do"
        missing = (Missing("samples", because),)
    if pooled.empty:
        return Answer(path, UNDETERMINED, np.nan, np.nan, np.nan, False, missing)
    # What is left of the scale is interpolation's doing, and no resampling shows it.
    spread = float(pooled["slope"].max() - pooled["slope"].min())
    ends = np.stack([pooled["low"] - spread, pooled["high"] + spread], axis=1)
    told = [decide(float(low), float(high), band) for low, high in ends]
    answer = UNDETERMINED if missing else told[0]
    slope, low, high = float(pooled["slope"].iloc[0]), float(ends[0, 0]), float(ends[0, 1])
    return Answer(path, answer, slope, low, high, len(set(told)) == 1, missing)


def decide(low: float, high: float, band: float) -> str:
    """yes below 0, no above 0 or within the band; an interval that is unknown decides nothing."""
    if high < 0:
        return YES
    return NO if low > 0 or (low >= -band and high <= band) else UNDETERMINED


def print_verdicts(console: Console, tables: dict[str, pd.DataFrame]) -> None:
    """The verdict where a study has two sizes, lengths and sample counts at least; else nothing."""
    for compared in find_compared(tables):
        runs = compared.runs
        if all(runs[name].nunique() > 1 for name in ("model", "length", "samples")):
            print_verdict(console, judge(compared))


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.inverse", description="Does a larger model need fewer tokens?"
    )
    parser.add_argument("results", type=Path, help="a folder of tables, such as results/NAME")
    parser.add_argument("--measure", help="by default the study's main one")
    parser.add_argument("--set", help="by default the first with the measure")
    parser.add_argument("--stage", help="by default the last finetunes, else pretrain and decay")
    parser.add_argument("--length", choices=LENGTHS, default=LENGTHS[0])
    parser.add_argument("--size", choices=SIZES, default=SIZES[0], help="what N counts")
    parser.add_argument("--full", type=int, help="the reference's tokens, by default the most")
    parser.add_argument("--band", type=float, default=BAND, help="slopes that count as none")
    parser.add_argument("--seed-sd", type=float, help="noise of seeds, a fraction of 1")
    parser.add_argument("--draws", type=int, default=DRAWS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 where there are no tables, or none that can be compared."""
    given = read_arguments(arguments)
    try:
        found = find_compared(
            load_tables(given.results),
            measure=given.measure,
            eval_set=given.set,
            stage=given.stage,
            length=given.length,
            size=given.size,
            full=given.full,
        )
    except (FileNotFoundError, TableError) as error:
        print(error, file=sys.stderr)
        return 1
    if not found:
        why = "no finished, annealed run has the measure at its end"
        print(f"{given.results}: {why}; name another --measure, --set or --stage", file=sys.stderr)
        return 1
    for compared in found:
        verdict = judge(compared, seed_sd=given.seed_sd, band=given.band, draws=given.draws)
        print_verdict(Console(), verdict)
    return 0


if __name__ == "__main__":
    sys.exit(main())
