"""Tables follow the folders: every run has its row, missing is missing, and lies are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from small_sweep import SMALL, write_small

from clipa_scaling import schema
from clipa_scaling.collect import collect, evaluated_otherwise, load_tables, save_tables
from clipa_scaling.plan import Plan, make_plan
from clipa_scaling.sweepfile import load_sweep

EXCLUDE = """\
exclude:
  - {when: {image_reduction: random}, because: "shows what an excluded cell looks like"}
"""


def plan_of(sweep: Path) -> Plan:
    runs = sweep.parent / "runs"
    return make_plan(load_sweep(sweep, runs / ".packs"), runs)


@pytest.fixture
def copied(tmp_path: Path, small_study: Path) -> Path:
    """A study of one's own to spoil."""
    shutil.copytree(small_study.parent, tmp_path / "copy")
    return tmp_path / "copy" / small_study.name


def test_the_tables_have_the_schemas_columns_and_all_runs(small_study: Path) -> None:
    tables = load_tables(small_study.parent / "results" / "small")
    for name, columns in (
        ("runs", schema.RUNS),
        ("evals", schema.EVALS),
        ("curves", schema.CURVES),
    ):
        assert list(tables[name].columns) == list(columns)
    runs = tables["runs"].set_index("image_reduction")
    assert runs.loc[["resize", "random"], "image_tokens"].tolist() == [4, 5]
    assert runs["image_tokens_seen"].tolist() == [4, 5]
    assert runs["eval_image_tokens"].tolist() == [4, 16]
    assert (runs["state"] == "done").all() and (runs["attempts"] == 1).all()
    assert runs["text_tokens_seen"].tolist() == [8, 8]
    assert len(tables["curves"]) == 2 * 1_024 // 128
    assert sorted(tables["evals"]["samples"].unique()) == [512, 1_024]
    names = {"accuracy", "accuracy_top5", "accuracy_per_class", "loss"}
    names |= {f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
    assert set(tables["evals"]["name"]) == names


def test_accuracy_of_a_run_is_its_last_evaluations(small_study: Path) -> None:
    tables = load_tables(small_study.parent / "results" / "small")
    evals = tables["evals"]
    last = evals[(evals["samples"] == 1_024) & (evals["name"] == "accuracy")].set_index("run")
    for _, run in tables["runs"].iterrows():
        assert run["accuracy"] == last.loc[run["run"], "value"]
        assert (run["accuracy_n"], run["accuracy_set"]) == (400, "scenes")


def test_csv_and_parquet_say_the_same(small_study: Path) -> None:
    folder = small_study.parent / "results" / "small"
    for name, table in load_tables(folder).items():
        text = pd.read_csv(folder / f"{name}.csv", dtype=dict(table.dtypes), keep_default_na=True)
        pd.testing.assert_frame_equal(text.fillna(pd.NA), table.replace("", pd.NA))


def test_collecting_again_changes_nothing(copied: Path) -> None:
    folder = copied.parent / "results" / "small"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    tables = collect(plan_of(copied), copied.parent / "runs")
    assert not save_tables(tables, folder)
    shutil.rmtree(folder)
    assert save_tables(tables, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_unfinished_and_excluded_runs_keep_their_row_and_missing_is_missing(copied: Path) -> None:
    copied.write_text(SMALL + EXCLUDE + "seeds: [0, 7]\n")
    tables = collect(plan_of(copied), copied.parent / "runs")
    runs = tables["runs"]
    assert runs["state"].tolist() == ["done", "planned", "excluded", "excluded"]
    assert runs["accuracy"].isna().tolist() == [False, True, True, True]
    assert runs["loss"].isna().tolist() == [False, True, True, True]
    assert runs["train_flops"].isna().tolist() == [False, False, True, True]
    assert runs["reason"].tolist()[2:] == ["shows what an excluded cell looks like"] * 2
    assert runs["seed"].tolist() == [0, 7, 0, 7]


@pytest.mark.parametrize("name", ["image_tokens_seen", "text_tokens_seen"])
def test_a_run_that_saw_other_tokens_than_declared_is_refused(copied: Path, name: str) -> None:
    [run, *_] = sorted((copied.parent / "runs").glob("pretrain-*"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows[2][name] += 1
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(schema.TableError) as caught:
        collect(plan_of(copied), copied.parent / "runs")
    declared = rows[2][name] - 1
    assert str(caught.value) == (
        f"{run.name}: {name}={declared + 1} at sample 384 differs from the declared {declared}; "
        "the run is not what it says: remove it"
    )


def test_tables_that_are_not_there_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"make it with python -m clipa_scaling\.sweep"):
        load_tables(tmp_path)


def test_a_study_before_its_first_run_collects_to_planned_rows(tmp_path: Path) -> None:
    tables = collect(plan_of(write_small(tmp_path)), tmp_path / "runs")
    assert tables["runs"]["state"].tolist() == ["planned", "planned"]
    assert len(tables["evals"]) == len(tables["curves"]) == 0


def test_done_runs_evaluated_otherwise_than_the_file_now_asks_are_counted(copied: Path) -> None:
    runs = copied.parent / "runs"
    plan = plan_of(copied)
    assert evaluated_otherwise(plan, collect(plan, runs)) == 0
    copied.write_text(SMALL.replace("a large {}", "there is a large {}"))
    plan = plan_of(copied)
    assert [row.state.name for row in plan.rows] == ["done", "done"]
    assert evaluated_otherwise(plan, collect(plan, runs)) == 2
