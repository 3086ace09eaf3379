"""Failures told apart, and whether another attempt may help."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clipa_scaling import claim
from clipa_scaling.launch.batch import Ask, Batch
from clipa_scaling.launch.queue import Ended
from clipa_scaling.launch.retry import (
    Failure,
    change_ask,
    classify,
    close_attempt,
    common_error,
    count_events,
    made_progress,
    refuse_retry,
)
from clipa_scaling.resources import RETRIES, Slurm
from clipa_scaling.rundir import RunDir, RunState, append_jsonl, write_json

SLURM = Slurm()
ASK = Ask(nodes=1, tasks_per_node=1, gpus_per_node=1, minutes=60)


def make_run(folder: Path, begun: int, checkpoint: int | None) -> RunDir:
    """A run whose last attempt began with one checkpoint and left another."""
    run = RunDir(folder / "run")
    run.path.mkdir()
    append_jsonl(run.events, {"event": "started", "attempt": 1, "samples": 0})
    append_jsonl(run.events, {"event": "resumed", "attempt": 2, "samples": begun})
    for number in (1, 2):
        (run.attempts / str(number)).mkdir(parents=True)
    if checkpoint is not None:
        (run.checkpoints / str(checkpoint)).mkdir(parents=True)
    return run


def batch(kind: str, number: int) -> Batch:
    why = {"run": kind}
    return Batch(f"b{number}", "s", "runs", ("run",), ASK, "", number, why, state="released")


@pytest.mark.parametrize(
    ("ended", "state", "kind"),
    [
        ("TIMEOUT", "running", "timeout"),
        ("NODE_FAIL", "running", "node"),
        ("OUT_OF_MEMORY", "running", "oom_host"),
        ("PREEMPTED", "stopped", "preempted"),
        ("FAILED", "running", "killed"),
        ("COMPLETED", "running", "killed"),
        ("FAILED", "stopped", "killed"),
    ],
)
def test_slurms_word_counts_where_the_run_left_none(ended: str, state: str, kind: str) -> None:
    assert classify(Ended(ended), RunState(state)).kind == kind


@pytest.mark.parametrize("kind", ["error", "oom_gpu", "oom_host", "dist"])
def test_the_runs_own_word_counts_first(kind: str) -> None:
    failure = classify(Ended("OUT_OF_MEMORY"), RunState("failed", reason="x", kind=kind))
    assert failure.kind == kind and failure.reason == "x"


@pytest.mark.parametrize(
    ("begun", "checkpoint", "progress"), [(0, None, False), (64, 64, False), (64, 128, True)]
)
def test_progress_is_a_checkpoint_beyond_the_one_before(
    tmp_path: Path, begun: int, checkpoint: int | None, progress: bool
) -> None:
    run = make_run(tmp_path, begun, checkpoint)
    assert made_progress(run) == progress
    for kind in ("preempted", "timeout", "node", "killed", "error"):
        refusal = refuse_retry(run, Failure(kind, ""), [], SLURM)
        words = "its last attempt made no progress; once mended: --retry failed"
        assert refusal == (None if progress else words), kind


@pytest.mark.parametrize("kind", RETRIES)
def test_every_kind_has_its_own_limit(tmp_path: Path, kind: str) -> None:
    run, slurm = make_run(tmp_path, 0, 64), Slurm(mem_gb=8.0)
    tried = [batch(kind, number) for number in range(RETRIES[kind])]
    others = [batch(other, 0) for other in RETRIES if other != kind] * 200
    failure = Failure(kind, "")
    assert refuse_retry(run, failure, [*others, *tried[:-1]], slurm) is None
    refusal = refuse_retry(run, failure, [*others, *tried], slurm)
    assert refusal == f"retries.{kind}={RETRIES[kind]} used up; raise it, or --retry failed"


def test_requeues_from_inside_the_job_count_too(tmp_path: Path) -> None:
    run = make_run(tmp_path, 0, 64)
    for _ in range(2):
        append_jsonl(run.events, {"event": "requeued", "kind": "timeout"})
    assert count_events(run, "requeued", "timeout") == 2
    assert refuse_retry(run, Failure("timeout", ""), [], Slurm(retries={"timeout": 3})) is None
    assert refuse_retry(run, Failure("timeout", ""), [], Slurm(retries={"timeout": 2})) is not None


def test_out_of_memory_needs_a_change_not_progress(tmp_path: Path) -> None:
    run = make_run(tmp_path, 0, None)
    assert refuse_retry(run, Failure("oom_gpu", ""), [], SLURM) is None
    refusal = refuse_retry(run, Failure("oom_host", ""), [], SLURM)
    assert refusal == "slurm.mem_gb is not set, so there is none to raise"
    write_json(run.spec, {"grad_checkpointing": True})
    refusal = refuse_retry(run, Failure("oom_gpu", ""), [], SLURM)
    assert refusal == "grad_checkpointing is on already"
    ask = replace(ASK, mem_gb=8.0)
    assert refuse_retry(run, Failure("oom_host", ""), [], Slurm(mem_gb=8.0)) is None
    assert change_ask(ask, ["oom_host", "node", "oom_host"], "").mem_gb == 32.0


def test_a_failed_node_is_kept_away_from_but_not_a_list_of_them() -> None:
    assert change_ask(ASK, ["node"], "n7").exclude == ("n7",)
    assert change_ask(ASK, ["node"], "n[1-2]").exclude == ()
    assert change_ask(ASK, ["node", "error"], "n7").exclude == ()


def test_an_attempt_that_died_before_it_began_made_no_progress(tmp_path: Path) -> None:
    run = make_run(tmp_path, 0, 64)
    assert made_progress(run)
    (run.attempts / "3").mkdir()
    assert not made_progress(run)


def test_an_attempt_known_to_be_over_holds_its_run_no_more(tmp_path: Path) -> None:
    """Else a claim from another host would hold it until its heartbeat is old."""
    run = RunDir(tmp_path)
    attempt = run.attempts / "1"
    attempt.mkdir(parents=True)
    owner = {"host": "another-host", "pid": 1, "process_start": 0.0, "slurm_job": "7"}
    (attempt / "env.json").write_text(json.dumps({"claim": owner, "job": "7"}))
    run.state.write_text("{}")
    with pytest.raises(claim.HeldError):
        claim.take("run", run.attempts, run.state, {})
    close_attempt(run, "killed", "8")
    with pytest.raises(claim.HeldError):
        claim.take("run", run.attempts, run.state, {})
    close_attempt(run, "killed", "7")
    assert claim.take("run", run.attempts, run.state, {}).name == "2"
    close_attempt(run, "node", "7")
    assert json.loads((attempt / "exit.json").read_text())["kind"] == "killed", "its own word stays"


def failed(reason: str) -> RunState:
    return RunState("failed", reason=reason)


def test_the_same_error_of_the_first_runs_is_one_fault() -> None:
    same = [
        failed(f"error: ValueError: bad width {number} in pretrain-B-16-i{number}-s0-0123456789")
        for number in (49, 100, 196)
    ]
    assert common_error(same) == same[0].reason
    assert common_error(same[:2]) is None, "two may be chance"
    assert common_error([*same, RunState("running"), RunState("planned")]) is not None
    assert common_error([*same, RunState("done")]) is None
    assert common_error([*same, failed("killed: its process died")]) is None
