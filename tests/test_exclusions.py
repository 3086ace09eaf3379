"""Runs left out by hand stay in the tables and out of cells; failures that cluster are told."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from small_sweep import run_sweep

from clipa_scaling import schema
from clipa_scaling.cells import summarise_cells
from clipa_scaling.collect import load_tables, make_table
from clipa_scaling.exclusions import (
    mark_left_out,
    permutation_test,
    read_exclusions,
    tell_left_out,
    warn_of_failures,
)
from clipa_scaling.figures import accuracy_vs_image_tokens
from clipa_scaling.yamlfile import SweepError

ENTRY = "{run: %s, because: a broken node, by: A. B., date: 2026-01-31}\n"
REASON = "a broken node (A. B., 2026-01-31)"
IDS = ["pretrain-B-16-s0", "pretrain-B-16-s1", "finetune-B-16-s0"]


def read(folder: Path, text: str, ids: list[str] = IDS) -> list[tuple[tuple[str, ...], str]]:
    (folder / "exclusions.yaml").write_text(text)
    return [(entry.runs, entry.reason) for entry in read_exclusions(folder, ids)]


def test_entries_name_runs_by_id_or_pattern(tmp_path: Path) -> None:
    assert read_exclusions(tmp_path, IDS) == []
    assert read(tmp_path, "# nothing yet\n") == []
    found = read(tmp_path, "- " + ENTRY % IDS[1] + "- " + ENTRY % "'*-s0'")
    assert found == [((IDS[1],), REASON), ((IDS[2], IDS[0]), REASON)]
    quoted = (ENTRY % IDS[0]).replace("2026-01-31", "'2026-01-31'")
    assert read(tmp_path, "- " + quoted)[0][1] == REASON


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n", "1: holds no list; an entry looks so: {run: "),
        ("- " + ENTRY % "pretrain-B-16-s3", "1: 0.run: 'pretrain-B-16-s3' fits no run of this study"
         "; nearest: pretrain-B-16-s1"),
        ("- " + ENTRY % "zzz*", "1: 0.run: 'zzz*' fits no run of this study; the column run"),
        ("- run: a\n  because: b\n  by: c\n", "1: 0: has no date; an entry looks so: {run: "),
        ("- " + (ENTRY % IDS[0]).replace("because", "becuase"), "1: 0.becuase: unknown key; nearest"
         ": because"),
        ("- run: 'pre*'\n  because: b\n  by: c\n  date: 2026-02-30\n", "4: 0.date: got '2026-02-30'"
         "; allowed: a date, e.g. 2026-01-31"),
        ("- run: 'pre*'\n  because: ''\n  by: c\n  date: 2026-02-03\n", "2: 0.because: is empty; "),
        ("- run: 'pre*'\n  because: b\n  by: 3\n  date: 2026-02-03\n", "3: 0.by: got 3; allowed: a "
         "value of type str"),
        ("- [\n", "2: "),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_with_file_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SweepError) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'exclusions.yaml'}:{said}")


def make_runs(**columns: list[object]) -> pd.DataFrame:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return make_table([{"stage": "pretrain", "state": "done", **row} for row in rows], schema.RUNS)


def test_children_are_left_out_with_their_parent(tmp_path: Path) -> None:
    runs = make_runs(run=["a", "b", "c", "d", None], parent=["", "a", "b", "", ""])
    (tmp_path / "exclusions.yaml").write_text("- " + ENTRY % "a")
    marked = mark_left_out(runs, read_exclusions(tmp_path, ["a", "b", "c", "d"]))
    assert marked["left_out"].fillna("-").tolist() == [
        REASON, f"child of a: {REASON}", f"child of b: {REASON}", "-", "-",
    ]  # fmt: skip
    assert tell_left_out(marked) == f"3 runs left out: {REASON}"
    assert tell_left_out(runs) == ""


def test_left_out_runs_are_in_no_cell_unless_asked(tmp_path: Path, small_study: Path) -> None:
    tables = load_tables(small_study.parent / "results" / "small")
    gone = str(tables["runs"]["run"][0])
    (tmp_path / "exclusions.yaml").write_text("- " + ENTRY % gone)
    marked = mark_left_out(tables["runs"], read_exclusions(tmp_path, tables["runs"]["run"]))
    without = {**tables, "runs": marked}
    assert len(marked) == 2
    everything = summarise_cells(tables)
    kept = summarise_cells(without)
    assert kept["image_reduction"].unique().tolist() == ["random"]
    pd.testing.assert_frame_equal(summarise_cells(without, left_out=True), everything)
    title = accuracy_vs_image_tokens(without, "title").get_suptitle()
    assert title.endswith(f"\n1 run left out: {REASON}")


def test_the_command_follows_the_file_and_refuses_its_mistakes(
    tmp_path: Path, small_study: Path
) -> None:
    shutil.copytree(small_study.parent, tmp_path / "copy")
    sweep = tmp_path / "copy" / small_study.name
    results = sweep.parent / "results" / "small"
    file = results / "exclusions.yaml"
    gone = str(load_tables(results)["runs"]["run"][0])
    file.write_text("- " + ENTRY % gone)
    done = run_sweep(sweep)
    assert done.returncode == 0 and f"1 run left out: {REASON}\n" in done.stdout, done.stderr
    assert load_tables(results)["runs"]["left_out"].fillna("").tolist() == [REASON, ""]
    assert run_sweep(sweep).stdout.startswith("nothing to do: 2 done")
    file.write_text("- " + ENTRY % "pretrain-B*")
    refused = run_sweep(sweep)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert f"{file}:1: 0.run: 'pretrain-B*' fits no run of this study" in refused.stderr
    file.unlink()
    assert "left out" not in run_sweep(sweep).stdout
    assert load_tables(results)["runs"]["left_out"].isna().all()


def make_grid(bad: list[bool], stage: str = "pretrain") -> pd.DataFrame:
    """24 runs: 3 learning rates x 4 lengths x 2 seeds, some of which failed."""
    grid = list(itertools.product([1e-3, 2e-3, 4e-3], [4, 9, 16, 36], [0, 1]))
    lr, tokens, seed = (list(column) for column in zip(*grid, strict=True))
    state: list[object] = ["diverged" if is_bad else "done" for is_bad in bad]
    runs: list[object] = [f"{stage}{number}" for number in range(24)]
    stages: list[object] = [stage] * 24
    return make_runs(run=runs, lr=lr, image_tokens=tokens, seed=seed, state=state, stage=stages)


def test_failures_at_one_learning_rate_are_told_and_scattered_ones_are_not() -> None:
    [line] = warn_of_failures(make_grid([number >= 18 for number in range(24)]))
    assert line.startswith("failures are not random: 6 of 8 runs at lr=0.004, and 0 of 16 elsewher")
    assert "below 0.05/3" in line
    assert warn_of_failures(make_grid([number % 8 == number // 8 for number in range(24)])) == []
    assert warn_of_failures(make_grid([False] * 24)) == warn_of_failures(make_grid([True] * 24))


def test_runs_left_out_by_hand_count_as_failures_and_their_children_do_not() -> None:
    runs = make_grid([False] * 24)
    hand = runs["lr"] == 4e-3
    marked = runs.assign(left_out=pd.Series(REASON, runs.index, dtype="string").where(hand))
    assert len(warn_of_failures(marked)) == 1
    children = "child of x: " + marked["left_out"]
    assert warn_of_failures(marked.assign(left_out=children)) == []


def test_the_p_value_is_fishers() -> None:
    """Two values of a field: the permutation test is Fisher's exact one up to its draws."""
    bad = np.array([True] * 5 + [False] * 7 + [True] * 1 + [False] * 11)
    key = pd.Series(["a"] * 12 + ["b"] * 12)
    exact = stats.fisher_exact(np.array([[5, 7], [1, 11]])).pvalue
    assert permutation_test(bad, key) == pytest.approx(exact, abs=4 * (exact / 20_000) ** 0.5)


def test_random_failures_are_told_no_more_often_than_one_in_twenty() -> None:
    rng = np.random.default_rng(3)
    told = sum(bool(warn_of_failures(make_grid(list(rng.random(24) < 0.3)))) for _ in range(60))
    assert told <= stats.binom.ppf(0.9999, 60, 0.05)
