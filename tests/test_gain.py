"""Compute gain against closed forms, with finetunes and without, and where it crosses 1."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_inverse import EXACT, compare, study

from clipa_scaling.compared import find_compared
from clipa_scaling.gain import Costs, find_crossings, find_gain
from clipa_scaling.inverse import judge
from clipa_scaling.multiplier import Floats, Signs
from clipa_scaling.worlds import flops_per_sample, inverse, inverse_exponent

LOG_SIZE = np.log([10.0, 100, 1000])


def test_without_later_stages_it_is_the_ratio_of_flops_over_m() -> None:
    table = judge(compare(study(inverse, EXACT)), seed_sd=1e-6, draws=20).multipliers
    known = table[table["bound"] == ""]
    m = (196 / known["image_tokens"]) ** inverse_exponent(known["image_params"].to_numpy(float))
    ratio = [
        flops_per_sample(model, 196) / flops_per_sample(model, tokens)
        for model, tokens in zip(known["model"], known["image_tokens"], strict=True)
    ]
    assert known["gain"].to_numpy(float) == pytest.approx((ratio / m).to_numpy(), rel=0.01)
    bounds = table[table["bound"] == ">"]
    assert len(bounds) and set(bounds["gain_bound"]) == {"<"}
    assert np.isinf(bounds["high"]).any() and (bounds["gain_low"] == 0).any()


def test_a_finetune_of_the_same_samples_costs_both_lengths_the_same() -> None:
    """(F + R0 D / m) / (F + R D), by hand: (100 + 8 * 10 / 2) / (100 + 2 * 10)."""
    costs = Costs(fixed=np.array([[100.0, 100]]), rate=np.array([[8.0, 2]]))
    values = np.log([[1.0], [2.0]]).reshape(1, 1, 2, 1)
    gain, _ = find_gain(np.log([10.0]), values, np.zeros(values.shape, np.int8), costs)
    assert np.exp(gain[0, 0, 1, 0]) == pytest.approx(140 / 120)


def test_a_finetunes_flops_are_told_from_what_it_started_from() -> None:
    tables = study(inverse)
    runs, evals = tables["runs"], tables["evals"]
    decays = runs[runs["kind"] == "decay"]
    children = decays.assign(
        run="ft" + decays["run"], parent=decays["run"], kind="finetune", stage="finetune",
        samples=10**6, image_tokens=196, schedule="cosine", train_flops=7e15,
    )  # fmt: skip
    ends = evals[evals["run"].isin(decays["run"])]
    tables["runs"] = pd.concat([runs, children.astype(runs.dtypes)], ignore_index=True)
    tables["evals"] = pd.concat([evals, ends.assign(run="ft" + ends["run"], samples=10**6)])
    [compared] = find_compared(tables)
    rows = compared.runs
    assert rows["fixed_flops"].to_numpy() == pytest.approx(np.full(len(rows), 7e15), rel=1e-6)
    whole = [
        3 * samples * flops_per_sample(model, tokens)
        for model, tokens, samples in zip(
            rows["model"], rows["length"], rows["samples"], strict=True
        )
    ]
    assert (rows["flops"] - rows["fixed_flops"]).to_numpy() == pytest.approx(np.array(whole))


def crossing(*gain: float, signs: tuple[int, ...] = (0, 0, 0), sd: float = 0.0) -> pd.Series:
    """Of G at three sizes, and of 200 draws around it."""
    noise = np.random.default_rng(0).normal(size=(201, 3)) * sd
    noise[0] = 0
    values: Floats = (np.log(gain) + noise)[:, :, None]
    sides: Signs = np.broadcast_to(np.array(signs, np.int8)[:, None], values.shape)
    return find_crossings(LOG_SIZE, np.array([0.0]), values, sides).iloc[0]


def test_the_crossing_is_linear_in_log_n() -> None:
    row = crossing(0.5, 0.8, 1.25, sd=0.02)
    assert row["size"] == pytest.approx(100 * 10**0.5)
    assert row["low"] < row["size"] < row["high"] and row["pays"] == "larger models"
    row = crossing(2.0, 0.5, 0.4)
    assert row["size"] == pytest.approx(10 * 10**0.5) and row["pays"] == "smaller models"


def test_where_it_never_crosses_the_sizes_bound_it() -> None:
    row = crossing(1.2, 1.5, 2.0)
    assert (row["bound"], row["size"], row["pays"]) == ("<", pytest.approx(10), "all sizes")
    row = crossing(0.2, 0.3, 0.5)
    assert (row["bound"], row["size"]) == (">", pytest.approx(1000))
    assert row["pays"] == "none of the sizes" and np.isinf(row["high"])
    # Near the end, the interval reaches among the sizes.
    row = crossing(0.5, 0.7, 0.99, sd=0.05)
    assert 100 < row["low"] < 1000 and np.isinf(row["high"])


def test_what_is_not_known_is_not_told() -> None:
    assert "more than once" in crossing(0.5, 1.5, 0.5)["because"]
    assert "bound" in crossing(0.5, 1.5, 2.0, signs=(0, -1, 0))["because"]
    row = crossing(0.5, 0.9, 2.0, signs=(0, -1, 0))  # less than .9 is less than 1
    assert np.isnan(row["size"]) and row["because"].startswith("between 100 and 1e+03")
    assert crossing(0.5, np.nan, np.nan)["because"] == "needs two sizes"
