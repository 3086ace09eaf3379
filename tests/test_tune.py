"""Tuning: which short runs a file asks for, what they put into cells, and a real study of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_sweep import kill_tree, run_sweep, start_sweep, wait_until, write_small
from tuned_sweep import HEAD, Loss, bowl, end_all, end_run, load, of, rates, tuned_text

from clipa_scaling.cells import CELL, name_lines
from clipa_scaling.collect import collect
from clipa_scaling.grid import Planned
from clipa_scaling.plan import plan_to_json
from clipa_scaling.tunetable import make_tuned


def test_before_any_run_all_is_planned_and_priced_and_cells_wait(tmp_path: Path) -> None:
    text = tuned_text(rest="seeds: [0, 1]\nstages: {s: {kind: finetune, parent: pretrain}}\n")
    plan = load(tmp_path, text)
    assert rates(plan, "tune") == [(t, lr) for t in (1, 4) for lr in (1e-3, 2e-3, 4e-3)]
    assert rates(plan, "transfer") == [(1, 1e-3), (1, 4e-3)], "the third is the cell itself"
    assert rates(plan, "pretrain") == [(1, 2e-3), (1, 2e-3), (4, 2e-3), (4, 2e-3)]
    for run in of(plan, "tune"):
        assert (run.spec.samples, run.spec.warmup_samples, run.spec.tuned) == (256, 64, ())
    assert {run.spec.samples for run in of(plan, "transfer")} == {1_024}
    states = {row.planned.id: row.state for row in plan.rows}
    for run in [*of(plan, "pretrain"), *of(plan, "s"), *of(plan, "transfer")]:
        assert states[run.id].name == "blocked"
        assert states[run.id].reason == "waits for tuning of lr"
    whole = plan_to_json(plan)
    assert {cell["spec"]["lr"] for cell in whole["cells"] if cell["state"] == "blocked"} == {None}
    tuning = sum(row.cost.train_flops for row in plan.rows if row.planned.spec.stage == "tune")
    assert tuning > 0 and whole["totals"]["train_flops"] == pytest.approx(
        math.fsum(row.cost.train_flops for row in plan.rows)
    )
    assert not (tmp_path / "runs").exists()
    runs = collect(plan, tmp_path / "runs")["runs"]
    assert runs.loc[runs["state"] == "blocked", "lr"].isna().all()


def test_short_runs_may_have_a_schedule_of_their_own(tmp_path: Path) -> None:
    """Cells that a later stage decays are tuned on runs that decay; the cells stay as they were."""
    plan = load(tmp_path, tuned_text("set: {schedule: wsd, decay_samples: 512}"))
    short = {(run.spec.schedule, run.spec.decay_samples) for run in of(plan, "tune")}
    assert short == {("wsd", 128)}, "a quarter of the samples, so a quarter of the decay"
    assert {run.spec.schedule for run in of(plan, "pretrain")} == {"cosine"}


def test_a_tuned_cell_is_the_run_of_a_file_that_says_so(tmp_path: Path) -> None:
    text = tuned_text("transfer_samples: 0", "stages: {s: {kind: finetune, parent: pretrain}}\n")
    best = {1: 1.74e-3, 4: 2.36e-3}
    plan = end_all(tmp_path, text, "tune", lambda run: bowl(best[run.spec.image_tokens])(run))
    assert rates(plan, "pretrain") == rates(plan, "s") == [(1, 1.7e-3), (4, 2.4e-3)]
    assert {run.spec.tuned for run in of(plan, "pretrain")} == {("lr",)}
    said = HEAD.replace("samples: 1_024", "samples: 1_024, lr: 1.7e-3")
    assert of(load(tmp_path / "other", said), "pretrain")[0].id == of(plan, "pretrain")[0].id
    assert {row.state.name for row in plan.rows} == {"done", "planned", "blocked"}
    table = make_tuned(plan.sweep.grid.tuned)
    assert table["image_tokens"].tolist() == [1, 4] and table["value"].tolist() == [1.7e-3, 2.4e-3]
    assert table["interval"].unique().tolist() == ["no degrees of freedom"]
    assert table["low"].isna().all() and table["transfer_ratio"].isna().all()


def test_a_best_value_at_the_edge_asks_for_further_ones_and_then_is_taken(tmp_path: Path) -> None:
    text = tuned_text("extend: 2, transfer_samples: 0")
    best = {1: 5e-3, 4: 1e-6}
    loss: Loss = lambda run: bowl(best[run.spec.image_tokens])(run)  # noqa: E731
    plan = end_all(tmp_path, text, "tune", loss)
    assert [run.waits for run in of(plan, "pretrain")] == [("lr",)] * 2
    assert (1, 8e-3) in rates(plan, "tune") and (4, 5e-4) in rates(plan, "tune")
    plan = end_all(tmp_path, text, "tune", loss)
    assert (4, 2.5e-4) in rates(plan, "tune") and rates(plan, "pretrain")[0] == (1, 5e-3)
    plan = end_all(tmp_path, text, "tune", loss)
    assert rates(plan, "pretrain") == [(1, 5e-3), (4, 2.5e-4)]
    assert [item.optimum and item.optimum.flag for item in plan.sweep.grid.tuned] == [
        "", "at the edge",
    ]  # fmt: skip
    [said] = [line for line in plan.warnings if "lr for" in line]
    assert said == "lr for image_tokens=4: at the edge of 0.00025 to 0.004; 0.00025 is taken"


def test_diverged_runs_are_a_result_and_all_of_them_a_reason_to_wait(tmp_path: Path) -> None:
    text = tuned_text("extend: 1, transfer_samples: 0")

    def loss(run: Planned) -> float:
        diverges = run.spec.lr > 2e-3 or run.spec.image_tokens > 1
        return math.inf if diverges else bowl(2e-3)(run)

    plan = end_all(tmp_path, text, "tune", loss)
    assert rates(plan, "pretrain")[0] == (1, 2e-3) and not of(plan, "pretrain")[0].waits
    assert (4, 5e-4) in rates(plan, "tune"), "smaller values are tried where all diverged"
    assert all(not row.is_settled for row in plan.left)
    assert sum(row.state.name == "diverged" for row in plan.rows) == 4
    plan = end_all(tmp_path, text, "tune", lambda run: math.inf)
    assert of(plan, "pretrain")[1].waits == ("lr",)
    assert any("all runs diverged (0.0005 to 0.004)" in line for line in plan.warnings)
    assert [row.planned.id for row in plan.left] == [run.id for run in of(plan, "pretrain")]


def test_accuracy_is_judged_by_the_logarithm_of_its_error(tmp_path: Path) -> None:
    text = tuned_text("measure: accuracy, transfer_samples: 0")
    plan = end_all(
        tmp_path, text, "tune",
        lambda run: 1 - math.exp(-1 + 0.2 * math.log(run.spec.lr / 2.5e-3) ** 2), "accuracy",
    )  # fmt: skip
    assert rates(plan, "pretrain") == [(1, 2.5e-3), (4, 2.5e-3)]
    assert make_tuned(plan.sweep.grid.tuned)["set"].tolist() == ["scenes", "scenes"]


@pytest.mark.parametrize(("longer", "warns"), [(2e-3, False), (0.25e-3, True)])
def test_transfer_to_longer_runs_is_told_with_its_interval(
    tmp_path: Path, longer: float, warns: bool
) -> None:
    text = tuned_text("seeds: [0, 1]").replace("[1e-3, 2e-3, 4e-3]", "[1.5e-3, 2e-3, 2.7e-3]")

    def loss(run: Planned) -> float:
        lowest = 2e-3 if run.spec.stage == "tune" else longer
        return bowl(lowest, 1.0)(run) + (-1e-3 if run.spec.seed else 1e-3)

    plan = end_all(tmp_path, text, "tune", loss)
    assert not of(plan, "pretrain")[0].waits, "cells do not wait for the longer runs"
    assert len(of(plan, "transfer")) == 5, "one of the six is the cell itself"
    if warns:  # the best of three is the lowest: no interval, hence a question
        plan = end_all(tmp_path, text, "transfer", loss)
        end_run(tmp_path / "runs", of(plan, "pretrain")[0], loss(of(plan, "transfer")[0]) + 1)
        plan = load(tmp_path, text)
        assert any("whether tuning of lr transfers is open" in line for line in plan.warnings)
        return
    end_run(tmp_path / "runs", of(plan, "pretrain")[0], 3 + 1e-3)
    plan = end_all(tmp_path, text, "transfer", loss)
    row = make_tuned(plan.sweep.grid.tuned).iloc[0]
    assert row["transfer_samples"] == 1_024
    assert row["transfer_ratio"] == pytest.approx(1, abs=0.02)
    assert row["transfer_low"] < 1 < row["transfer_high"]
    assert not [line for line in plan.warnings if "transfer" in line]


def test_rules_hold_for_short_runs_and_those_that_set_the_field_end_its_tuning(
    tmp_path: Path,
) -> None:
    rules = """\
rules:
  - {when: {image_tokens: 4}, set: {lr: 5e-3, weight_decay: 0.1}}
  - {when: {image_tokens: 1}, set: {beta2: 0.98}}
exclude: [{when: {image_tokens: 9}, because: large}]
"""
    text = tuned_text("transfer_samples: 0", rules).replace("[1, 4]", "[1, 4, 9]")
    plan = load(tmp_path, text)
    assert {run.spec.image_tokens for run in of(plan, "tune")} == {1}
    assert {run.spec.beta2 for run in of(plan, "tune")} == {0.98}
    assert rates(plan, "pretrain") == [(1, 2e-3), (4, 5e-3)]
    assert of(plan, "pretrain")[1].spec.tuned == () and not of(plan, "pretrain")[1].waits
    said = "1 cells are not tuned: a rule or include sets their lr"
    assert any(said in line for line in plan.warnings)


def test_two_fields_are_tuned_each_at_the_files_value_of_the_other(tmp_path: Path) -> None:
    text = HEAD.replace("samples: 1_024", "samples: 1_024, lr: 1e-3") + (
        "tune:\n"
        "  lr: {over: [1e-3, 2e-3, 4e-3], at_samples: 256, per: [], transfer_samples: 0}\n"
        "  weight_decay:\n"
        "    {over: [0.05, 0.1, 0.4], at_samples: 1024, per: [image_tokens], extend: 0}\n"
    )
    plan = load(tmp_path, text)
    of_decay = [run.spec for run in of(plan, "tune") if run.trial == "weight_decay"]
    assert len(of(plan, "tune")) == 9 and {spec.lr for spec in of_decay} == {1e-3}
    assert of(plan, "pretrain")[0].waits == ("lr", "weight_decay")
    plan = end_all(tmp_path, text, "tune", lambda run: bowl(1e-3)(run) + run.spec.weight_decay)
    plan = end_all(tmp_path, text, "tune", bowl(1e-3))
    assert {run.spec.weight_decay for run in of(plan, "pretrain")} == {0.05}
    assert {run.spec.tuned for run in of(plan, "pretrain")} == {("lr", "weight_decay")}
    assert all(row.state.name == "done" for row in plan.rows if row.planned.spec.lr == 1e-3)


def test_a_line_of_a_figure_is_not_named_by_what_was_tuned() -> None:
    cells = pd.DataFrame(
        {"stage": "pretrain", "model": "S/16", "image_tokens": [4, 9, 4], "evaluated_at": 1}
        | {"lr": [1e-3, 2e-3, 3e-3], "tuned": ["lr", "lr", ""], "before": "", "samples": 1}
        | {"image_reduction": "resize"}
    )
    columns = {name: None for name in CELL if name not in cells}
    lines = name_lines(cells.assign(**columns))
    assert lines.tolist() == ["S/16, lr=tuned", "S/16, lr=tuned", "S/16, lr=0.003"]


def test_a_short_run_without_the_evaluation_is_named_not_guessed(tmp_path: Path) -> None:
    text = tuned_text("measure: loss, transfer_samples: 0")
    plan = end_all(tmp_path, text, "tune", lambda run: 0.5, "accuracy")
    assert of(plan, "pretrain")[0].waits == ("lr",)
    assert sum("was never evaluated by what tuning asks for" in line for line in plan.warnings) == 6
    assert sum("held_out; pass --evaluate to do so" in line for line in plan.warnings) == 6


# Rates far too low, so that the ladder is sure to grow upwards.
REAL = (
    tuned_text("extend: 1, transfer_samples: 192")
    .replace("[1e-3, 2e-3, 4e-3]", "[1e-6, 1e-5, 1e-4]")
    .replace("at_samples: 250", "at_samples: 128")
    .replace("samples: 1_024, batch_size: 64, warmup_samples: 256", "samples: 256, batch_size: 32")
    .replace("text_tokens: 8", "text_tokens: 8, precision: fp32")
    .replace("pairs: 1_000", "pairs: 256")
)


def read_plan(sweep: Path) -> dict[str, Any]:
    done = run_sweep(sweep, "--plan", "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_study_tunes_extends_its_ladder_trains_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    sweep = write_small(tmp_path, REAL)
    states = [cell["state"] for cell in read_plan(sweep)["cells"]]
    assert states == ["planned"] * 6 + ["blocked"] * 5
    runs = tmp_path / "runs"
    process = start_sweep(sweep, "--cluster", "inline")
    assert wait_until(lambda: len(list(runs.glob("*/done.json"))) == 2, process)
    kill_tree(process)
    done = run_sweep(sweep, "--cluster", "inline")
    assert done.returncode == 0, done.stderr + done.stdout
    cells = read_plan(sweep)["cells"]
    assert [cell["state"] for cell in cells] == ["done"] * len(cells)
    by_stage = {
        stage: [cell["spec"] for cell in cells if cell["spec"]["stage"] == stage]
        for stage in ("tune", "transfer", "pretrain")
    }
    assert len(by_stage["tune"]) == 8, "each ladder grew by one value"
    assert sorted({spec["lr"] for spec in by_stage["tune"]}) == [1e-6, 1e-5, 1e-4, 1e-3]
    assert len(by_stage["transfer"]) == 3 and len(by_stage["pretrain"]) == 2
    table = pd.read_csv(tmp_path / "results/tuned/tuned.csv")
    assert table["value"].tolist() == [spec["lr"] for spec in by_stage["pretrain"]]
    assert table["measure"].tolist() == ["loss"] * 2 and table["transfer_ratio"].notna()[0]
    assert {spec["tuned"][0] for spec in by_stage["pretrain"]} == {"lr"}
    assert "lr for image_tokens=4" in done.stdout and "model" in done.stdout
    told = pd.read_csv(tmp_path / "results/tuned/runs.csv")
    assert told.loc[told["stage"] == "pretrain", "tuned"].tolist() == ["lr", "lr"]
    before = (tmp_path / "results/tuned/tuned.csv").read_bytes()
    again = run_sweep(sweep, "--cluster", "inline")
    assert again.returncode == 0 and f"nothing to do: {len(cells)} done" in again.stdout
    assert (tmp_path / "results/tuned/tuned.csv").read_bytes() == before


def test_a_set_added_to_the_file_unmakes_no_tuned_value(tmp_path: Path) -> None:
    before = end_all(tmp_path, tuned_text("transfer_samples: 0"), "tune", bowl(1.7e-3))
    text = tuned_text("transfer_samples: 0").replace(
        "  evals:\n",
        "  evals:\n    newer: {path: scenes, task: retrieve, pairs: 9, seed: 77}\n",
        1,
    )
    after = load(tmp_path, text)
    assert rates(after, "pretrain") == rates(before, "pretrain")
    assert {run.waits for run in of(after, "pretrain")} == {()}
