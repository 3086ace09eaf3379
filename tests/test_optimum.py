"""The minimum of a parabola and its interval: exact cases, edges, divergence, and its coverage."""

from __future__ import annotations

import math
import random

import pytest
from scipy.stats import binom

from clipa_scaling.optimum import Optimum, find_optimum, find_ratio, round_value

LADDER = [1e-4, 2e-4, 4e-4, 8e-4, 16e-4]


def bowl(value: float, lowest: float, curvature: float = 0.1) -> float:
    return 3 + curvature * math.log(value / lowest) ** 2


@pytest.mark.parametrize("lowest", [2.5e-4, 3e-4, 4e-4, 5.5e-4])
def test_the_minimum_of_an_exact_parabola_is_found_whatever_its_order(lowest: float) -> None:
    for values in (LADDER, LADDER[::-1], [LADDER[i] for i in (2, 0, 4, 1, 3)]):
        found = find_optimum(values, [bowl(value, lowest) for value in values])
        assert (found.flag, found.note, found.edge) == ("", "", 0)
        for got in (found.value, found.low, found.high):
            assert got == pytest.approx(lowest, rel=1e-6)


def test_only_the_best_value_and_two_on_either_side_count() -> None:
    far = [1e-8, *LADDER, 1.0]
    found = find_optimum(far, [3.2, *(bowl(value, 4e-4) for value in LADDER), 99.0])
    assert found.value == pytest.approx(4e-4) and found.points == 5


def test_three_runs_tell_no_interval_and_seeds_do() -> None:
    values, scores = LADDER[1:4], [bowl(value, 3.5e-4) for value in LADDER[1:4]]
    alone = find_optimum(values, scores)
    assert alone.value == pytest.approx(3.5e-4) and alone.note == "no degrees of freedom"
    assert math.isnan(alone.low) and math.isnan(alone.high)
    twice = find_optimum([*values, *values], [s + d for d in (-1e-3, 1e-3) for s in scores])
    assert twice.value == pytest.approx(3.5e-4) and twice.points == 6
    assert 0 < twice.low < twice.value < twice.high < math.inf


def test_a_curvature_that_noise_could_have_made_bounds_nothing() -> None:
    found = find_optimum(LADDER, [3.00, 2.99, 2.97, 3.02, 2.98])
    assert found.note == "curvature not certain" and (found.low, found.high) == (0, math.inf)


@pytest.mark.parametrize(
    ("scores", "value", "flag", "edge"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], 1e-4, "at the edge", -1),
        ([5.0, 4.0, 3.0, 2.0, 1.0], 16e-4, "at the edge", 1),
        ([1.0, math.inf, 2.0, 2.0, 2.0], 1e-4, "at the edge", -1),
        ([2.0, 1.5, 1.0, math.inf, math.nan], 4e-4, "beside diverged", 0),
        ([math.nan, math.inf, 1.0, math.inf, math.inf], 4e-4, "beside diverged", 0),
        ([9.0, 1.1, 1.0, 1.1, -5.0], 16e-4, "at the edge", 1),
        ([0.0, 3.0, -0.1, 3.0, 0.0], 4e-4, "no minimum", 0),
    ],
)
def test_a_tried_value_is_taken_and_flagged_where_there_is_no_minimum(
    scores: list[float], value: float, flag: str, edge: int
) -> None:
    found = find_optimum(LADDER, scores)
    assert (found.value, found.flag, found.edge) == (value, flag, edge)
    assert math.isnan(found.low) and math.isnan(found.high)


def test_a_diverged_run_is_worse_than_all_on_its_side() -> None:
    """Three finite runs whose best has a neighbour that diverged: no edge, and a minimum."""
    scores = [bowl(value, 3e-4) for value in LADDER[:3]] + [math.inf, math.nan]
    found = find_optimum(LADDER, scores)
    assert (found.flag, found.edge, found.points) == ("", 0, 3)
    assert found.value == pytest.approx(3e-4)
    assert find_optimum(LADDER, [math.nan] * 5).flag == "all diverged"
    one_seed = find_optimum([*LADDER, 4e-4], [*(bowl(v, 3e-4) for v in LADDER), math.inf])
    assert one_seed.value == 2e-4, "a value that diverged under one seed is no value to take"


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator = random.Random(5)
    lowest, noise, trials = 4.4e-4, 0.012, 1_500
    covered, bounded = 0, 0
    for _ in range(trials):
        scores = [bowl(value, lowest) + generator.gauss(0, noise) for value in LADDER]
        found = find_optimum(LADDER, scores)
        assert not found.flag
        covered += found.low <= lowest <= found.high
        bounded += found.high < math.inf
    assert bounded > 0.9 * trials, "else covering is no feat"
    low, high = (float(binom.ppf(share, trials, 0.95)) for share in (1e-4, 1 - 1e-4))
    assert low <= covered <= high


def test_a_ratio_covers_too_and_is_unknown_without_both_intervals() -> None:
    generator = random.Random(6)
    noise, trials, covered = 0.012, 1_000, 0
    for _ in range(trials):
        long, short = (
            [bowl(value, at) + generator.gauss(0, noise) for value in LADDER] for at in (3e-4, 5e-4)
        )
        ratio = find_ratio(find_optimum(LADDER, long), find_optimum(LADDER, short))
        unknown = math.isnan(ratio.low)
        covered += unknown or ratio.low <= 0.6 <= ratio.high
    assert binom.cdf(covered, trials, 0.95) > 1e-4, "at least as often as it says"
    alone = find_ratio(Optimum(2e-4), Optimum(1e-4, 0.5e-4, 2e-4))
    assert alone.value == 2 and math.isnan(alone.low) and math.isnan(alone.high)


def test_values_that_make_no_ladder_are_refused() -> None:
    for values in ([1e-3], [0.0, 1e-3], [-1.0, 1.0], [1.0, math.inf]):
        with pytest.raises(ValueError, match="two or more above 0"):
            find_optimum(values, [1.0] * len(values))


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(1.0049e-3, 1e-3), (1.2345e-3, 1.2e-3), (0.1, 0.1), (9.96e-4, 1e-3), (4e-3 + 1e-18, 4e-3)],
)
def test_two_digits_decide_an_identity(value: float, rounded: float) -> None:
    assert round_value(value) == rounded
