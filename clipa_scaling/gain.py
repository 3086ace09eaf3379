"""What a short length saves: the full length's compute for the same accuracy, over its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipa_scaling.answers import open_interval
from clipa_scaling.multiplier import Floats, Signs

RISES, FALLS = 1, -1  # G along N
COLUMNS = ["samples", "size", "bound", "low", "high", "pays", "because"]


@dataclass(frozen=True)
class Costs:
    """FLOPs of whole pipelines: fixed + rate * D, both (I, J); NaN where unknown.

    fixed: the stages after the one whose length and samples are compared, such as a finetune.
    """

    fixed: Floats
    rate: Floats


def find_costs(flops: pd.DataFrame, cell: pd.Series, shape: tuple[int, int, int]) -> Costs:
    """Means over the runs of each size and length; flops: `flops`, `fixed_flops`, `samples`."""
    group = cell // shape[2]
    rate = (flops["flops"] - flops["fixed_flops"]) / flops["samples"]
    found = []
    for column in (flops["fixed_flops"], rate):
        means = column.groupby(group).mean()
        found.append(means.reindex(range(shape[0] * shape[1])).to_numpy(float).reshape(shape[:2]))
    return Costs(*found)


def find_gain(
    log_samples: Floats, values: Floats, signs: Signs, costs: Costs
) -> tuple[Floats, Signs]:
    """log G and its censoring, (B, I, J, K), from log m.

    G = FLOPs(T_full, D / m) / FLOPs(T, D) over whole pipelines, both of the same accuracy; without
    later stages that is FLOPs(T_full) / FLOPs(T) / m. A bound of m bounds G from the other side.
    """
    samples = np.exp(log_samples)
    full = costs.fixed[:, :1, None] + costs.rate[:, :1, None] * samples * np.exp(-values)
    short = costs.fixed[:, :, None] + costs.rate[:, :, None] * samples
    return np.log(full) - np.log(short), np.asarray(-signs, np.int8)


def find_crossings(
    log_size: Floats, log_samples: Floats, gain: Floats, signs: Signs
) -> pd.DataFrame:
    """Of one length the N at which G crosses 1, a row for each sample count: gain (B, I, K).

    Linear in log N between neighbouring sizes. `bound`: `<` or `>` where G is on one side of 1 at
    all sizes, and its trend in N says on which side of them it would cross; `pays`: of which sizes.
    The interval is that of the draws, open where they have no crossing among the sizes.
    """
    rows = []
    for sample in range(gain.shape[2]):
        known = ~np.isnan(gain[0, :, sample])
        row: dict[str, object] = {"samples": round(float(np.exp(log_samples[sample])))}
        row |= {"size": np.nan, "bound": "", "low": np.nan, "high": np.nan, "pays": ""}
        if known.sum() < 2:
            rows.append(row | {"because": "needs two sizes"})
            continue
        cells = gain[:, known, sample], signs[:, known, sample]
        rows.append(row | cross(log_size[known], *cells))
    return pd.DataFrame(rows, columns=COLUMNS)


def cross(log_size: Floats, gain: Floats, signs: Signs) -> dict[str, object]:
    """One sample count's row, from the draws (B, I), of which the first is the study itself."""
    pays = np.where((gain > 0) & (signs >= 0), 1, np.where((gain <= 0) & (signs <= 0), -1, 0))
    first = pays[0]
    if not first.all():
        return {"because": "m is a bound that leaves G on either side of 1"}
    turns = np.count_nonzero(np.diff(first))
    if turns > 1:
        return {"because": "G crosses 1 more than once"}
    trend = first[-1] - first[0] if turns else gain[0, -1] - gain[0, 0]
    way = RISES if trend >= 0 else FALLS
    places = locate(log_size, gain, pays, way)
    low, high = (float(np.exp(end)) for end in open_interval(places[1:]))
    side = {RISES: "larger", FALLS: "smaller"}[way]
    if turns:
        at = int(np.flatnonzero(np.diff(first))[0])
        inexact = set(signs[0, at : at + 2].tolist()) - {0}
        told = {"low": low, "high": high, "pays": f"{side} models"}
        if inexact:
            between = f"{np.exp(log_size[at]):.3g} and {np.exp(log_size[at + 1]):.3g}"
            return {**told, "because": f"between {between}: m is a bound there"}
        return {**told, "size": float(np.exp(places[0])), "because": ""}
    beyond = "<" if places[0] < 0 else ">"
    end = log_size[0] if beyond == "<" else log_size[-1]
    everyone = "all sizes" if first[0] > 0 else "none of the sizes"
    return {"size": float(np.exp(end)), "bound": beyond, "low": low, "high": high,
            "pays": everyone, "because": ""}  # fmt: skip


def locate(log_size: Floats, gain: Floats, pays: np.ndarray, way: int) -> Floats:
    """log N of each draw's crossing, (B,): -inf below the sizes, inf above, NaN if unknown."""
    status = way * pays
    turns = np.count_nonzero(np.diff(status, axis=1), axis=1)
    places = np.full(len(gain), np.nan)
    places[(status > 0).all(axis=1)] = -np.inf
    places[(status < 0).all(axis=1)] = np.inf
    rows = np.flatnonzero((turns == 1) & (status[:, 0] < 0) & (status[:, -1] > 0))
    if len(rows):
        right = (status[rows] > 0).argmax(axis=1)
        before, after = gain[rows, right - 1], gain[rows, right]
        share = before / (before - after)
        places[rows] = log_size[right - 1] + share * (log_size[right] - log_size[right - 1])
    return places
