"""When a finite loss says that a run is lost: a pure function of its logged rows.

Chance is the loss of a model that tells nothing apart (`chance_loss`). Two rules, neither of which
reads a row of the warm-up:

stuck: past the warm-up, past half of the samples and 200 steps, no row so far was below 0.998 of
chance. Assumed, with care to leave cells alone that learn very little, as from captions of a single
word: those belong into a study's tables. Runs of committed studies are below 0.9 of it by then.

spiking: the level, the lowest mean of five rows in a row, has been at most half of chance, and now
three rows in a row, all past the warm-up, lie more than half the way from the level back to chance.
Half is assumed, with room: of the noisiest rows, single steps at lr 2e-3 to 5e-3, three in a row
were measured to rise by 0.25 of that way with batches of 32 and 0.46 of 8 (1,200 steps each). One
row, or two, are no verdict: runs recover.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

STUCK_ABOVE = 0.998  # of chance
STUCK_SHARE = 0.5  # of the samples, before which nothing is called stuck
STUCK_STEPS = 200
LEARNT_BELOW = 0.5  # of chance: what has come so far can spike
LEVEL_ROWS = 5  # the lowest of many noisy rows says little of the level
SPIKE_ABOVE = 0.5  # of the way from the level to chance
SPIKE_ROWS = 3

CHANCE_NAMES = {
    "contrastive": "ln B",
    "classify": "ln C",
    "siglip": "the best constant's",
}


class Verdict(NamedTuple):
    """Why a run is lost, and up to which sample it was not."""

    reason: str
    good_until: int


def judge(
    rows: Sequence[Mapping[str, Any]],
    objective: str,
    chance: float,
    batch_size: int,
    warmup: int,
    total: int,
) -> Verdict | None:
    """The verdict on a run whose metrics are `rows`, in order; None while it may go on."""
    if not rows or rows[-1]["samples"] <= warmup:
        return None
    samples, loss = rows[-1]["samples"], rows[-1]["loss"]
    losses = np.array([row["loss"] for row in rows if row["samples"] > warmup])
    lowest = losses.min()
    at_chance = f"{CHANCE_NAMES[objective]} = {chance:.4g}"
    late = samples > STUCK_SHARE * total and samples >= STUCK_STEPS * batch_size
    if late and lowest > STUCK_ABOVE * chance:
        return Verdict(
            f"stuck at {at_chance}, chance: lowest loss={lowest:.4g} by sample {samples}; change "
            "lr or warmup_samples, see that captions belong to their pictures, or set "
            "stop_diverged: false",
            samples,
        )
    level = find_level(losses[:-SPIKE_ROWS])
    limit = level + SPIKE_ABOVE * (chance - level)
    spikes = all(row["loss"] > limit and row["samples"] > warmup for row in rows[-SPIKE_ROWS:])
    if level <= LEARNT_BELOW * chance and spikes:
        good_until = rows[-SPIKE_ROWS - 1]["samples"]
        return Verdict(
            f"loss spiked after sample {good_until}: from {level:.4g} to {loss:.4g} at sample "
            f"{samples}, chance is {at_chance}; lower lr, set grad_clip, lengthen warmup_samples, "
            "or set stop_diverged: false",
            good_until,
        )
    return None


def find_level(losses: np.ndarray) -> float:
    """The lowest mean of LEVEL_ROWS in a row; infinite of fewer."""
    if len(losses) < LEVEL_ROWS:
        return math.inf
    return float(np.convolve(losses, np.ones(LEVEL_ROWS) / LEVEL_ROWS, "valid").min())


def tell(verdict: Verdict, checkpoint: int | None) -> str:
    """The reason, and the last checkpoint, if it is from before."""
    if checkpoint is None:
        return f"{verdict.reason}; no checkpoint"
    if checkpoint > verdict.good_until:
        return f"{verdict.reason}; no good checkpoint: the last, {checkpoint}, is of the spike"
    return f"{verdict.reason}; last good checkpoint: {checkpoint}"
