"""Device hours used: every attempt from its start to its end, or to its last sign of life."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from clipa_scaling import schema
from clipa_scaling.collect import load_tables, make_table
from clipa_scaling.hours import used_hours
from clipa_scaling.outcome import print_hours
from clipa_scaling.rundir import RunDir, append_jsonl, write_json

GPU = {"device": "NVIDIA L40S", "threads": 16}
CPU = {"device": "cpu", "threads": 2}


def add_attempt(run: RunDir, number: int, begun: float, touched: float, **more: object) -> None:
    """An attempt whose log was last touched at a time."""
    folder = run.attempts / str(number)
    folder.mkdir(parents=True)
    write_json(folder / "env.json", {"time": begun, **GPU, **more})
    (folder / "log").write_text("")
    os.utime(folder / "log", (touched, touched))


def test_attempts_add_up_and_each_device_counts(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    add_attempt(run, 1, begun=1_000, touched=4_600)  # killed: nothing tells but its log
    add_attempt(run, 2, begun=10_000, touched=99_999)  # stopped
    write_json(run.attempts / "2/exit.json", {"code": 75, "time": 11_800})
    assert used_hours(run, gpus=4) == pytest.approx(4 * (1.0 + 0.5))


def test_core_hours_are_wall_time_times_threads(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    add_attempt(run, 1, begun=0, touched=0, **CPU)
    write_json(run.attempts / "1/exit.json", {"code": 0, "time": 3_600})
    assert used_hours(run, gpus=1) == pytest.approx(2.0)


def test_a_killed_attempt_ends_with_its_last_word(tmp_path: Path) -> None:
    """Its state, else its events; a log that a copy touched cannot reach into the next attempt."""
    run = RunDir(tmp_path)
    add_attempt(run, 1, begun=0, touched=0)
    append_jsonl(run.events, {"time": 1_800, "event": "started", "attempt": 1})
    add_attempt(run, 2, begun=3_600, touched=1e9)
    add_attempt(run, 3, begun=7_200, touched=1e9)
    write_json(run.state, {"state": "running", "attempt": 3, "samples": 0, "time": 9_000})
    # Closed by the launcher an hour after it died.
    write_json(run.attempts / "3/exit.json", {"code": None, "time": 12_600, "by": "launcher"})
    assert used_hours(run, gpus=1) == pytest.approx(0.5 + 1.0 + 0.5)


def test_the_table_has_what_runs_used_and_nothing_for_those_never_begun(small_study: Path) -> None:
    runs = load_tables(small_study.parent / "results" / "small")["runs"]
    wall = runs["seconds"] / 3600  # of training and evaluation; a process starts before
    assert (runs["gpu_hours_used"] > wall).all() and (runs["gpu_hours_used"] < wall + 0.1).all()
    table = make_table([{"run": "a", "state": "planned"}], schema.RUNS)
    assert table["gpu_hours_used"].isna().all()


def test_planned_and_used_stand_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"state": "done", "gpu_hours": 1.0, "gpu_hours_used": 1.5},
        {"state": "done", "gpu_hours": 2.0, "gpu_hours_used": 2.0},
        {"state": "done", "gpu_hours": 4.0, "gpu_hours_used": 4.4},
        {"state": "done", "gpu_hours": 4.0},  # by a version that did not count
        {"state": "failed", "gpu_hours": 8.0, "gpu_hours_used": 0.1},
    ]
    print_hours(Console(width=200), make_table(rows, schema.RUNS))
    said = capsys.readouterr().out
    assert said.startswith(
        "GPU-hours of 3 finished runs: 7 planned, 7.9 used; used / planned: median 1.1."
    )
    print_hours(Console(), pd.DataFrame(make_table(rows[4:], schema.RUNS)))
    assert not capsys.readouterr().out
