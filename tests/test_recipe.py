"""Recipes where the best is known: a law given, every candidate counted by hand."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest

from clipa_scaling import schema
from clipa_scaling.capped import capped
from clipa_scaling.collect import make_table
from clipa_scaling.counts import count_model
from clipa_scaling.lawform import LawError
from clipa_scaling.models import load_model
from clipa_scaling.points import Chosen, choose_points
from clipa_scaling.pricing import Budget, Pricing, read_pricing
from clipa_scaling.recipe import choose_law, find_recipe
from clipa_scaling.recipetable import say
from clipa_scaling.schema import TableError
from clipa_scaling.solve import Options, Points, fit
from clipa_scaling.split import Split, find_split
from clipa_scaling.worlds import Design, image_params, make_study, size_independent

FLOPS = Pricing("FLOPs", "a100-80gb", 0.3, "assumed", 49_408, True, True, False, "bf16", False)
MODELS = ("S/16", "B/16", "L/16")
SQUARES = [side**2 for side in range(3, 15)]  # from 9, above half of 16, to 196
BATCH = 4096


def flops(model: str, length: int) -> float:
    return count_model(load_model(model), length, length, 32, 49_408).flops_per_sample


def tower_law(size: float, length: float, samples: float) -> float:
    """The error of an own law with tau = 60 tokens."""
    t = length / (1 + length / 60)
    h = 0.2 * (size / 86e6) ** -0.4 + 0.3 * (samples / 1e9 * (t / 45) ** 1.2) ** -0.5
    return float(0.05 + 0.95 * (1 - 1 / (1 + h)))


def saturating() -> Chosen:
    samples = [1.25e8, 2.5e8, 5e8, 1e9, 2e9]
    rows = [*product(MODELS, (196, 100, 49, 36, 16), samples)]
    models, length, count = (np.array(each) for each in zip(*rows, strict=True))
    size = np.array([float(image_params(str(model))) for model in models])
    y = np.array([tower_law(*row) for row in zip(size, length, count, strict=True)])
    columns = {"N": "image_params", "D": "samples", "T": "image_tokens", "y": "accuracy"}
    points = Points({"N": size, "D": count, "T": length.astype(float)}, y, columns)
    return Chosen(points, models, {})


def test_the_best_of_a_known_law_is_found() -> None:
    """An exact study of a law whose tokens multiply samples, which the primary law holds."""
    design = Design(seed_sd=0, pictures=0, seeds=1)
    chosen = choose_points(make_study(size_independent, np.random.default_rng(0), design))
    law = choose_law(chosen, "primary", None, starts=256)
    for budget in (1e19, 1e21):
        found = find_recipe(
            chosen, FLOPS, Budget(budget, "FLOPs"), Split(), law, batch_size=BATCH, draws=20
        )
        best, expected = 0.0, ("", 0, 0)
        for model, length in product(MODELS, SQUARES):
            samples = int(budget / (3 * flops(model, length)) / BATCH) * BATCH
            values = (np.array([float(v)]) for v in (image_params(model), length, samples, 1))
            accuracy = float(size_independent(*values)[0])
            if accuracy > best:
                best, expected = accuracy, (model, length, samples)
        row = found.best
        assert (row["model"], row["image_tokens"], row["samples"]) == expected
        assert 1 - row["error"] == pytest.approx(best, abs=1e-3)


def test_the_band_holds_what_noise_cannot_tell_apart() -> None:
    chosen = choose_points(
        make_study(size_independent, np.random.default_rng(1), Design(lengths=(196, 49, 16)))
    )
    law = choose_law(chosen, "primary", None, starts=256)
    found = find_recipe(
        chosen, FLOPS, Budget(1e20, "FLOPs"), Split(), law, batch_size=BATCH, draws=100
    )
    table = found.table
    size, length, samples = (
        table[name].to_numpy(float) for name in ("N", "image_tokens", "samples")
    )
    true = size_independent(size, length, samples, np.ones(len(table)))
    assert table["as_good"][0]
    assert table["as_good"][int(true.argmax())]
    assert 1 < table["as_good"].sum() < len(table) / 2
    assert ((table["low"] <= table["error"]) & (table["error"] <= table["high"])).all()


def test_saturating_tokens_have_an_optimum_inside() -> None:
    chosen = saturating()
    found_law = fit(chosen.points, capped(), Options(scale="logit", starts=512, keep=8))
    assert found_law.params["tau"] == pytest.approx(60, rel=0.01)
    budget = 3e20
    found = find_recipe(
        chosen, FLOPS, Budget(budget, "FLOPs"), Split(), (found_law, "named", None),
        batch_size=BATCH, draws=20,
    )  # fmt: skip
    errors = {
        (model, length): tower_law(
            image_params(model), length,
            int(budget / (3 * flops(model, length)) / BATCH) * BATCH,
        )
        for model, length in product(MODELS, SQUARES)
    }  # fmt: skip
    model, length = min(errors, key=lambda key: errors[key])
    assert (found.best["model"], found.best["image_tokens"]) == (model, length)
    assert min(SQUARES) < length < max(SQUARES)
    assert not any("tokens" in edge for edge in found.edges)


def test_far_beyond_the_study_is_marked() -> None:
    chosen = saturating()
    law = fit(chosen.points, capped(), Options(scale="logit", starts=512, keep=8)), "named", None
    found = find_recipe(
        chosen, FLOPS, Budget(1e24, "FLOPs"), Split(), law, batch_size=BATCH, draws=20
    )
    best = found.best
    assert best["beyond"] == "samples"
    assert best["factor"] == pytest.approx(best["samples"] / 2e9)
    assert "L/16 is the largest model considered" in found.edges
    assert "times beyond the measured samples" in say(found)
    with pytest.raises(LawError, match="buys no batch"):
        find_recipe(chosen, FLOPS, Budget(1e9, "FLOPs"), Split(), law, batch_size=BATCH)


def test_dollars_are_hours_of_the_device() -> None:
    """A100's 312 TFLOP/s at 40 %: an hour is 4.49e17 FLOPs, and checkpointing a fourth forward."""
    hours = Pricing("GPU-hours", "a100-80gb", 0.4, "given", 49_408, True, True, False, "bf16", True)
    expected = 4 * flops("B/16", 49) / (312e12 * 0.4 * 3600)
    assert hours.per_sample("B/16", 49, 32, 196) == pytest.approx(expected, rel=1e-9)


def finetuned(levels: tuple[int, ...], slope: float) -> dict[str, pd.DataFrame]:
    """Two pretrains, each finetuned for so many samples: log odds rise by slope an e-fold."""
    runs: list[dict[str, object]] = []
    evals: list[dict[str, object]] = []
    for at, (model, base) in enumerate((("S/16", 0.1), ("B/16", 0.6))):
        start = f"pre-{at}"
        common = {"model": model, "image_tokens": 49, "text_tokens": 32, "seed": 0, "state": "done"}
        runs.append({**common, "run": start, "kind": "pretrain", "stage": "pretrain",
                     "samples": 10**9, "priced_by": "measured", "gpu_hours": 100.0,
                     "train_flops": 100 * 3600 * 312e12 * 0.35, "recompute_flops": 0.0,
                     "precision": "bf16", "vocab_size": 49_408, "ln_pre": True,
                     "image_position": "learned", "image_reduction": "resize"})  # fmt: skip
        for samples in levels:
            run = f"fine-{at}-{samples}"
            runs.append({**common, "run": run, "kind": "finetune", "stage": "finetune",
                         "parent": start, "samples": samples, "image_tokens": 196})  # fmt: skip
            odds = base + slope * math.log(samples / levels[0])
            evals.append({"run": run, "samples": samples, "set": "imagenet1k", "fingerprint": "f",
                          "protocol": "common", "size": "training", "name": "accuracy",
                          "value": 1 / (1 + math.exp(-odds)), "n": 10**12})  # fmt: skip
    return {
        "runs": make_table(runs, schema.RUNS),
        "evals": make_table(evals, schema.EVALS),
        "curves": make_table([], schema.CURVES),
    }


def test_a_split_is_identified_only_where_finetunes_were_varied() -> None:
    found = find_split(finetuned((1_000_000, 4_000_000, 16_000_000), 0.07))
    assert found.because == ""
    assert found.slope == pytest.approx(0.07, abs=1e-6)
    two = find_split(finetuned((1_000_000, 4_000_000), 0.07))
    assert "2 sample counts after one pretrain; needed: 3" in two.because
    assert find_split(make_study(size_independent, np.random.default_rng(0), Design())).stage == ""


def test_a_split_balances_both_stages() -> None:
    """Log odds rise by slope log F: the best share is counted out over all that are tried."""
    chosen = saturating()
    law = fit(chosen.points, capped(), Options(scale="logit", starts=512, keep=8)), "named", None
    split = Split("finetune", 10**8, 196, 32, 0.1, np.full(5, 0.1), 10**7, 10**9, "")
    budget = 3e20
    found = find_recipe(
        chosen, FLOPS, Budget(budget, "FLOPs"), split, law, models=["B/16"], batch_size=BATCH,
        draws=20,
    )  # fmt: skip
    odds = {}
    for share in (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5):
        finetune = share * budget / (3 * flops("B/16", 196))
        for length in SQUARES:
            samples = (1 - share) * budget / (3 * flops("B/16", length))
            error = tower_law(image_params("B/16"), length, samples)
            gain = 0.1 * math.log(finetune / 1e8)
            odds[(share, length)] = math.log((1 - error) / error) + gain
    share, length = max(odds, key=lambda key: odds[key])
    assert (found.best["share"], found.best["image_tokens"]) == (share, length)


def test_prices_take_the_speed_that_runs_had() -> None:
    runs = finetuned((1_000_000,), 0.0)["runs"]
    found = read_pricing(runs, "GPU-hours")
    assert found.utilisation == pytest.approx(0.35)
    assert found.source == "measured in 2 runs"
    assert read_pricing(runs, "GPU-hours", utilisation=0.2).utilisation == 0.2
    with pytest.raises(TableError, match="unknown; nearest"):
        read_pricing(runs, "GPU-hours", device="h100")
