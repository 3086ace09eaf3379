"""Tournaments: the true form wins, and what does not apply is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_rollout import COUNTS, LENGTHS, SIZES, make, truth

from clipa_scaling.lawform import LawError
from clipa_scaling.laws import LAWS, additive, bounded, loglinear, multiplicative, per_size, primary
from clipa_scaling.solve import Options, Points
from clipa_scaling.tournament import Tournament, adapt, compete, find_warnings, varying

FAST = Options(scale="log", delta="noise", starts=512, keep=6)


def scattered() -> Points:
    rng = np.random.default_rng(1)
    points = make()
    return replace(points, y=points.y * np.exp(0.002 * rng.standard_normal(len(points))))


@pytest.fixture(scope="module")
def found() -> Tournament:
    return compete(scattered(), [additive(), multiplicative(), loglinear(), per_size()], FAST)


def test_the_true_form_wins_both_ways(found: Tournament) -> None:
    assert found.best_aicc == found.best_rollout == "additive"
    assert not found.warnings
    table = found.table().set_index("form")
    behind, error = table["behind"].astype(float), table["rollout"].astype(float)
    assert behind["additive"] == 0 and behind["loglinear"] > 50
    assert error["additive"] < error["nearest run"] / 5


def test_forms_that_lack_a_term_are_listed(found: Tournament) -> None:
    assert found.reasons == {"per_size": "D (samples) varies, and the form has no term"}
    assert found.table().set_index("form").loc["per_size", "status"] == "not applicable"


def test_forms_take_the_roles_that_vary() -> None:
    flat = make(counts=(1e9,))
    assert varying(flat) == ("N", "T")
    assert adapt(additive(), flat)[0].roles == ("N", "T")
    form, why = adapt(LAWS["primary"], flat)
    assert form.roles == ("N", "D", "T") and why.startswith("D (samples) does not vary")
    assert adapt(LAWS["primary"], make(), worst=0.9)[0].given == {"worst": 0.9}


def test_one_model_has_no_form_per_size() -> None:
    """What is lost by D is no delta: with D and T alone the form is refused, not rebuilt."""
    points = make(sizes=(1e8,))
    assert varying(points) == ("D", "T")
    found = compete(points, [loglinear(), per_size()], FAST)
    assert list(found.fits) == ["loglinear"]
    assert found.reasons["per_size"].startswith("N (parameters) does not vary")
    with pytest.raises(LawError, match="per_size has roles D, T; allowed: N, T or N, S"):
        per_size(("D", "T"))
    assert per_size(("N", "S")).roles == ("N", "S")


def test_disagreement_is_told(found: Tournament) -> None:
    errors = {**found.errors, "additive": 0.5}
    told = find_warnings(replace(found, errors=errors), scattered())
    assert "AICc and rollout disagree: additive fits best" in told[0] and "predicts best" in told[0]
    errors = {**found.errors, "nearest run": 1e-9}
    told = find_warnings(replace(found, errors=errors), scattered())
    assert len(told) == 1 and "no form predicts better than the nearest run" in told[0]


@pytest.mark.parametrize(("worst", "count"), [(None, 1), (1.0, 0), (0.999, 0)])
def test_an_assumed_error_of_guessing_is_told(worst: float | None, count: int) -> None:
    quick = replace(FAST, starts=64, keep=2)
    told = compete(scattered(), [primary(), bounded()], quick, worst=worst)  # bounded has no kappa
    assert set(told.fits) == {"primary", "bounded"}
    lines = [line for line in told.warnings if line.startswith("kappa of primary is conditional")]
    assert len(lines) == count and all("E0 = 1," in line and "--worst" in line for line in lines)


def test_worlds_of_the_tests_are_wide_enough() -> None:
    y = truth(*(np.array(values[:3]) for values in (SIZES, COUNTS, LENGTHS)))
    assert ((y > 0) & (y < 1)).all()
