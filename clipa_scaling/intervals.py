"""Intervals of paired differences: one pair of runs, seeds, and clusters of examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.special import stdtrit

from clipa_scaling.cells import LEVEL
from clipa_scaling.schema import TableError

Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


@dataclass(frozen=True)
class Difference:
    """first - second, a fraction, with its 95 % interval; `seeds` pairs of runs, `n` examples."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    n: int
    seeds: int


@dataclass(frozen=True)
class Seeds:
    """The variance of one seed's difference, and the degrees of freedom behind it."""

    variance: float
    degrees: float


def score_interval(b: Any, c: Any, n: Any, z: float = Z) -> tuple[np.ndarray, np.ndarray]:
    """The ends of Tango's score interval for (b - c) / n; arrays broadcast.

    b, c: examples that only the first, only the second got right; they and n may be fractions.
    Tango, Statistics in Medicine 17 (1998) 891-908, solved by bisection: the differences at which
    the score statistic, its variance under that difference, is z and -z. Chosen over Wald's and
    Agresti and Min's, which cover less or more where few examples differ; see the tests.
    """
    b, c, n = (np.asarray(value, float) for value in (b, c, n))
    estimate = (b - c) / n

    def statistic(delta: np.ndarray) -> np.ndarray:
        linear = -b - c + (2 * n - b + c) * delta
        root = np.sqrt(np.maximum(linear**2 + 8 * n * c * delta * (1 - delta), 0))
        only_second = (root - linear) / (4 * n)
        variance = n * (2 * only_second + delta * (1 - delta))
        return np.asarray((b - c - n * delta) / np.sqrt(np.maximum(variance, 1e-300)))

    def solve(below: np.ndarray, above: np.ndarray, target: float) -> np.ndarray:
        for _ in range(52):  # bits of a float
            middle = (below + above) / 2
            larger = statistic(middle) > target  # it falls with delta
            below, above = np.where(larger, middle, below), np.where(larger, above, middle)
        return np.asarray((below + above) / 2)

    one = np.ones_like(estimate)
    return solve(-one, estimate, z), solve(estimate, one, -z)


def cluster_ends(text: str, n: int) -> np.ndarray:
    """(G,) where each cluster ends in N examples, of an `evals` row's `clusters`.

    A number is the size of each, several are sizes in turn, empty text is 1. Raises TableError
    where they do not add up to n.
    """
    sizes = [int(word) for word in str(text).split()] if text else [1]
    if len(sizes) == 1 and sizes[0] > 0 and n % sizes[0] == 0:
        sizes *= n // sizes[0]
    if sum(sizes) != n or min(sizes) < 1:
        raise TableError(f"evals: clusters={str(text)[:40]!r} do not make up n={n} examples")
    return np.asarray(np.cumsum(sizes))


def sum_clusters(x_SN: np.ndarray, ends_G: np.ndarray) -> np.ndarray:
    """(S, G) sums over the examples of each cluster."""
    starts_G = np.concatenate([[0], ends_G[:-1]])
    return np.asarray(np.add.reduceat(x_SN, starts_G, axis=-1))


def mean_variance(x_SN: np.ndarray, ends_G: np.ndarray) -> np.ndarray:
    """(S,) cluster-robust variances of the rows' means over examples."""
    n, count = x_SN.shape[-1], len(ends_G)
    sizes = np.diff(ends_G, prepend=0)
    rests = sum_clusters(x_SN, ends_G) - x_SN.mean(axis=-1, keepdims=True) * sizes
    return np.asarray(count / max(count - 1, 1) * (rests**2).sum(axis=-1) / n**2)


def compare_bits(
    first_SN: np.ndarray, second_SN: np.ndarray, clusters: str = "", pooled: Seeds | None = None
) -> Difference:
    """The interval of a difference between two runs, or two cells of S seeds, on N examples.

    first_SN, second_SN: bool, rows of equal seeds; clusters: as in `evals`. One seed: Tango's score
    interval, with clusters at the number of examples that have the same variance if independent
    (Rao and Scott); training noise is not in it. Several: seeds and examples are crossed, so that
    the variance of seeds and that of examples add up, less that of their interaction, which is in
    both. Student's t for the first, with its degrees of freedom, and the normal quantile for the
    second: Welch and Satterthwaite's compromise covers 90 % with two seeds, this one 95 % or more.
    pooled: variance of seeds from more cells.
    """
    first_SN, second_SN = np.atleast_2d(first_SN), np.atleast_2d(second_SN)
    difference_SN = first_SN.astype(float) - second_SN
    seeds, n = difference_SN.shape
    ends_G = cluster_ends(clusters, n)
    found = float(difference_SN.mean())
    if seeds == 1:
        [low], [high] = interval_of_examples(difference_SN, ends_G)
    else:
        noise = pooled or seed_noise(difference_SN)
        of_seeds = noise.variance / seeds
        of_examples = float(mean_variance(difference_SN.mean(axis=0)[None], ends_G)[0])
        own = max(of_examples - interaction(difference_SN, ends_G), 0.0)
        quantile = float(stdtrit(noise.degrees, 0.5 + LEVEL / 2))
        half = max(math.hypot(quantile * of_seeds**0.5, Z * own**0.5), Z * of_examples**0.5)
        low, high = found - half, found + half
    means = float(first_SN.mean()), float(second_SN.mean())
    return Difference(*means, found, float(low), float(high), n, seeds)


def seed_noise(difference_SN: np.ndarray) -> Seeds:
    means_S = difference_SN.mean(axis=-1)
    return Seeds(float(means_S.var(ddof=1)), len(means_S) - 1)


def pool(noises: Sequence[Seeds]) -> Seeds | None:
    """One variance of several cells, each weighed by its degrees of freedom; None without any."""
    degrees = sum(noise.degrees for noise in noises)
    if not degrees:
        return None
    return Seeds(sum(noise.variance * noise.degrees for noise in noises) / degrees, degrees)


def interval_of_examples(
    difference_RN: np.ndarray, ends_G: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(R,) ends of the interval of each row's mean; entries are -1, 0 and 1."""
    n = difference_RN.shape[-1]
    b, c = ((sign * difference_RN > 0).sum(axis=-1) for sign in (1, -1))
    effect = np.ones(b.shape)
    if len(ends_G) < n:
        alone = (b + c - (b - c) ** 2 / n) / n**2
        grouped = mean_variance(difference_RN, ends_G)
        # Without a difference anywhere nothing is known within clusters: each counts once.
        effect = np.full(b.shape, n / len(ends_G))
        np.divide(grouped, alone, out=effect, where=(alone > 0) & (grouped > 0))
    return score_interval(b / effect, c / effect, n / effect)


def interaction(difference_SN: np.ndarray, ends_G: np.ndarray) -> float:
    """The variance of the mean that comes from seeds and examples together."""
    seeds = len(difference_SN)
    rest_SN = difference_SN - difference_SN.mean(axis=0)
    return float(mean_variance(rest_SN, ends_G).sum() / (seeds - 1) / seeds)
