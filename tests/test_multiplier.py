"""m against laws that give it in closed form, and against functions of scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from clipa_scaling.censored import fit_slopes
from clipa_scaling.multiplier import Floats, along, interpolate, invert, isotonic, multipliers


def noise(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape)


def test_isotonic_is_scipys() -> None:
    values, weights = noise(0, 50, 7) + np.linspace(0, 2, 7), np.array([1.0, 2, 1, 3, 1, 1, 2])
    fitted = isotonic(values, weights)
    for row, wanted in zip(fitted, values, strict=True):
        assert row == pytest.approx(isotonic_regression(wanted, weights=weights).x, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_cubic_is_scipys(count: int) -> None:
    y = np.cumsum(np.abs(noise(1, 20, count)) + 0.05, axis=1)
    x = np.cumsum(np.abs(noise(2, count)) + 0.1)
    queries = y[:, [0]] + np.linspace(0, 1, 9) * (y[:, [-1]] - y[:, [0]])
    found = interpolate(y, x, queries)
    for row, knots, at in zip(found, y, queries, strict=True):
        wanted = np.interp(at, knots, x) if count == 2 else PchipInterpolator(knots, x)(at)
        assert row == pytest.approx(wanted, abs=1e-10)


def test_outside_the_reference_there_are_bounds_and_no_guesses() -> None:
    x, values = np.array([0.0, 1, 2]), np.array([[0.2, 0.4, 0.5]])
    found, signs = invert(x, values, np.ones(3), np.array([[0.1, 0.2, 0.5, 0.6, np.nan]]))
    assert signs.tolist() == [[-1, 0, 0, 1, 0]]
    assert found[0].tolist() == pytest.approx([0, 0, 2, 2, np.nan], nan_ok=True)


def test_a_reference_that_falls_is_one_knot_where_it_does() -> None:
    x, values = np.array([0.0, 1, 2, 3]), np.array([[0.1, 0.5, 0.3, 0.6]])
    found, signs = invert(x, values, np.ones(4), np.array([[0.4]]))
    assert (found[0, 0], signs[0, 0]) == (pytest.approx(1.5), 0)


def test_fewer_samples_at_a_short_length_are_legal() -> None:
    """m < 1: three times the accuracy's logarithm in D, shifted by a known factor."""
    x = np.log([1.0, 2, 4, 8])
    values = np.stack([np.stack([x, x + np.log(1.5)])])[None]  # a size, the reference and better
    found, signs = multipliers(x, values, np.ones((1, 2, 4)), 0)
    assert np.exp(found[0, 0, 1, :3]) == pytest.approx(1 / 1.5)
    assert signs[0, 0, 1].tolist() == [0, 0, 0, -1], "above the reference's last: less than 1"
    assert found[0, 0, 1, 3] == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 5))
def test_order_and_censoring_do_not_depend_on_the_scale(seed: int, power: float) -> None:
    """What is between the same two counts stays there, whatever increases with the measure."""
    values = np.sort(np.random.default_rng(seed).uniform(0.05, 0.95, (1, 1, 2, 5)), axis=-1)
    x, weights = np.arange(5.0), np.ones((1, 2, 5))
    one, signs = multipliers(x, values, weights, 0)
    two, others = multipliers(x, values**power, weights, 0)
    assert (signs == others).all()
    reached = np.stack([x - one, x - two])[:, 0, 0, 1][:, signs[0, 0, 1] == 0]
    assert np.abs(np.floor(reached + 1e-9) - np.floor(reached - 1e-9)).max(initial=0) <= 1
    assert np.abs(reached[0] - reached[1]).max(initial=0) <= 1


def test_between_sample_counts_bounds_stay_bounds() -> None:
    x = np.array([0.0, 1, 2, 3])
    values = np.array([0.0, 1, 1.5, np.nan]).reshape(1, 1, 1, 4)
    signs = np.array([1, 1, 0, 0], np.int8).reshape(1, 1, 1, 4)
    targets = np.array([[-0.1], [0.5], [1.5], [2], [2.5]])
    found, sides = along(x, values, signs, targets)
    assert found[0, :, 0, 0].tolist() == pytest.approx(
        [np.nan, 0.5, 1.25, 1.5, np.nan], nan_ok=True
    )
    assert sides[0, :, 0, 0].tolist() == [0, 1, 1, 0, 0]


def test_bounds_that_oppose_say_nothing_between_them() -> None:
    values, signs = np.zeros((1, 1, 1, 2)), np.array([[[[1, -1]]]], np.int8)
    found, _ = along(np.array([0.0, 1]), values, signs, np.array([[0.5]]))
    assert np.isnan(found).all()


def test_slopes_without_bounds_are_least_squares_within_groups() -> None:
    x, y = np.array([0.0, 1, 3]), noise(3, 4, 5, 3)
    spread = np.linspace(0.5, 2, 5)
    found = fit_slopes(x, y, np.zeros(y.shape, np.int8), spread)
    centred = x - x.mean()
    wanted = (y @ centred / spread**2).sum(axis=1) / ((centred**2).sum() / spread**2).sum()
    assert found == pytest.approx(wanted)


def test_slopes_with_bounds_find_what_is_behind_them() -> None:
    """Of 3,000 groups of six with a known slope, a fifth of the values is only known as bounds."""
    x, slope = np.arange(6.0) - 2.5, -0.3
    y = (slope * x + noise(4, 3000, 6) * 0.5 + noise(5, 3000, 1))[None]
    bound = np.quantile(y, 0.8)
    signs = (y > bound).astype(np.int8)
    clipped = np.minimum(y, bound)
    assert (signs == 1).mean() == pytest.approx(0.2, abs=0.01)
    [ignored] = fit_slopes(x, clipped, np.zeros_like(signs), np.full(3000, 0.5))
    [found] = fit_slopes(x, clipped, signs, np.full(3000, 0.5))
    assert abs(found - slope) < 0.012 < 0.04 < abs(ignored - slope)


def test_a_group_with_one_exact_value_gives_no_slope() -> None:
    y, signs = np.array([[[0.0, 1, 1]]]), np.array([[[0, 1, 1]]], np.int8)
    assert np.isnan(fit_slopes(np.arange(3.0), y, signs, np.ones(1))).all()
