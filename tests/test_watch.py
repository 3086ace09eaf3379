"""Lost runs are told from their logged losses, and runs that learn never are."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_data import ROOT
from single_run import pack_scenes, plan_run
from step_values import OBJECTIVES

from clipa_scaling.rundir import DIVERGED, DONE, RunDir, read_jsonl, read_state
from clipa_scaling.train.loop import work
from clipa_scaling.train.loss import chance_loss
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.watch import Verdict, judge, tell

B = 32
CHANCE = math.log(B)


def rows_of(losses: Sequence[float] | np.ndarray, every: int = B) -> list[dict[str, Any]]:
    return [{"samples": (n + 1) * every, "loss": loss} for n, loss in enumerate(losses)]


def first_verdict(
    losses: Sequence[float] | np.ndarray,
    objective: str = "contrastive",
    chance: float = CHANCE,
    warmup: int = 0,
    every: int = B,
) -> tuple[int, Verdict] | None:
    """After how many rows a run is stopped, and why; as a run sees them, one more at a time."""
    rows = rows_of(losses, every)
    for count in range(1, len(rows) + 1):
        verdict = judge(rows[:count], objective, chance, B, warmup, len(rows) * every)
        if verdict:
            return count, verdict
    return None


def learning(count: int, noise: float, end: float = 1.0, seed: int = 0) -> np.ndarray:
    """A curve from above chance: flat for a tenth, then falling, each row with its own noise."""
    done = np.linspace(0, 1, count)
    fall = np.clip((done - 0.1) / 0.9, 0, 1) ** 0.4
    curve = CHANCE + 0.1 - (CHANCE - end) * fall
    return np.asarray(curve + np.random.default_rng(seed).normal(0, noise, count))


# Never


@pytest.mark.parametrize("study", ["mini", "emoji"])
def test_runs_of_committed_studies_are_never_stopped(study: str) -> None:
    folder, losses = ROOT / "results" / study, defaultdict(list)
    with open(folder / "runs.csv") as file:
        runs = {row["run"]: row for row in csv.DictReader(file)}
    with open(folder / "curves.csv") as file:
        for row in csv.DictReader(file):
            losses[row["run"]].append(row)
    assert len(losses) >= 12
    for run, curve in losses.items():
        spec = {name: int(runs[run][name]) for name in ("batch_size", "warmup_samples", "samples")}
        rows = [{"samples": int(r["samples"]), "loss": float(r["loss"])} for r in curve]
        chance = chance_loss("contrastive", spec["batch_size"], 0)
        for count in range(1, len(rows) + 1):
            assert not judge(rows[:count], "contrastive", chance, *spec.values()), run


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.25])
@pytest.mark.parametrize("end", [0.1, 1.0, 2.0, 3.0])
def test_noisy_rows_of_single_steps_are_never_stopped(noise: float, end: float) -> None:
    for seed in range(4):
        assert first_verdict(learning(1000, noise, end, seed)) is None


def test_a_run_below_its_200_steps_is_never_stuck() -> None:
    assert first_verdict([CHANCE + 0.01] * 199) is None
    assert first_verdict([CHANCE + 0.01] * 20, every=10 * B, warmup=200 * B) is None


@pytest.mark.parametrize("rows", [1, 2])
def test_a_spike_of_one_or_two_rows_is_survived(rows: int) -> None:
    losses = learning(400, 0.05)
    losses[300 : 300 + rows] = CHANCE + 2
    assert first_verdict(losses) is None


def test_a_small_rise_is_no_spike() -> None:
    losses = learning(400, 0.05, end=1.0)
    losses[300:] += 0.4 * (CHANCE - losses[:300].min())
    assert first_verdict(losses) is None


def test_a_run_that_slips_in_warm_up_is_let_be() -> None:
    losses = [1.0] * 10 + [CHANCE] * 10 + [1.0] * 300
    assert first_verdict(losses, warmup=20 * B) is None
    assert first_verdict(losses) is not None


# Told


def test_a_run_at_chance_is_stuck_once_it_is_late_enough() -> None:
    found = first_verdict([CHANCE + 0.001 * math.sin(n) for n in range(2000)])
    assert found is not None
    count, verdict = found
    assert count == 1001, "past half"
    assert verdict.reason.startswith("stuck at ln B = 3.466, chance: lowest loss=3.465 by sample")
    late = first_verdict([CHANCE] * 2000, warmup=1200 * B)
    assert late is not None and late[0] == 1201, "past the warm-up"
    assert first_verdict([0.99 * CHANCE] * 2000) is None, "little learned is a result"
    early = first_verdict([CHANCE] * 300)
    assert early is not None and early[0] == 200, "200 steps"


def test_a_run_that_never_falls_from_above_is_stuck() -> None:
    found = first_verdict([9.0] * 300)
    assert found is not None and found[1].reason.startswith("stuck")


@pytest.mark.parametrize("rise", [CHANCE, CHANCE + 5, 3.0])
def test_three_rows_up_are_a_spike(rise: float) -> None:
    losses = learning(400, 0.02, end=1.0)
    losses[300:] = rise
    found = first_verdict(losses)
    assert found is not None
    count, verdict = found
    assert count == 303
    assert verdict.good_until == 300 * B
    assert verdict.reason.startswith("loss spiked after sample 9600: from 1.")
    assert f"to {rise:.4g} at sample {303 * B}, chance is ln B = 3.466; lower lr" in verdict.reason


def test_a_model_that_barely_learnt_is_not_said_to_spike() -> None:
    losses = [0.95 * CHANCE] * 100 + [CHANCE] * 100
    assert first_verdict(losses) is None


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_has_its_chance(objective: str) -> None:
    chance = chance_loss(objective, B, 100)
    found = first_verdict([chance] * 300, objective, chance)
    assert found is not None
    name = {"contrastive": "ln B", "siglip": "the best constant's", "classify": "ln C"}[objective]
    assert found[1].reason.startswith(f"stuck at {name} = {chance:.4g}")
    assert first_verdict([0.9 * chance] * 300, objective, chance) is None


def test_the_reason_ends_with_the_last_good_checkpoint() -> None:
    verdict = Verdict("loss spiked", 9600)
    assert tell(verdict, None) == "loss spiked; no checkpoint"
    assert tell(verdict, 9600) == "loss spiked; last good checkpoint: 9600"
    assert tell(verdict, 9632).endswith("no good checkpoint: the last, 9632, is of the spike")


# Real runs


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return pack_scenes(tmp_path_factory.mktemp("packs") / "train", 700, 0)


def why(run: RunDir) -> str:
    """The reason in the state, which is that of the event."""
    state, last = read_state(run), read_jsonl(run.events)[-1]
    assert (state.name, state.kind) == (last["event"], last["kind"]) == ("diverged", "diverged")
    assert state.reason == last["reason"]
    return state.reason


def test_a_run_that_cannot_learn_is_stopped_as_stuck(pack: Pack, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"lr": 1e-12, "samples": 900 * B, "checkpoint_every_samples": 100 * B}
    run = plan_run(tmp_path / "stuck", pack, logit_scale_init=1.0, **changes)
    assert work(run) == (DIVERGED, None)
    reason = why(run)
    assert reason.startswith("stuck at ln B = 3.466") and "stop_diverged: false" in reason
    assert reason.endswith("last good checkpoint: 12800")
    assert read_jsonl(run.metrics)[-1]["samples"] == 451 * B
    assert work(run) == (DIVERGED, None), "a resumed one judges the same"
    assert why(run) == reason


def test_an_absurd_rate_is_stopped(pack: Pack, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "lr": 1e4,
        "samples": 400 * B,
        "warmup_samples": 0,
        "schedule": "constant",
    }
    run = plan_run(tmp_path / "absurd", pack, **changes)
    assert work(run) == (DIVERGED, None)
    assert "lr" in why(run)
    assert not run.done.exists()


def test_who_asks_for_it_is_not_stopped(pack: Pack, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"lr": 1e-12, "samples": 220 * B, "checkpoint_every_samples": 0}
    run = plan_run(tmp_path / "stuck", pack, stop_diverged=False, **changes)
    assert work(run) == (DONE, None)
    assert read_jsonl(run.metrics)[-1]["loss"] > 0.98 * CHANCE
