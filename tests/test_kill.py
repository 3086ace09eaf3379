"""kill -9 anywhere, then the same command: the same weights, metrics, evaluations and packs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest
from make_data import ROOT
from small_sweep import (
    command,
    kill_tree,
    outcome,
    run_sweep,
    start_sweep,
    wait_until,
    write_small,
)

from clipa_scaling.rundir import RunDir, read_json, read_state

ONE = ("--only", "image_reduction=resize")


@pytest.fixture(scope="module")
def uninterrupted(small_study: Path) -> dict[str, Any]:
    """What the small study leaves when nothing disturbs it."""
    return outcome(small_study.parent / "runs")


def write_packed(folder: Path, study: Path) -> Path:
    """The small study's file, its packs there already."""
    shutil.copytree(study.parent / "runs/.packs", folder / "runs/.packs")
    return write_small(folder)


def of_one(outcome: dict[str, Any]) -> dict[str, Any]:
    """What is left where ONE picks the run of 4 tokens, not that of 5."""
    return {name: value for name, value in outcome.items() if "-i5-" not in name}


def some(folder: Path, pattern: str) -> Callable[[], bool]:
    """Whether any path matches that was not there when the waiting began."""
    before = set(folder.glob(pattern))
    return lambda: any(path not in before for path in folder.glob(pattern))


def both(first: Callable[[], bool], second: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: first() and second()


def evaluated(folder: Path, samples: int) -> Callable[[], bool]:
    """Whether any run has evaluations at so many samples."""

    def look() -> bool:
        found = [read_json(path) for path in folder.glob("pretrain-*/evals.json")]
        return any(row["samples"] == samples for evals in found for row in evals["rows"])

    return look


def logged(folder: Path, rows: int) -> Callable[[], bool]:
    """Whether any run has so many rows of metrics."""
    return lambda: any(
        path.read_bytes().count(b"\n") >= rows for path in folder.glob("pretrain-*/metrics.jsonl")
    )


def moments(runs: Path) -> dict[str, Callable[[], Callable[[], bool]]]:
    """When to kill, in the order in which a study gets there; called when a process starts.

    What a kill before may have left counts only once a run has begun another attempt.
    """
    checkpoints = "pretrain-*/checkpoints"

    def taken() -> Callable[[], bool]:
        return some(runs, "pretrain-*/attempts/[0-9]*")

    return {
        "pack: pixels being written": lambda: some(runs, ".packs/*/.*.tmp"),
        "pack: one part of two done": lambda: some(runs, ".packs/*/0000?.json"),
        "pack: the training set done": lambda: some(runs, ".packs/*/pack.json"),
        "run: attempt taken": taken,
        "training: first rows": lambda: both(taken(), logged(runs, 1)),
        "checkpoint: folder being filled": lambda: some(runs, f"{checkpoints}/.*"),
        "checkpoint: weights half there": lambda: some(
            runs, f"{checkpoints}/.*/weights.safetensors"
        ),
        "checkpoint: in place, evaluation next": lambda: both(
            taken(), some(runs, f"{checkpoints}/512")
        ),
        "evaluation: written": lambda: both(taken(), evaluated(runs, 512)),
        "training: after the evaluation": lambda: both(taken(), logged(runs, 6)),
        "checkpoint: a later one": lambda: both(taken(), some(runs, f"{checkpoints}/768")),
        "end: last checkpoint, evaluation next": lambda: some(runs, f"{checkpoints}/1024"),
        "end: evaluated": lambda: both(taken(), evaluated(runs, 1024)),
    }


@pytest.mark.slow
def test_any_kill_then_the_same_command_gives_the_same_study(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    sweep = write_small(tmp_path)
    runs = tmp_path / "runs"
    killed = []
    for moment, wait_for in moments(runs).items():
        happens = wait_for()
        process = start_sweep(sweep)
        if wait_until(happens, process):
            killed.append(moment)
            kill_tree(process)
        else:
            process.communicate()
    assert len(killed) >= 10, killed
    last = run_sweep(sweep)
    assert last.returncode == 0, last.stdout + last.stderr
    found = outcome(runs)
    assert found.keys() == uninterrupted.keys()
    for name, value in uninterrupted.items():
        assert found[name] == value, f"{name} differs after kills at {killed}"
    attempts = [
        int(path.name) for path in runs.glob("pretrain-*/attempts/*") if path.name.isdigit()
    ]
    assert max(attempts) >= 5


def test_only_done_json_proves_success(
    tmp_path: Path, small_study: Path, uninterrupted: dict[str, Any]
) -> None:
    """As a kill between the last event and done.json leaves it, too short to hit by waiting."""
    shutil.copytree(small_study.parent, tmp_path, dirs_exist_ok=True)
    runs = tmp_path / "runs"
    [first, _] = sorted(runs.glob("pretrain-*"))
    (first / "done.json").unlink()
    assert read_state(RunDir(first)).name == "lost"
    again = run_sweep(tmp_path / small_study.name)
    assert again.returncode == 0, again.stdout + again.stderr
    assert outcome(runs) == uninterrupted


def test_runs_whose_launcher_was_killed_are_adopted(
    tmp_path: Path, small_study: Path, uninterrupted: dict[str, Any]
) -> None:
    sweep = write_packed(tmp_path, small_study)
    runs = tmp_path / "runs"
    first = start_sweep(sweep, *ONE)
    assert wait_until(logged(runs, 1), first)
    first.kill()
    first.communicate()
    again = run_sweep(sweep, *ONE)
    assert again.returncode == 0, again.stdout + again.stderr
    assert outcome(runs) == of_one(uninterrupted)
    attempts = [path.name for path in runs.glob("pretrain-*/attempts/*") if path.name.isdigit()]
    assert attempts == ["1"], "the run went on under its first attempt"


def test_a_run_killed_alone_is_lost_and_the_same_command_resumes_it(
    tmp_path: Path, small_study: Path, uninterrupted: dict[str, Any]
) -> None:
    sweep = write_packed(tmp_path, small_study)
    runs = tmp_path / "runs"
    process = start_sweep(sweep)
    assert wait_until(some(runs, "pretrain-*/checkpoints/256"), process)
    [path, *_] = runs.glob("pretrain-*/checkpoints/256")
    run = path.parents[1]
    os.kill(json.loads((run / "attempts/1/env.json").read_text())["claim"]["pid"], signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"lost {run.name}: its process is gone; the same command resumes it" in said
    assert read_state(RunDir(run)).name == "lost"
    again = run_sweep(sweep)
    assert again.returncode == 0, again.stdout + again.stderr
    assert outcome(runs) == uninterrupted


def test_ctrl_c_on_a_terminal_stops_cleanly_and_the_next_call_goes_on(
    tmp_path: Path, small_study: Path, uninterrupted: dict[str, Any]
) -> None:
    sweep = write_packed(tmp_path, small_study)
    runs = tmp_path / "runs"
    terminal = pexpect.spawn(
        shlex.join(command(sweep)),
        cwd=ROOT,
        dimensions=(40, 120),
        env=os.environ | {"TERM": "xterm-256color"},
        timeout=120,
    )
    terminal.expect("running")  # the first of two runs, so that there is time
    while not logged(runs, 2)():
        terminal.expect("running")
    terminal.sendintr()
    terminal.expect("stopping: every run saves and leaves")
    terminal.expect("stopped; the same command goes on.")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    states = [read_state(RunDir(path)).name for path in runs.glob("pretrain-*")]
    assert "stopped" in states and set(states) <= {"stopped", "planned", "done"}
    again = run_sweep(sweep)
    assert again.returncode == 0, again.stdout + again.stderr
    assert outcome(runs) == uninterrupted
    nothing = run_sweep(sweep)
    assert nothing.returncode == 0
    assert nothing.stdout.startswith("nothing to do: 2 done.")
