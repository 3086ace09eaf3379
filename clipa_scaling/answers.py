"""What an interval answers: yes, no, or undetermined."""

from __future__ import annotations

import numpy as np

from clipa_scaling.multiplier import Floats

YES, NO, UNDETERMINED = "yes", "no", "undetermined"
LEVEL = 0.95
BAND = 0.03  # assumed: what a model ten times as large then changes is less than 7 %


def interval(draws: Floats) -> tuple[float, float]:
    """The middle 95 % of the draws; NaN where more than a few have no value."""
    if len(draws) == 0 or np.isnan(draws).mean() > (1 - LEVEL) / 2:
        return float("nan"), float("nan")
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def open_interval(draws: Floats) -> tuple[float, float]:
    """The middle 95 % of draws that may be infinite; NaN where more than a few are unknown."""
    if len(draws) == 0 or np.isnan(draws).mean() > (1 - LEVEL) / 2:
        return float("nan"), float("nan")
    known = np.sort(draws[~np.isnan(draws)])
    last = len(known) - 1
    return (
        float(known[round((1 - LEVEL) / 2 * last)]),
        float(known[round((1 + LEVEL) / 2 * last)]),
    )


def decide(low: float, high: float, band: float = BAND) -> str:
    """no above 0 or within the band, yes below 0; an interval that is unknown decides nothing."""
    if low > 0 or (low >= -band and high <= band):
        return NO
    return YES if high < 0 else UNDETERMINED


def agree(ends: Floats, band: float = BAND) -> tuple[str, bool]:
    """The first interval's answer, and whether all have it; ends (scales, 2)."""
    told = [decide(float(low), float(high), band) for low, high in ends]
    return (told[0], len(set(told)) == 1) if told else (UNDETERMINED, False)
