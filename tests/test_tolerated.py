"""T_e and nu against worlds that give them in closed form, and at the ends of the grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_inverse import EXACT, compare, study

from clipa_scaling.inverse import judge
from clipa_scaling.multiplier import Floats
from clipa_scaling.slopes import FIXED_D, FIXED_RATIO, PATHS
from clipa_scaling.tolerated import find_exponent, find_tolerated
from clipa_scaling.worlds import inverse, inverse_exponent, size_independent

LENGTHS = np.log([np.nan, 100, 49, 16])
FULL = np.log([196.0])


def tolerated(
    *m: float, signs: tuple[int, ...] = (0, 0, 0), epsilon: float = 0.25
) -> tuple[float, int]:
    """T_e and its side, of one size with m at 100, 49 and 16 tokens."""
    values = np.log([1.0, *m]).reshape(1, 1, 1, 4)
    sides = np.array([0, *signs], np.int8).reshape(values.shape)
    found, side = find_tolerated(LENGTHS, FULL, values, sides, epsilon)
    return float(np.exp(found[0, 0, 0])), int(side[0, 0, 0])


def test_between_lengths_log_m_is_linear_in_log_tokens() -> None:
    wanted = 100 * (49 / 100) ** (np.log(1.25 / 1.1) / np.log(1.6 / 1.1))
    assert tolerated(1.1, 1.6, 3) == pytest.approx((wanted, 0))
    assert tolerated(1.1, 1.6, 3, epsilon=0.6) == pytest.approx((49, 0))


def test_the_first_length_above_ends_it_whatever_comes_below() -> None:
    """The smallest T above which every m is tolerated."""
    found, side = tolerated(1.5, 1.1, 1.0)
    assert (found, side) == pytest.approx((196 * (100 / 196) ** (np.log(1.25) / np.log(1.5)), 0))


def test_at_the_ends_of_the_grid_and_of_the_reference_there_are_bounds() -> None:
    assert tolerated(1.0, 1.1, 1.2) == pytest.approx((16, -1))
    assert tolerated(0.9, 0.8, 0.7) == pytest.approx((16, -1))
    # More than 2 is above 1.25; where exactly, T_e is longer than with 2 itself.
    found, side = tolerated(1.0, 2.0, 3.0, signs=(0, 1, 1))
    assert (found, side) == pytest.approx((100 * (49 / 100) ** (np.log(1.25) / np.log(2)), 1))
    # More than 1 may be within 1.25 or not: shorter than the last that is known to be.
    assert tolerated(1.1, 1.0, 3.0, signs=(0, 1, 0)) == pytest.approx((100, -1))
    assert tolerated(1.0, 1.0, 1.0, signs=(1, 1, 1)) == pytest.approx((np.nan, 0), nan_ok=True)
    # Less than 1 at 100: the crossing is at fewer tokens than from 1.
    found, side = tolerated(1.0, 2.0, 3.0, signs=(-1, 0, 0))
    assert (found, side) == pytest.approx((100 * (49 / 100) ** (np.log(1.25) / np.log(2)), -1))


def test_lengths_without_m_are_passed_over() -> None:
    found, side = tolerated(np.nan, 1.5625, 3)
    assert (found, side) == pytest.approx((np.sqrt(196 * 49), 0))


def closed_form(params: Floats, epsilon: float) -> Floats:
    """log m = exponent(N) log(T_full / T) -> T_e = T_full (1 + e)**(-1 / exponent)."""
    return np.asarray(196 * (1 + epsilon) ** (-1 / inverse_exponent(params)))


@pytest.mark.parametrize("epsilon", [0.1, 0.25, 0.5])
def test_lengths_and_exponent_are_those_of_the_law_on_fixed_paths(epsilon: float) -> None:
    verdict = judge(compare(study(inverse, EXACT)), seed_sd=1e-6, draws=20, epsilon=epsilon)
    table = verdict.tolerated[verdict.tolerated["bound"] == ""]
    wanted = closed_form(table["size"].to_numpy(float), epsilon)
    assert {FIXED_D, FIXED_RATIO} <= set(table["path"])
    assert table["tokens"].to_numpy(float) == pytest.approx(wanted, rel=0.03)
    sizes = np.sort(table["size"].unique())
    slope = -np.polyfit(np.log(sizes), np.log(closed_form(sizes, epsilon)), 1)[0]
    for row in verdict.nu[verdict.nu["path"] == FIXED_D].to_dict("records"):
        assert row["nu"] == pytest.approx(slope, abs=0.02)
        assert (row["answer"], row["agrees"]) == ("yes", True)


def test_intervals_hold_the_laws_exponent_in_noise() -> None:
    sizes = np.sort(compare(study(inverse, EXACT)).runs["size"].unique())
    slope = -np.polyfit(np.log(sizes), np.log(closed_form(sizes, 0.25)), 1)[0]
    held = []
    for seed in range(10):
        verdict = judge(compare(study(inverse, seed=seed)), draws=150, scales=("logit",))
        row = verdict.nu[verdict.nu["path"] == FIXED_D].iloc[0]
        held.append(row["low"] <= slope <= row["high"])
    assert sum(held) >= 7  # of 95 %, fewer in one of a thousand times


def test_a_length_that_all_sizes_tolerate_alike_has_no_exponent() -> None:
    verdict = judge(compare(study(size_independent, EXACT)), seed_sd=1e-6, draws=20)
    fixed = verdict.nu[verdict.nu["path"] == FIXED_D]
    assert fixed["nu"].abs().max() < 0.01 and set(fixed["answer"]) == {"no"}


def test_bounds_enter_the_exponent_as_bounds() -> None:
    """The largest of four sizes tolerates all lengths: its T_e is shorter than 49."""
    log_size = np.log([1.0, 2, 4, 16])
    truth = np.log(100) - 0.3 * log_size
    end = np.log(49)
    values = np.where(truth < end, end, truth)[None, None].repeat(21, 0)
    values[1:] += 0.01 * np.random.default_rng(0).normal(size=values[1:].shape) * (truth > end)
    signs = np.where(truth < end, -1, 0).astype(np.int8)[None, None].repeat(21, 0)
    assert (signs[0, 0] != 0).sum() == 1
    row = find_exponent(log_size, values, signs)
    assert row["nu"] == pytest.approx(0.3, abs=0.01)
    assert (row["values"], row["bounds"]) == (4, 1)


def test_a_design_that_cannot_answer_has_no_answer_of_this_kind_either() -> None:
    few = replace(EXACT, lengths=(196, 49))
    verdict = judge(compare(study(inverse, few)), seed_sd=1e-6, draws=20)
    assert set(verdict.nu["answer"]) == {"undetermined"} and set(verdict.nu["path"]) == {*PATHS}


def test_each_size_starts_at_the_full_length_of_its_patch() -> None:
    """m of 1.5625 at 64 tokens: halfway, in logarithms, from 196 or from 256."""
    values = np.log([[[[1.0, 1.5625]], [[1.0, 1.5625]]]]).reshape(1, 1, 2, 2)
    found, sides = find_tolerated(
        np.log([np.nan, 64]), np.log([196.0, 256.0]), values, np.zeros(values.shape, np.int8)
    )
    assert np.exp(found[0, 0]) == pytest.approx([np.sqrt(196 * 64), np.sqrt(256 * 64)])
    assert not sides.any()
