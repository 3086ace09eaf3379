"""Paired intervals hold the truth as often as they say, on sets drawn again."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats

from clipa_scaling.intervals import (
    cluster_ends,
    compare_bits,
    interval_of_examples,
    mean_variance,
    score_interval,
)
from clipa_scaling.schema import TableError

DRAWS = 2_000
# What 2,000 draws of an interval that covers 93 to 97 % can show, but for one time in 100,000.
FEWEST, MOST = (float(stats.binom.ppf(q, DRAWS, p)) for q, p in ((1e-5, 0.93), (1 - 1e-5, 0.97)))


def check(low: np.ndarray, high: np.ndarray, truth: float) -> None:
    assert FEWEST <= int(((low <= truth) & (truth <= high)).sum()) <= MOST


@pytest.mark.parametrize("n", [200, 1_000, 5_000])
def test_the_score_interval_covers(n: int) -> None:
    """At accuracies of 5 to 95 %, from independent runs (overlap 0) to ones right on the same.

    Not where fewer than 5 examples are expected to differ: there any interval covers in steps.
    """
    tried = 0
    for first, gap, overlap in itertools.product(
        (0.05, 0.3, 0.5, 0.8, 0.95), (0.0, 0.01, 0.1, 0.4), (0.0, 0.5, 0.9)
    ):
        second = first - gap if first > gap else first + gap
        both = (1 - overlap) * first * second + overlap * min(first, second)
        only = [first - both, second - both]
        if n * sum(only) >= 5:
            rng = np.random.default_rng([n, *(int(100 * x) for x in (first, gap, overlap))])
            counts = rng.multinomial(n, [*only, 1 - sum(only)], size=DRAWS)
            check(*score_interval(counts[:, 0], counts[:, 1], n), first - second)
            tried += 1
    assert tried >= 54


def test_runs_that_hardly_differ_never_cover_less() -> None:
    """With 1.8 or 0.2 differing examples in 5,000 it errs on the safe side."""
    for differing in (0.2, 1.8):
        share = differing / 5_000 / 2
        rng = np.random.default_rng(0)
        counts = rng.multinomial(5_000, [share, share, 1 - 2 * share], size=DRAWS)
        low, high = score_interval(counts[:, 0], counts[:, 1], 5_000)
        assert int(((low <= 0) & (high >= 0)).sum()) >= FEWEST


def test_the_ends_are_where_the_score_statistic_is_z() -> None:
    """By its definition: the variance is that of the likeliest shares with such a difference."""
    for b, c, n in ((20, 5, 60), (3, 9, 44), (1, 0, 200), (400, 350, 5_000)):
        for end, sign in zip(score_interval(b, c, n), (1, -1), strict=True):
            delta = float(end)

            def unlikelihood(only_second: float, b: int, c: int, n: int, delta: float) -> float:
                shares = [only_second + delta, only_second, 1 - 2 * only_second - delta]
                counts = (b, c, n - b - c)
                return -sum(k * math.log(p) for k, p in zip(counts, shares, strict=True) if k)

            limits = (max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12)
            likeliest = optimize.minimize_scalar(
                unlikelihood, bounds=limits, args=(b, c, n, delta), method="bounded",
                options={"xatol": 1e-13},
            ).x  # fmt: skip
            variance = n * (2 * likeliest + delta - delta**2)
            z = (b - c - n * delta) / math.sqrt(variance)
            assert z == pytest.approx(sign * stats.norm.ppf(0.975), abs=1e-4)
    z2 = stats.norm.ppf(0.975) ** 2
    low, high = score_interval(0, 0, 100)  # no example differs: Wilson's limit for a share of 0
    assert (-low, high) == pytest.approx((z2 / (100 + z2), z2 / (100 + z2)), rel=1e-9)


@pytest.mark.parametrize("text", ["5", "counts"])
def test_captions_of_one_picture_widen_the_interval_to_cover(text: str) -> None:
    """Captions of a picture share its difficulty in 7 cases of 10, another for each run."""
    rng = np.random.default_rng(1)
    sizes = np.full(200, 5) if text == "5" else rng.integers(1, 10, size=200)
    ends = cluster_ends("5" if text == "5" else " ".join(map(str, sizes)), int(sizes.sum()))
    right = []
    for chance in (0.45, 0.4):
        picture = np.repeat(rng.random((DRAWS, len(sizes))), sizes, axis=1)
        own = rng.random(picture.shape)
        right.append(np.where(rng.random(picture.shape) < 0.7, picture, own) < chance)
    difference = right[0].astype(float) - right[1]
    check(*interval_of_examples(difference, ends), 0.05)
    low, high = interval_of_examples(difference, cluster_ends("", difference.shape[1]))
    assert int(((low <= 0.05) & (high >= 0.05)).sum()) < FEWEST, "independent ones would not"


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("seeds", [2, 4])
def test_with_several_seeds_training_noise_is_in_it(noise: float, seeds: int) -> None:
    """Examples of other difficulty in each draw, seeds of other skill, and chance per answer."""
    rng = np.random.default_rng([seeds, int(100 * noise)])
    n, ends = 300, []
    for _ in range(DRAWS):
        hard = rng.normal(0, 0.25, size=n)
        tilt = rng.normal(0, 0.1, size=n)  # examples that the first finds easier
        skill = rng.normal(0, noise, size=(2, seeds, 1))
        first = rng.random((seeds, n)) < 0.5 + np.clip(hard + tilt + 0.04 + skill[0], -0.5, 0.5)
        second = rng.random((seeds, n)) < 0.5 + np.clip(hard - tilt + skill[1], -0.5, 0.5)
        found = compare_bits(first, second)
        ends.append((found.low, found.high))
    low, high = np.array(ends).T
    grid = rng.normal(0, 0.25, size=1_000_000)
    tilt = rng.normal(0, 0.1, size=1_000_000)
    noises = rng.normal(0, noise, size=(2, 1_000_000))
    better = np.clip(grid + tilt + 0.04 + noises[0], -0.5, 0.5)
    truth = float((better - np.clip(grid - tilt + noises[1], -0.5, 0.5)).mean())
    hits = int(((low <= truth) & (truth <= high)).sum())
    assert hits >= FEWEST and (hits <= MOST or noise == 0.0)


def test_the_variance_of_clusters_of_one_is_the_plain_one() -> None:
    x = np.random.default_rng(0).random((2, 50))
    assert mean_variance(x, cluster_ends("", 50)) == pytest.approx(x.var(axis=1, ddof=1) / 50)
    doubled = np.repeat(x, 2, axis=1)
    assert mean_variance(doubled, cluster_ends("2", 100)) == pytest.approx(
        x.var(axis=1, ddof=1) / 50
    )


def test_clusters_must_make_up_the_examples() -> None:
    assert cluster_ends("", 3).tolist() == [1, 2, 3]
    assert cluster_ends("5", 10).tolist() == [5, 10]
    assert cluster_ends("1 4 5", 10).tolist() == [1, 5, 10]
    for text in ("3", "4 5", "0 10", "1 4 6"):
        with pytest.raises(TableError, match="do not make up n=10 examples"):
            cluster_ends(text, 10)
