"""What a design lacks for an answer, by the key of the sweep file that would add it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipa_scaling.compared import Compared
from clipa_scaling.multiplier import SAME, Floats
from clipa_scaling.resample import Noise
from clipa_scaling.slopes import Grid

LEAST_LEVELS = 3  # of sizes, lengths and sample counts: fewer cannot tell a trend from an accident


@dataclass(frozen=True)
class Missing:
    """What a design lacks: a key of the sweep file, and why."""

    key: str
    because: str


def find_missing(grid: Grid, compared: Compared, noise: Noise) -> tuple[Missing, ...]:
    """What the design lacks for any path."""
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


def find_missing_ratio(grid: Grid, targets: Floats) -> tuple[Missing, ...]:
    """What the path of a fixed D/N lacks: targets (G, I) within the samples of two sizes."""
    counts = np.zeros(len(targets))
    for size, wanted in enumerate(targets.T):
        own = grid.log_samples[grid.counts[size].any(axis=0)]
        counts += (wanted >= own.min() - SAME) & (wanted <= own.max() + SAME)
    if (counts >= 2).any():
        return ()
    because = "no D/N is shared by two sizes; samples must span more than the sizes do"
    return (Missing("samples", because),)


def find_missing_optimal(
    grid: Grid, log_optimal: Floats, because: Sequence[str]
) -> tuple[Missing, ...]:
    """What the compute-optimal path lacks: a point for three sizes."""
    known = int((~np.isnan(log_optimal)).sum())
    if known >= LEAST_LEVELS:
        return ()
    told = "; ".join(
        f"{model} {why}" for model, why in zip(grid.models, because, strict=True) if why
    )
    has = f"{known} sizes are" if known != 1 else "one size is"
    return (Missing("samples", f"{has} optimal at a compute inside the grid: {told}"),)
