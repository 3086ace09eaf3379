"""Rollouts: what is held out, how it is judged, and what knows nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from clipa_scaling.lawform import Floats
from clipa_scaling.laws import additive, loglinear, per_size
from clipa_scaling.rollout import BASELINES, NEAREST, OLS, find_full, rollout
from clipa_scaling.solve import Options, Points
from clipa_scaling.splits import find_splits

FAST = Options(scale="log", delta=np.inf, starts=512, keep=8)
SIZES, COUNTS, LENGTHS = (2e7, 8e7, 3e8, 1e9), (1e8, 4e8, 1e9, 2e9), (196.0, 100.0, 49.0, 16.0)


def truth(n: Floats, d: Floats, t: Floats) -> Floats:
    return 0.1 + 20 * n**-0.3 + 30 * d**-0.3 + 0.5 * t**-0.5


def make(
    law: Callable[[Floats, Floats, Floats], Floats] = truth,
    sizes: tuple[float, ...] = SIZES,
    counts: tuple[float, ...] = COUNTS,
    lengths: tuple[float, ...] = LENGTHS,
) -> Points:
    n, d, t = (part.ravel() for part in np.meshgrid(sizes, counts, lengths, indexing="ij"))
    return Points({"N": n, "D": d, "T": t, "C": n * d * t}, law(n, d, t))


def number(rows: pd.DataFrame, split: str, form: str, name: str) -> float:
    [value] = rows.loc[(rows["split"] == split) & (rows["form"] == form), name].astype(float)
    return float(value)


def status(rows: pd.DataFrame, split: str, form: str) -> str:
    [value] = rows.loc[(rows["split"] == split) & (rows["form"] == form), "status"]
    return str(value)


def test_splits_hold_out_the_ends() -> None:
    points = make()
    found = {split.name: split for split in find_splits(points)}
    expected = {
        "largest N": (points.x["N"] == 1e9, 1e9 / 3e8),
        "largest D": (points.x["D"] == 2e9, 2.0),
        "largest C": (points.x["C"] > 0.5 * points.x["C"].max(), None),
        "shortest T": (points.x["T"] == 16, 49 / 16),
        "largest N at short T": ((points.x["N"] == 1e9) & (points.x["T"] < 196), 1e9 / 3e8),
    }
    assert set(found) == set(expected)
    for name, (held, factor) in expected.items():
        np.testing.assert_array_equal(found[name].held, held)
        if factor is not None:
            assert found[name].factor == pytest.approx(factor)


def test_what_cannot_be_held_out_says_why() -> None:
    found = {split.name: split for split in find_splits(make(counts=(1e8,)))}
    assert "D (samples) does not vary" in found["largest D"].why
    assert not found["largest D"].held.any()
    few = {s.name: s for s in find_splits(make(sizes=(1e8, 1e9), counts=(1e8,), lengths=(9.0,)))}
    assert "fewer than 4 rows" in few["largest N"].why


def test_the_true_form_predicts_what_it_has_not_seen() -> None:
    rows = rollout(make(), [additive()], FAST, draws=0)
    own, naive = rows[rows["form"] == "additive"], rows[rows["form"].isin(BASELINES)]
    assert len(own) == 5 and (own["error"] < 1e-5).all() and (own["drop_error"] < 1e-5).all()
    assert (naive["error"] > 1e-3).all()


def test_two_levels_are_not_enough_unless_loosened() -> None:
    points = make(sizes=SIZES[:3])
    strict = rollout(points, [additive()], FAST, draws=0, loosened=False)
    assert "has 2 values only" in status(strict, "largest N", "additive")
    assert np.isnan(number(strict, "largest N", "additive", "error"))
    loose = rollout(points, [additive()], FAST, draws=0)
    assert number(loose, "largest N", "additive", "error") >= 0


def test_a_form_with_a_level_per_size_cannot_predict_a_new_one() -> None:
    points = make(counts=(1e9,))
    options = replace(FAST, scale="raw")
    rows = rollout(points, [per_size()], options, draws=0)
    assert "no prediction" in status(rows, "largest N", "per_size")
    assert number(rows, "largest N", "per_size", "drop_error") < 1e-6
    # Its drop at short lengths it can, once its full length is known; here none depends on N.
    assert number(rows, "largest N at short T", "per_size", "error") < 1e-6


def test_baselines_by_hand() -> None:
    points = make(law=lambda n, d, t: n**-0.2 * d**-0.1 * t**-0.1)
    rows = rollout(points, [loglinear()], FAST, draws=0)
    # A plane is right about a plane; of the longest neighbour, everything but T is the same.
    assert (rows.loc[rows["form"] == OLS, "error"] < 1e-9).all()
    held = points.x["T"] == 16
    off = points.y[points.x["T"] == 49] - points.y[held]
    assert number(rows, "shortest T", NEAREST, "error") == pytest.approx(np.abs(off).mean())
    assert number(rows, "shortest T", NEAREST, "bias") == pytest.approx(off.mean())


def test_full_is_the_longest_of_the_same_cell() -> None:
    points = make()
    full = find_full(points)
    for at, longest in enumerate(full):
        if points.x["T"][at] == 196:
            assert longest == -1
        else:
            assert points.x["T"][longest] == 196
            assert all(points.x[role][longest] == points.x[role][at] for role in "ND")


def test_prediction_intervals_hold_new_runs() -> None:
    rng = np.random.default_rng(0)
    points = make(law=lambda n, d, t: n**-0.2 * d**-0.1 * t**-0.1)
    shares = []
    for _ in range(30):
        noisy = replace(points, y=points.y * np.exp(0.05 * rng.standard_normal(len(points))))
        rows = rollout(noisy, [loglinear()], FAST, draws=200)
        shares += rows["covered"].dropna().tolist()
    # 150 splits; those of one world share its fit, so that their mean scatters by about .015.
    assert 0.91 <= np.mean(shares) <= 0.985
