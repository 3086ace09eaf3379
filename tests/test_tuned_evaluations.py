"""Tuning, and what is evaluated later: which set judges, which short runs are measured."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from tuned_sweep import HEAD, bowl, end_all, load, of, rates, tuned_text

from clipa_scaling import sweep as command_line
from clipa_scaling.collect import collect, evaluated_otherwise, save_tables
from clipa_scaling.evaluating import plan_missing
from clipa_scaling.finish import check_exclusions
from clipa_scaling.grid import Planned
from clipa_scaling.plan import Plan, plan_to_json
from clipa_scaling.rundir import RunDir, make_run, write_json
from clipa_scaling.spec import spec_to_json
from clipa_scaling.yamlfile import SweepError

SHORT = "transfer_samples: 0"
FIRST = "    first: {path: scenes, task: retrieve, pairs: 100, seed: 3}\n"


def with_set_first(text: str) -> str:
    return text.replace("  evals:\n", "  evals:\n" + FIRST)


def missing(plan: Plan, runs: Path) -> list[Planned]:
    return [row.planned for row in plan_missing(plan, runs, None, lambda _: True).plan.rows]


def end_evaluation(runs: Path, child: Planned, value: float) -> None:
    """Leave what an evaluation run leaves that found one value on every set."""
    run = RunDir(runs / child.id)
    make_run(run, spec_to_json(child.spec))
    rows = [
        {"samples": child.spec.samples, "set": item.name, "fingerprint": item.benchmark}
        | {"protocol": "common", "name": "loss", "value": value, "n": 150}
        for item in child.spec.evals
    ]
    write_json(run.evals, {"rows": rows})
    write_json(run.done, {"samples": child.spec.samples, "attempt": 1})


def test_a_set_put_first_later_does_not_undo_tuning(tmp_path: Path) -> None:
    text, runs = tuned_text(SHORT), tmp_path / "runs"
    end_all(tmp_path, text, "tune", bowl(2e-3))
    end_all(tmp_path, text, "pretrain", bowl(2e-3))
    plan = load(tmp_path, with_set_first(text))
    cells = [row for row in plan.rows if row.planned.spec.stage == "pretrain"]
    assert [row.state.name for row in cells] == ["done"] * 2
    assert {item.measured for item in plan.sweep.grid.tuned} == {("loss", "held_out")}
    assert {child.spec.parent for child in missing(plan, runs)} == {row.planned.id for row in cells}
    assert evaluated_otherwise(plan, collect(plan, runs)) == 2, "the cells alone"


def test_a_retrieve_set_added_to_classes_alone_does_not_either(tmp_path: Path) -> None:
    text = tuned_text(SHORT)
    [line] = [line for line in HEAD.splitlines(keepends=True) if "held_out" in line]
    alone = text.replace(line, "")
    plan = end_all(tmp_path, alone, "tune", lambda run: 0.9 - bowl(2e-3)(run) / 10, "accuracy")
    plan = load(tmp_path, text)
    assert rates(plan, "pretrain") == [(1, 2e-3), (4, 2e-3)] and not of(plan, "pretrain")[0].waits
    assert {item.measured for item in plan.sweep.grid.tuned} == {("accuracy", "scenes")}


def test_short_runs_without_the_set_are_evaluated_on_it_alone_and_then_judged(
    tmp_path: Path,
) -> None:
    text, runs = tuned_text(f"measure: loss, {SHORT}"), tmp_path / "runs"
    plan = end_all(tmp_path, text, "tune", lambda run: 0.5, "accuracy")
    assert {run.lacks for run in of(plan, "tune")} == {"held_out"}
    found = missing(plan, runs)
    assert len(found) == 6
    assert {item.name for child in found for item in child.spec.evals} == {"held_out"}
    for child in found:
        end_evaluation(runs, child, bowl(2.5e-3)(child))
    plan = load(tmp_path, text)
    assert rates(plan, "pretrain") == [(1, 2.5e-3), (4, 2.5e-3)]
    assert not of(plan, "pretrain")[0].waits and not missing(plan, runs)
    assert not [line for line in plan.warnings if "never evaluated" in line]


def test_only_what_a_waiting_run_has_from_tuning_is_unknown(tmp_path: Path) -> None:
    """A stage with its own rate waits for its parent, and says its rate."""
    stages = """\
stages:
  own: {kind: finetune, parent: pretrain, set: {lr: 5e-5}}
  same: {kind: finetune, parent: pretrain}
  again: {kind: evaluate, parent: own}
"""
    plan = load(tmp_path, tuned_text(SHORT, stages))
    runs = collect(plan, tmp_path / "runs")["runs"]
    waiting = runs[runs["state"] == "blocked"].groupby("stage")["lr"]
    assert waiting.count().to_dict() == {"again": 2, "own": 2, "pretrain": 0, "same": 0}
    assert set(runs.loc[runs["stage"].isin(["own", "again"]), "lr"]) == {5e-5}
    cells = plan_to_json(plan)["cells"]
    told = {(cell["spec"]["stage"], cell["spec"]["lr"]) for cell in cells}
    assert {("own", 5e-5), ("again", 5e-5), ("same", None), ("pretrain", None)} <= told
    blocked = [cell for cell in cells if cell["state"] == "blocked"]
    assert len(blocked) == 8 and all(cell["run"].endswith("-untuned") for cell in blocked)
    assert {cell["reason"] for cell in blocked} == {"waits for tuning of lr"}


def call(folder: Path, *options: str) -> int:
    places = ["--runs", str(folder / "runs"), "--results", str(folder / "results")]
    return command_line.main([str(folder / "small.yaml"), *places, *options])


def test_cells_asked_for_before_their_tuning_say_what_they_wait_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(tmp_path, tuned_text(SHORT))
    assert call(tmp_path, "--only", "stage=pretrain", "--cluster", "local") == 1
    said = (
        "2 runs of --only wait for tuning of lr, whose runs are not among them: --only stage=tune"
    )
    assert said in capsys.readouterr().out


ENTRY = "- {run: %s, because: a broken node, by: A. B., date: 2026-01-31}\n"


def test_a_short_run_left_out_and_yet_used_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tuned_text(SHORT)
    end_all(tmp_path, text, "tune", bowl(2e-3))
    plan = end_all(tmp_path, text, "pretrain", bowl(2e-3))
    results = tmp_path / "results/tuned"
    results.mkdir(parents=True)
    short, cell = of(plan, "tune")[0].id, of(plan, "pretrain")[0].id
    (results / "exclusions.yaml").write_text(ENTRY % short + ENTRY % cell)
    said = f"{short} is left out by exclusions.yaml, and yet used by tune.lr"
    assert check_exclusions(plan, results) == [said]
    assert call(tmp_path, "--only", "stage=pretrain", "--cluster", "local") == 0
    assert capsys.readouterr().out.count("and yet used by tune.lr") == 1


def test_an_exclusion_may_name_an_imported_run_and_none_that_is_gone(tmp_path: Path) -> None:
    plan, results = load(tmp_path, tuned_text(SHORT)), tmp_path / "results/tuned"
    tables = collect(plan, tmp_path / "runs")
    theirs = tables["runs"].iloc[:2].assign(run=["theirs", "gone"], imported=["open_clip", ""])
    tables["runs"] = pd.concat([tables["runs"], theirs]).astype(tables["runs"].dtypes)
    save_tables(tables, results)
    (results / "exclusions.yaml").write_text(ENTRY % "theirs")
    assert check_exclusions(plan, results) == []
    (results / "exclusions.yaml").write_text(ENTRY % "gone")
    with pytest.raises(SweepError, match="'gone' fits no run of this study"):
        check_exclusions(plan, results)
