"""Finished runs evaluated on more: only what is missing, once, beside what the tables had."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_sweep import SMALL, outcome, run_sweep, write_small

from clipa_scaling import sweep as command_line
from clipa_scaling.cells import at_the_end, summarise_cells
from clipa_scaling.children import find_children
from clipa_scaling.collect import load_tables
from clipa_scaling.evaluating import plan_missing
from clipa_scaling.evaluation import Asked, asked_of, plan_evaluation
from clipa_scaling.grid import Planned
from clipa_scaling.plan import make_plan
from clipa_scaling.rundir import RunDir, make_run, read_json, write_json
from clipa_scaling.spec import run_id, spec_from_json, spec_to_json
from clipa_scaling.sweepfile import load_sweep
from clipa_scaling.yamlfile import SweepError

# The set of the small study, and one more.
NEW = """\
evals:
  scenes: {path: scenes, task: classify, pairs: 400, seed: 1, prompts: ["a large {}"]}
  more: {path: scenes, task: classify, pairs: 64, seed: 5}
evaluate: {protocol: [common, paper]}
"""
STAGE = "stages: {again: {kind: evaluate, parent: pretrain}}\n"


def copy_study(study: Path, folder: Path, text: str = SMALL) -> Path:
    shutil.copytree(study.parent, folder)
    sweep = folder / study.name
    sweep.write_text(text)
    (folder / "new.yaml").write_text(NEW)
    return sweep


def call(sweep: Path, *options: str) -> int:
    places = ["--runs", str(sweep.parent / "runs"), "--results", str(sweep.parent / "results")]
    return command_line.main([str(sweep), *places, *options])


def children_of(sweep: Path) -> list[RunDir]:
    return [RunDir(path) for path in sorted((sweep.parent / "runs").glob("evaluate-*"))]


@pytest.fixture
def copied(tmp_path: Path, small_study: Path) -> Path:
    return copy_study(small_study, tmp_path / "copy")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, small_study: Path) -> Path:
    """A copy of the small study, evaluated on NEW by the command that a user types."""
    sweep = copy_study(small_study, tmp_path_factory.mktemp("later") / "copy")
    done = run_sweep(sweep, "--evaluate", str(sweep.parent / "new.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "small: 2 done runs, of which evaluations are missing:" in done.stdout
    assert "more: common, training size: 2 of 2 runs" in done.stdout
    assert "scenes: common" not in done.stdout
    return sweep


def test_only_what_is_missing_is_measured_and_nothing_else_changes(
    evaluated: Path, small_study: Path
) -> None:
    children = children_of(evaluated)
    assert len(children) == 2
    for child in children:
        spec = spec_from_json(read_json(child.spec))
        scenes, more = spec.evals
        expected = {f"{scenes.benchmark}/paper", f"{more.benchmark}/common"}
        expected.add(f"{more.benchmark}/paper")
        assert {name.removesuffix("/training/v1") for name in spec.evaluations} == expected
        assert child.done.exists() and not child.checkpoints.exists()
        assert not child.metrics.exists()
    before, after = outcome(small_study.parent / "runs"), outcome(evaluated.parent / "runs")
    assert all(after[name] == value for name, value in before.items())


def test_the_tables_hold_both_under_the_run_that_was_measured(
    evaluated: Path, small_study: Path
) -> None:
    old = load_tables(small_study.parent / "results/small")
    tables = load_tables(evaluated.parent / "results/small")
    pd.testing.assert_frame_equal(tables["runs"], old["runs"])
    own = tables["evals"][tables["evals"]["by"].isna()].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, old["evals"])
    later = tables["evals"].dropna(subset=["by"])
    assert set(later["run"]) == set(old["runs"]["run"])
    assert set(later["by"]) == {child.path.name for child in children_of(evaluated)}
    found = later.groupby(["set", "protocol"]).size().to_dict()
    assert found == {("scenes", "paper"): 6, ("more", "common"): 6, ("more", "paper"): 6}
    pd.testing.assert_frame_equal(summarise_cells(tables), summarise_cells(old))


def test_twice_does_nothing_and_status_and_logs_know_the_runs(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = str(evaluated.parent / "new.yaml")
    assert call(evaluated, "--evaluate", new) == 0
    said = capsys.readouterr().out
    assert said.startswith("nothing to evaluate: 2 done runs have all that is asked for")
    assert not any((child.attempts / "2").exists() for child in children_of(evaluated))
    assert call(evaluated, "--status", "--json") == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["state"] for run in runs] == ["done"] * 4
    assert call(evaluated, "--logs", children_of(evaluated)[0].path.name) == 0
    assert call(evaluated) == 0
    assert "nothing to do: 2 done" in capsys.readouterr().out


def test_one_run_alone_and_then_the_rest(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each run is measured on what it lacks itself; in this process, one after another."""
    new = str(copied.parent / "new.yaml")
    only = ["--only", "image_reduction=random"]
    assert call(copied, "--evaluate", new, *only, "--cluster", "inline") == 0
    [first] = children_of(copied)
    assert "i5" in first.path.name
    capsys.readouterr()
    assert call(copied, "--evaluate", new, "--plan") == 0
    assert "more: paper, training size: 1 of 2 runs" in capsys.readouterr().out
    assert call(copied, "--evaluate", new, "--plan", "--json") == 0
    [cell] = json.loads(capsys.readouterr().out)["cells"]
    assert "-i4-" in cell["run"] and cell["state"] == "planned" and cell["cost"]["gpu_hours"] > 0
    assert len(children_of(copied)) == 1, "planned only"


def test_other_prompts_of_a_set_stand_beside_the_old_and_the_warning_goes(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied.write_text(SMALL.replace("a large {}", "there is a large {}"))
    assert call(copied, "--collect") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 done runs were evaluated on other sets, at other sizes or with other prompts" in said
    assert f"python -m clipa_scaling.sweep {copied} --evaluate" in said
    assert call(copied, "--evaluate", "--cluster", "inline") == 0
    assert "warning: 2 done runs" not in " ".join(capsys.readouterr().out.split())
    tables = load_tables(copied.parent / "results/small")
    rows = tables["evals"][tables["evals"]["name"] == "accuracy"]
    at_end = rows[rows["samples"] == 1_024]
    assert len(at_end) == 4 and at_end["fingerprint"].nunique() == 2
    assert at_end["by"].isna().tolist() == [True, False] * 2
    cells = summarise_cells(tables)
    assert (cells["evaluated_at"] == 1_024).all(), "the later way, in which all runs were"


def test_one_that_was_begun_goes_on_and_only_the_rest_is_added(copied: Path) -> None:
    runs = copied.parent / "runs"
    study = make_plan(load_sweep(copied, runs / ".packs"), runs)
    [whole, *_] = plan_missing(study, runs, copied.parent / "new.yaml", lambda _: True).plan.rows
    spec = whole.planned.spec
    parent = study.rows[0].planned
    assert spec.parent == parent.id
    begun = plan_evaluation(parent.id, parent.spec, asked_of(spec), spec.evaluations[:1], "x")
    make_run(RunDir(runs / run_id(begun)), spec_to_json(begun))
    rows = plan_missing(study, runs, copied.parent / "new.yaml", lambda _: True).plan.rows
    named = [set(row.planned.spec.evaluations) for row in rows]
    assert rows[0].planned.id == run_id(begun)
    assert named == [{*spec.evaluations[:1]}, {*spec.evaluations[1:]}, {*spec.evaluations}]


def test_the_id_follows_from_the_parent_and_what_is_measured(tmp_path: Path) -> None:
    sweep = load_sweep(write_small(tmp_path), tmp_path)
    asked = sweep.asked
    first, second = sweep.grid.runs

    def name(
        parent: Planned = first, asked: Asked = asked, stage: str = "evaluate", **changes: Any
    ) -> str:
        spec = replace(parent.spec, **changes)
        return run_id(plan_evaluation(parent.id, spec, asked, asked.evaluations(), stage))

    moved = tuple(replace(item, name="other", pack="elsewhere") for item in asked.evals[:1])
    moved += asked.evals[1:]
    same = [
        name(stage="x"),
        name(eval_batch=3, gpus=4, log_every_samples=64, keep_samples=(64,)),
        name(asked=replace(asked, evals=moved[::-1])),
        name(asked=replace(asked, full_px=99)),
    ]
    assert set(same) == {name()}
    others = [
        name(parent=second),
        name(asked=replace(asked, evals=asked.evals[:1])),
        name(asked=replace(asked, protocols=("common", "paper"))),
        name(asked=replace(asked, eval_sizes=("full",), full_px=32)),
        name(asked=replace(asked, eval_sizes=("full",), full_px=64)),
    ]
    assert len({name(), *others}) == 6
    assert name().startswith("evaluate-T32-8-i4-t8-1.02K-s0-")


def test_folders_of_other_runs_are_never_opened(tmp_path: Path) -> None:
    for number in range(300):
        folder = tmp_path / f"evaluate-T32-8-i4-t8-{number}-s0-0123456789"
        folder.mkdir()
        (folder / "spec.json").write_text("torn")
    assert find_children(tmp_path, ["pretrain-T32-8-i4-t8-1K-s0-0123456789"]) == {}
    with pytest.raises(json.JSONDecodeError):
        find_children(tmp_path, ["pretrain-T32-8-i4-t8-7-s0-0123456789"])


WRONG = {
    "a key of sweep files": ("fixed: {lr: 1}\n", ":5: fixed: unknown key; allowed: "),
    "a key of sets": (NEW.replace("pairs: 64", "pair: 64"), ":3: evals.more.pair: unknown key"),
    "prompts of a retrieval": (
        'evals:\n  x: {path: scenes, pairs: 9, seed: 7, task: retrieve, prompts: ["{}"]}\n',
        ":2: evals.x.prompts: are for task: classify; retrieval has captions; remove them",
    ),
    "training pictures": (
        NEW.replace("seed: 5", "seed: 0"),
        ":3: evals.more.seed: 0 is the training pictures'; allowed: any other seed",
    ),
    "a protocol": ("evaluate: {protocol: [papr]}\n", "protocol.0: 'papr' is no protocol"),
    "no block": ("{}\n", ":1: is empty; allowed: evals, evaluate"),
    "no sets": ("evals: {}\n", ": has no evaluation sets; add data.evals or evals"),
    "data that is not there": (
        "evals: {x: {path: '{0..1}.tar', task: retrieve}}\n",
        "{0..1}.tar: 0 of 2 shards exist, the first missing is ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_in_the_file_is_one_line_with_its_name(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = WRONG[mistake]
    sweep, new = write_small(tmp_path), tmp_path / "sub" / "new.yaml"
    new.parent.mkdir()
    new.write_text(NEW + text if mistake == "a key of sweep files" else text)
    for options in (["--plan"], []):
        assert call(sweep, "--evaluate", str(new), *options) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith(str(new))
        assert message in err
    assert not (tmp_path / "runs").exists()


def test_no_finished_run_is_nothing_to_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(write_small(tmp_path), "--evaluate") == 0
    assert capsys.readouterr().out == "nothing to evaluate: small has no finished run of these\n"
    assert not (tmp_path / "runs").exists() and not (tmp_path / "results").exists()


def test_a_stage_measures_and_is_no_cell(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the runs have measured themselves stands once, as theirs."""
    before = load_tables(copied.parent / "results/small")
    copied.write_text(SMALL + STAGE)
    assert call(copied, "--cluster", "inline") == 0, capsys.readouterr()
    tables = load_tables(copied.parent / "results/small")
    assert tables["runs"]["kind"].tolist() == ["pretrain"] * 2 + ["evaluate"] * 2
    assert tables["runs"]["state"].tolist() == ["done"] * 4
    pd.testing.assert_frame_equal(tables["evals"], before["evals"])
    pd.testing.assert_frame_equal(summarise_cells(tables), summarise_cells(before))
    capsys.readouterr()
    assert call(copied, "--evaluate") == 0
    assert capsys.readouterr().out.startswith("nothing to evaluate: 2 done runs")


def test_what_an_older_version_measured_is_measured_again(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one run nobody knows any more what its classes were called."""
    path = sorted((copied.parent / "runs").glob("pretrain-*"))[0] / "evals.json"
    rows = [{**row, "evaluation": None} for row in read_json(path)["rows"]]
    write_json(path, {"rows": rows})
    assert call(copied, "--collect") == 2
    assert "measure those runs again with --evaluate" in capsys.readouterr().err
    assert call(copied, "--evaluate", "--cluster", "inline") == 0, capsys.readouterr()
    assert len(children_of(copied)) == 1
    tables = load_tables(copied.parent / "results/small")
    assert at_the_end(summarise_cells(tables))["seeds"].tolist() == [1, 1]
    run, evals = path.parent.name, tables["evals"]
    ends = evals[(evals["run"] == run) & (evals["name"] == "accuracy") & (evals["samples"] == 1024)]
    assert ends["evaluation"].notna().tolist() == [False, True] and ends["value"].nunique() == 1


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (STAGE.replace("pretrain}", "pretrain, set: {lr: 1}}"), "again.set: is for training, and"),
        (STAGE.replace("}}", "}, on: {kind: finetune, parent: again}}"), "on.parent: again is an"),
    ],
)  # fmt: skip
def test_an_evaluation_trains_nothing(stage: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=message):
        load_sweep(write_small(tmp_path, SMALL + stage), tmp_path)
