"""An evaluation run has the values that its parent's own evaluation has, whatever stops it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_data import pack_here
from single_run import end_run, pack_scenes, plan_run, start_run
from small_sweep import wait_until

from clipa_scaling.evaluation import asked_of, plan_evaluation
from clipa_scaling.launch.retry import made_progress
from clipa_scaling.rundir import (
    DONE,
    FAILED,
    STOPPED,
    RunDir,
    make_run,
    read_json,
    read_jsonl,
    read_state,
)
from clipa_scaling.source import Source
from clipa_scaling.spec import EvalSet, spec_from_json, spec_to_json
from clipa_scaling.train.evaluate import Evaluator
from clipa_scaling.train.loop import work
from clipa_scaling.train.packed import Pack

Measure = Callable[..., RunDir]


def pack_labels(folder: Path, pairs: int, seed: int) -> Pack:
    return pack_here(folder, Source("scenes", "scenes", pairs=pairs, seed=seed), 16, "labels")


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that has measured two sets under two protocols at its end."""
    folder = tmp_path_factory.mktemp("runs")
    train = pack_scenes(folder / "train", 300, 0)
    pairs, named = pack_scenes(folder / "pairs", 600, 1), pack_labels(folder / "named", 64, 2)
    sets = (
        EvalSet("named", "classify", str(named.folder), named.fingerprint),
        EvalSet("pairs", "retrieve", str(pairs.folder), pairs.fingerprint),
    )
    run = plan_run(
        folder / "parent", train, samples=64, evals=sets, protocols=("paper", "common"),
        precision="bf16",
    )  # fmt: skip
    assert work(run) == (DONE, None), read_state(run).reason
    return run


@pytest.fixture
def measure(parent: RunDir) -> Measure:
    """Plans an evaluation of the parent by name, on what it has measured itself."""

    def plan(name: str, *parts: str, **changes: Any) -> RunDir:
        spec = spec_from_json(read_json(parent.spec))
        asked = asked_of(spec)
        names = [n for n in asked.evaluations() if not parts or any(part in n for part in parts)]
        run = RunDir(parent.path.parent / name)
        made = plan_evaluation("parent", spec, asked, names, "evaluate")
        make_run(run, spec_to_json(replace(made, **changes)))
        return run

    return plan


def rows_of(run: RunDir) -> list[dict[str, Any]]:
    values = read_json(run.evals)
    assert values is not None
    return list(values["rows"])


def test_the_rows_are_those_of_the_parent_to_the_last_bit(parent: RunDir, measure: Measure) -> None:
    run = measure("all")
    assert work(run) == (DONE, None), read_state(run).reason
    assert len(rows_of(parent)) == 6 + 7
    assert rows_of(run) == rows_of(parent)
    assert sorted(path.name for path in run.path.iterdir()) == [
        "attempts", "done.json", "evals.json", "events.jsonl", "spec.json", "state.json",
    ]  # fmt: skip
    assert read_state(run).name == "done" and read_state(run).samples == 64
    assert work(run) == (DONE, None) and not (run.attempts / "2").exists()


def test_a_part_alone_has_the_same_values(parent: RunDir, measure: Measure) -> None:
    run = measure("paper", "/paper/")
    assert work(run) == (DONE, None), read_state(run).reason
    assert rows_of(run) == [row for row in rows_of(parent) if row["protocol"] == "paper"]


def test_a_stopped_one_keeps_whole_sets_and_goes_on(
    parent: RunDir, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = measure("stopped"), []

    def evaluate_and_signal(self: Evaluator, *given: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGUSR2)
        return evaluate(self, *given)

    evaluate = Evaluator.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "evaluate", evaluate_and_signal)
        assert work(run) == (STOPPED, signal.SIGUSR2)
        state = read_state(run)
        assert (state.name, state.samples) == ("stopped", 0)
        assert {row["set"] for row in rows_of(run)} == {"named"}
        assert made_progress(run)
        assert work(run) == (DONE, None)
    assert len(calls) == 3, "the first set is not measured again"
    assert rows_of(run) == rows_of(parent)
    events = [row["event"] for row in read_jsonl(run.events)]
    assert events == ["started", "stopped", "resumed", "done"]


def test_a_killed_one_goes_on(parent: RunDir, measure: Measure) -> None:
    run = measure("killed")
    [process] = start_run(run)
    try:
        assert wait_until(lambda: run.evals.exists() and rows_of(run), process), "too quick"
        os.kill(process.pid, signal.SIGKILL)
    finally:
        end_run([process])
    assert read_state(run).name == "lost" and rows_of(run) != rows_of(parent)
    assert made_progress(run)
    assert work(run) == (DONE, None), read_state(run).reason
    assert rows_of(run) == rows_of(parent)
    assert read_jsonl(run.events)[-2]["event"] == "resumed"
    again = measure("idle")
    assert not made_progress(again)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"evaluations": ()}, "evaluations=() are not those of its sets under evaluator"),
        ({"evaluations": ("0/common/training/v0",)}, "evaluations=0/common/training/v0 are not"),
        ({"samples": 96}, "parent parent has no finished checkpoint at sample 96; allowed: "),
        ({"parent": "nobody"}, "parent nobody has no finished checkpoint at sample 64; allowed: "),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    changes: dict[str, Any], reason: str, measure: Measure
) -> None:
    run = measure(f"refused-{list(changes)[0]}-{len(str(changes))}", **changes)
    assert work(run) == (FAILED, None)
    state = read_state(run)
    assert (state.name, state.kind) == ("failed", "error")
    assert state.reason.startswith(f"{run.path.name}: {reason}")
    assert (run.attempts / "1" / "log").read_text() == state.reason + "\n"
