"""Figures of fits show the fit's numbers: predictions, residuals, draws, ends, errors, choices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from clipa_scaling.bootstrap import bootstrap
from clipa_scaling.figures import fits, reach
from clipa_scaling.figures.plotted import read_plotted
from clipa_scaling.laws import multiplicative
from clipa_scaling.profile import Interval, Profile, intervals, profile
from clipa_scaling.rollout import loosen, predict_splits, rollout
from clipa_scaling.sensitivity import sensitivity
from clipa_scaling.solve import Fit, Options, Points, fit
from clipa_scaling.splits import find_splits

COLUMNS = {"N": "image_params", "D": "samples", "T": "image_tokens", "C": "train_flops"}
QUICK = Options(scale="log", starts=256, keep=4)


@pytest.fixture(scope="module")
def found() -> Fit:
    """error = 40 N^-.1 D^-.15 T^-.2 + .1, times noise of 1 %."""
    grid = np.meshgrid([1e6, 4e6, 16e6], [1e6, 4e6, 16e6], [4.0, 16.0, 64.0], indexing="ij")
    n, d, t = (part.ravel() for part in grid)
    noise = np.exp(0.01 * np.random.default_rng(3).standard_normal(len(n)))
    y = (40 * n**-0.1 * d**-0.15 * t**-0.2 + 0.1) * noise
    x = {"N": n, "D": d, "T": t, "C": 6 * n * d * t}
    points = Points(x=x, y=y, columns={**COLUMNS, "y": "accuracy"})
    return fit(points, multiplicative(("N", "D", "T")), QUICK)


@pytest.fixture(scope="module")
def models(found: Fit) -> np.ndarray:
    return np.array([f"M{size:g}" for size in found.points.x["N"] / 1e6])


def series(figure: Figure, **where: object) -> pd.DataFrame:
    rows = read_plotted(figure)
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return rows


def test_predictions_and_held_out_rows(found: Fit, models: np.ndarray) -> None:
    held = predict_splits(found.points, found.form, QUICK)
    figure = fits.predicted_vs_actual(found, models, held, "study")
    own = models == "M4"
    drawn = series(figure, panel="fitted rows", series="M4")
    assert np.allclose(drawn["x"], 1 - found.points.y[own])
    assert np.allclose(drawn["y"], 1 - found.predict(found.points.x)[own])
    [split] = [split for split in find_splits(found.points) if split.name == "largest N"]
    drawn = series(figure, panel="held out", series="largest N")
    assert np.allclose(drawn["x"], 1 - found.points.y[split.held])
    past = fit(found.points.take(~split.held), loosen(found.form, "N"), QUICK)
    there = past.predict(found.points.take(split.held).x)
    assert np.allclose(drawn["y"], 1 - there, atol=1e-6), "not of the fit that saw these rows"


def test_residuals_stand_at_their_own_values(found: Fit, models: np.ndarray) -> None:
    rows = series(fits.residuals(found, models), x_is="Image tokens", series="M16")
    own = models == "M16"
    assert np.allclose(rows["x"], found.points.x["T"][own])
    direct = np.log(found.predict(found.points.x)) - np.log(found.points.y)
    assert np.allclose(rows["y"], direct[own])


def test_pairs_flag_the_ridge(found: Fit) -> None:
    draws = bootstrap(found, 60)
    figure = fits.pairs(draws)
    names = found.law.names
    rows = series(figure, x_is=names[0], y_is=names[1], series="draws")
    assert np.allclose(rows[["x", "y"]], draws.params[:, :2])
    framed = {
        (axes.get_xlabel(), axes.get_ylabel())
        for axes in figure.axes
        if axes.get_title("right").startswith("ridge")
    }
    order = draws.params.argsort(axis=0).argsort(axis=0)
    ranks = np.abs(np.corrcoef(order.T))
    high = {
        (names[x], names[y]) for y in range(len(names)) for x in range(y) if ranks[x, y] >= 0.95
    }
    assert framed == high and framed, "an amplitude and the exponents behind it"


def test_profiles_end_where_the_intervals_do(found: Fit) -> None:
    one = profile(found, "alpha")
    rows = series(fits.profiles([one], found.law), series="95 % interval")
    told = intervals(found)["alpha"]
    assert rows["x"].tolist() == pytest.approx([told.low, told.high])
    inside = np.interp([told.low, told.high], one.values, one.rise)
    assert inside == pytest.approx([one.quantile] * 2, rel=0.05), "the profile crosses there"
    assert 0.06 < told.low < told.estimate < told.high < 0.14


def test_ends_that_are_none_have_no_mark_and_false_ones_a_warning(found: Fit) -> None:
    values = np.linspace(0.1, 2, 20)
    rise = np.abs(values - 1) * 4
    open_end = Profile("alpha", values, rise, 2.0, Interval(1, 0.5, np.inf, "no upper end"))
    astray = Profile("alpha", values, rise, 2.0, Interval(1, 0.5, 1.2))
    figure = fits.profiles([open_end, astray], found.law)
    ends = series(figure, series="95 % interval")
    assert ends["x"].tolist() == [0.5, 0.5, 1.2]
    first, second = (axes.get_title() for axes in figure.axes)
    assert "not identified" in first and "off the profile" in second


def test_rollouts_and_choices_are_the_tables(found: Fit, models: np.ndarray) -> None:
    table = rollout(found.points, [found.form], QUICK)
    rows = series(reach.rollout_errors(table, found.points), panel="multiplicative")
    for name in ("largest D", "shortest T"):
        own = table[(table["form"] == "multiplicative") & (table["split"] == name)]
        drawn = rows[rows["series"] == name]
        assert drawn["x"].tolist() == own["factor"].tolist() == [4.0]
        assert drawn["y"].tolist() == own["error"].tolist()
    assert set(rows["series"]) > {"nearest run", "log-linear OLS"}
    choices = sensitivity(found, models)
    rows = series(fits.forest(choices, intervals(found)), x_is="alpha")
    known = choices[choices["alpha"].notna()]
    assert rows["series"].tolist() == known["choice"].tolist()
    assert np.allclose(rows["x"], known["alpha"].astype(float))


def test_the_frontier_is_what_no_cheaper_cell_equals() -> None:
    """Of four cells, the dearest is no better than the one before it."""
    x = {
        "N": np.array([1e6, 1e6, 2e6, 2e6, 2e6]),
        "T": np.array([4.0, 16, 4, 16, 16]),
        "C": np.array([1e12, 4e12, 2e12, 8e12, 8e12]),
    }
    points = Points(x, np.array([0.8, 0.5, 0.7, 0.55, 0.45]), {**COLUMNS, "y": "accuracy"})
    cells = reach.find_frontier(points)
    assert cells["C"].tolist() == [1e12, 2e12, 4e12, 8e12], "repeats are one cell"
    assert cells["best"].tolist() == [True, True, True, False], "0.5, the mean of both"
    assert cells["edge"].tolist() == ["N- T-", "N+ T-", "N- T+", "N+ T+"]
    rows = series(reach.frontier(points), series="16, best")
    assert rows[["x", "y"]].to_numpy().tolist() == [[4e12, 0.5]]
