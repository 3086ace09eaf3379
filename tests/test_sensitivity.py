"""Every choice has its row, and moves what it must."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_rollout import make

from clipa_scaling.laws import additive
from clipa_scaling.sensitivity import find_keys, find_spans, sensitivity
from clipa_scaling.solve import Options, fit

FAST = Options(scale="log", delta="noise", starts=512, keep=6)


def test_choices_leave_a_noiseless_law_where_it_is() -> None:
    points = make()
    squared = replace(points, x={**points.x, "N": points.x["N"] ** 2})
    models = np.array([f"{n:g}" for n in points.x["N"]])
    found = fit(points, additive(), replace(FAST, delta=np.inf))
    table = sensitivity(found, models, {"N squared": squared}).set_index("choice")
    assert {"as fitted", "least squares", "scale raw", "scale logit", "without 1e+09"} < {
        *table.index
    }
    assert list(table.columns[2:]) == ["alpha", "beta", "gamma", "E"]
    assert table.loc["N squared", "alpha"] == pytest.approx(0.15, rel=1e-4)
    same = table.drop(index="N squared")
    truth = {"alpha": 0.3, "beta": 0.3, "gamma": 0.5, "E": 0.1}
    for name, value in truth.items():
        np.testing.assert_allclose(same[name].astype(float), value, rtol=1e-3)


def test_an_outlier_shows() -> None:
    points = make()
    off = points.y.copy()
    off[[3, 20, 40]] *= 1.5
    found = fit(replace(points, y=off), additive(), replace(FAST, delta=np.inf))
    table = sensitivity(found).set_index("choice")
    alpha = table["alpha"].astype(float)
    assert abs(alpha["as fitted"] - 0.3) > 0.01
    assert alpha["less 3 worst residuals"] == pytest.approx(0.3, rel=1e-3)
    spans = find_spans(table.reset_index())["alpha"]
    assert spans["min"] == alpha.min() < alpha.max() == spans["max"]


def test_too_few_sizes_are_told_and_not_guessed() -> None:
    points = make(sizes=(2e7, 8e7, 3e8))
    models = np.array([f"{n:g}" for n in points.x["N"]])
    table = sensitivity(fit(points, additive(), FAST), models).set_index("choice")
    assert str(table["status"]["without 2e+07"]).startswith("not identified: N")
    assert np.isnan(table["alpha"].astype(float)["without 2e+07"])


def test_keys_are_free_of_units() -> None:
    assert find_keys(["A", "alpha", "p_T", "B", "E"]) == ["alpha", "p_T", "E"]
    assert find_keys(["k", "gamma", "delta", "c1", "c2"]) == ["gamma", "delta"]
    assert find_keys(["A", "B"]) == ["A", "B"]
