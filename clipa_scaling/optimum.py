"""The best value of a field from runs over a ladder of them: a parabola and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95
REACH = 2  # values on either side of the best that the parabola goes through

AT_EDGE, NO_MINIMUM = "at the edge", "no minimum"
BESIDE_DIVERGED, ALL_DIVERGED = "beside diverged", "all diverged"
NO_FREEDOM, NOT_CERTAIN = "no degrees of freedom", "curvature not certain"


@dataclass(frozen=True)
class Optimum:
    """Where scores are lowest, with its 95 % interval.

    flag: empty where `value` is the parabola's minimum; else why it is a tried value: `at the
    edge`, `no minimum`, `beside diverged`; NaN with `all diverged`. note: why there is no finite
    interval: `no degrees of freedom` (low and high are NaN), `curvature not certain` (0 and
    infinity); both NaN under a flag too. edge: -1 or 1 where the optimum may lie below the lowest
    or above the highest value, else 0. points: scores behind the parabola.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    flag: str = ""
    note: str = ""
    edge: int = 0
    points: int = 0


@dataclass(frozen=True)
class Ratio:
    """One optimum over another, with its 95 % interval; NaN for what is unknown."""

    value: float
    low: float
    high: float


def find_optimum(values: Sequence[float], scores: Sequence[float]) -> Optimum:
    """The minimum of a parabola in log(value) through the best value and its neighbours.

    values: positive; one that stands several times was run with several seeds. scores: lower is
    better; NaN or infinity is a diverged run, worse than all others. The interval is Fieller's of
    -b / 2c, from least squares with residuals of one variance (Fieller 1954, J. R. Stat. Soc. B
    16:175). ValueError for fewer than two values, or one that is not positive.
    """
    ladder = sorted(set(values))
    if len(ladder) < 2 or not ladder[0] > 0 or not math.isfinite(ladder[-1]):
        raise ValueError(f"find_optimum: values={list(values)}; allowed: two or more above 0")
    found = [
        [score for x, score in zip(values, scores, strict=True) if x == value] for value in ladder
    ]
    finite = [all(math.isfinite(score) for score in group) for group in found]
    if not any(finite):
        return Optimum(math.nan, flag=ALL_DIVERGED)
    means = [math.fsum(g) / len(g) if ok else math.inf for g, ok in zip(found, finite, strict=True)]
    best = means.index(min(means))
    if best in (0, len(ladder) - 1):
        return Optimum(ladder[best], flag=AT_EDGE, edge=1 if best else -1)
    first, last = best, best
    while first > max(0, best - REACH) and finite[first - 1]:
        first -= 1
    while last < min(len(ladder) - 1, best + REACH) and finite[last + 1]:
        last += 1
    if last - first < 2:
        return Optimum(ladder[best], flag=BESIDE_DIVERGED)
    xs = [math.log(ladder[i] / ladder[best]) for i in range(first, last + 1) for _ in found[i]]
    ys = [score for group in found[first : last + 1] for score in group]
    vertex, low, high, note = fit_parabola(xs, ys)
    if math.isnan(vertex):
        return Optimum(ladder[best], flag=NO_MINIMUM, points=len(xs))
    value = ladder[best] * math.exp(min(max(vertex, min(xs)), max(xs)))
    beyond = (vertex > max(xs)) - (vertex < min(xs))
    if beyond:
        outer = first - 1 if beyond < 0 else last + 1
        if not 0 <= outer < len(ladder):
            return Optimum(value, flag=AT_EDGE, edge=beyond, points=len(xs))
        flag = NO_MINIMUM if finite[outer] else BESIDE_DIVERGED
        return Optimum(ladder[best], flag=flag, points=len(xs))
    to_value = [ladder[best] * math.exp(min(x, 700.0)) for x in (low, high)]
    bounds = (0.0, math.inf) if note == NOT_CERTAIN else (to_value[0], to_value[1])
    return Optimum(value, *bounds, note=note, points=len(xs))


def fit_parabola(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float, float, str]:
    """Where a + b x + c x^2 is lowest, its Fieller interval, and why that is not finite.

    NaN for the first where it has no minimum.
    """
    # Slow to import, and a plan without finished runs must stay quick.
    import numpy as np
    from scipy.special import stdtrit

    unit = max(map(abs, xs))  # powers of numbers of size 1 keep the normal equations well posed
    x = np.asarray(xs) / unit
    design = np.stack([np.ones_like(x), x, x * x], axis=1)
    inverse = np.linalg.inv(design.T @ design)
    fitted = inverse @ design.T @ np.asarray(ys)
    b, c = float(fitted[1]), float(fitted[2])
    if not c > 0:
        return math.nan, math.nan, math.nan, ""
    vertex = -b / (2 * c) * unit
    degrees = len(xs) - 3
    if degrees < 1:
        return vertex, math.nan, math.nan, NO_FREEDOM
    residuals = np.asarray(ys) - design @ fitted
    variance = inverse * float(residuals @ residuals) / degrees
    t2 = float(stdtrit(degrees, 0.5 + LEVEL / 2)) ** 2
    # All x with (b + 2 c x)^2 at most t^2 times its variance.
    square = 4 * (c * c - t2 * variance[2, 2])
    linear = 4 * (b * c - t2 * variance[1, 2])
    constant = b * b - t2 * variance[1, 1]
    if not square > 0:
        return vertex, -math.inf, math.inf, NOT_CERTAIN
    root = math.sqrt(max(0.0, linear * linear - 4 * square * constant))
    low, high = ((-linear + sign * root) / (2 * square) * unit for sign in (-1, 1))
    return vertex, low, high, ""


def find_ratio(long: Optimum, short: Optimum) -> Ratio:
    """One optimum over another of independent runs.

    The interval is MOVER's for a difference, of logarithms: each side takes the variance that the
    two intervals imply on it (Zou and Donner 2008, Stat. Med. 27:1693). NaN without both intervals.
    """
    value = long.value / short.value
    known = [long.low, long.high, short.low, short.high]
    if not all(map(math.isfinite, known)) or min(known) <= 0:
        return Ratio(value, math.nan, math.nan)
    below = math.hypot(math.log(long.value / long.low), math.log(short.high / short.value))
    above = math.hypot(math.log(long.high / long.value), math.log(short.value / short.low))
    return Ratio(value, value * math.exp(-below), value * math.exp(above))


def round_value(value: float) -> float:
    """Two significant digits, so that a score's last bits do not decide what run follows."""
    return float(f"{value:.2g}")
