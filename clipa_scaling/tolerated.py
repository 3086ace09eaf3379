"""The shortest tolerated length: T_e, above which every m is 1 + e at most."""

from __future__ import annotations

import numpy as np

from clipa_scaling.answers import interval
from clipa_scaling.censored import fit_slopes
from clipa_scaling.multiplier import Floats, Signs
from clipa_scaling.slopes import count_used, find_noise

EPSILON = 0.25  # the share of further samples that a shorter length may cost


def find_tolerated(
    log_lengths: Floats, log_full: Floats, values: Floats, signs: Signs, epsilon: float = EPSILON
) -> tuple[Floats, Signs]:
    """log T_e and its censoring, both (B, G, I), from log m of each comparison.

    log_lengths (J,): of the lengths, the first standing for the reference, whose own are log_full
    (I,); values and signs (B, G, I, J) as in `multiplier`. From the reference down, the first m
    above 1 + e ends the search: T_e lies between it and the length before, where log m, linear in
    log T, is log(1 + e). -1: none ends it, so that T_e is shorter than the shortest, or what lies
    below is not known; 1: m of the first above is only known to be larger yet, so that T_e is
    longer. NaN where nothing is known, or only that T_e is no longer than the reference.
    """
    most = np.log1p(epsilon)
    found = np.full(values.shape[:3], np.nan)
    sides = np.zeros(found.shape, np.int8)
    for size, longest in enumerate(log_full):
        order = 1 + np.argsort(-log_lengths[1:], kind="stable")
        walk = Walk(longest, most, found.shape[:2])
        for at in order[log_lengths[order] < longest]:
            walk.step(log_lengths[at], values[:, :, size, at], signs[:, :, size, at])
        found[:, :, size], sides[:, :, size] = walk.end()
    return found, sides


class Walk:
    """From a size's full length down, for all draws and comparisons at once, (B, G)."""

    def __init__(self, longest: float, most: float, shape: tuple[int, ...]) -> None:
        self.most = most
        self.longest = longest
        self.length = np.full(shape, longest)  # the last that is tolerated
        self.value = np.zeros(shape)  # log m there
        self.below = np.zeros(shape, bool)  # its log m is only known to be smaller
        self.open = np.ones(shape, bool)
        self.found = np.full(shape, np.nan)
        self.side = np.zeros(shape, np.int8)

    def step(self, length: float, value: Floats, sign: Signs) -> None:
        """The next shorter length; NaN, where it has no m, is passed over."""
        known = self.open & ~np.isnan(value)
        above, within = (value > self.most) & (sign >= 0), (value <= self.most) & (sign <= 0)
        ends = known & above
        rise = np.where(ends, value - self.value, 1.0)
        share = np.where(ends, self.most - self.value, 0.0) / rise
        crossing = self.length + share * (length - self.length)
        opposed = self.below & (sign > 0)
        self.found[ends] = np.where(opposed, np.nan, crossing)[ends]
        self.side[ends] = np.where(self.below, -1, np.where(sign > 0, 1, 0))[ends]
        unknown = known & ~above & ~within
        self.close_at_last(unknown)
        goes_on = known & within
        self.length = np.where(goes_on, length, self.length)
        self.value = np.where(goes_on, value, self.value)
        self.below = np.where(goes_on, sign < 0, self.below)
        self.open &= ~(ends | unknown)

    def close_at_last(self, where: np.ndarray) -> None:
        """T_e is at most the last length that is tolerated; that of the reference says nothing."""
        is_short = self.length < self.longest
        self.found[where] = np.where(is_short, self.length, np.nan)[where]
        self.side[where] = -1

    def end(self) -> tuple[Floats, Signs]:
        self.close_at_last(self.open)
        return self.found, np.where(np.isnan(self.found), 0, self.side).astype(np.int8)


def find_exponent(log_size: Floats, values: Floats, signs: Signs) -> dict[str, object]:
    """nu = -d log T_e / d log N with its 95 % interval, from draws of log T_e, (B, G, I).

    An intercept for each comparison, which counts by its noise; bounds enter as bounds. `values` of
    T_e that it rests on, `bounds` among them.
    """
    exponent = -fit_slopes(log_size, values, signs, find_noise(values, signs))
    low, high = interval(exponent[1:])
    values_used, bounds = count_used(values, signs)
    return {
        "nu": float(exponent[0]), "low": low, "high": high, "values": values_used, "bounds": bounds
    }  # fmt: skip
