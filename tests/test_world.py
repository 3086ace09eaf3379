"""Several processes train one run: the same curve as one, one claim, one stop, one resume."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from single_run import (
    MASKED,
    end_run,
    outcome_of,
    pack_scenes,
    plan_run,
    start_run,
    train_run,
)
from small_sweep import wait_until

from clipa_scaling import claim, rundir
from clipa_scaling.rundir import DONE, FAILED, HELD, STOPPED, RunDir, read_jsonl, read_state
from clipa_scaling.spec import spec_from_json
from clipa_scaling.train.ending import leave_word, name_kind, report
from clipa_scaling.train.loop import work
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.stopping import Meetings, StopFlag
from clipa_scaling.train.trainer import Trainer
from clipa_scaling.train.world import PeerLost, Seat, World, find_seat, join_world

pytestmark = pytest.mark.slow

SRUN = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "3", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pack, Pack]:
    """Training and test pairs."""
    folder = tmp_path_factory.mktemp("packs")
    return pack_scenes(folder / "train", 700, 0), pack_scenes(folder / "test", 200, 1)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, packs: tuple[Pack, Pack]) -> Callable[..., Any]:
    """Plans a run by name, its evaluation at the end long enough to be stopped."""
    folder = tmp_path_factory.mktemp("runs")
    return lambda name, **changes: plan_run(folder / name, *packs, **changes)


@pytest.fixture(scope="module")
def two(plan: Callable[..., RunDir]) -> dict[str, RunDir]:
    """Runs of two processes that nothing disturbed, by reduction."""
    return {
        "resize": train_run(plan("resize-2", gpus=2), tasks=2),
        "random": train_run(plan("random-2", gpus=2, **MASKED), tasks=2),
    }


# The same run as with one process


@pytest.mark.parametrize("reduction", ["resize", "random"])
def test_two_processes_train_as_one(
    reduction: str, two: dict[str, RunDir], plan: Callable[..., RunDir]
) -> None:
    one = plan(f"{reduction}-1", **(MASKED if reduction == "random" else {}))
    assert work(one) == (DONE, None)
    first, second = (outcome_of(run)["metrics"] for run in (one, two[reduction]))
    assert len(first) == len(second) == 20
    for alone, together in zip(first, second, strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], abs=1e-5)
        # Adam turns the rounding of gradients that are zero (of key biases) into steps.
        assert together["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-3)
        for name in ("image_tokens_seen", "text_tokens_seen", "samples", "lr"):
            assert together[name] == alone[name]
        for name in ("text_tokens_real", "text_truncated", "upsampled_crops"):
            assert together[name] == pytest.approx(alone[name], rel=1e-12)
    assert second[0]["grad_norm"] == pytest.approx(first[0]["grad_norm"], rel=1e-5)
    assert first[0]["image_tokens_seen"] == (5 if reduction == "random" else 4)


def check_moments(run: RunDir, alone: RunDir) -> None:
    """The gradients so far, as the optimizer's moments hold them, are those of one process."""
    folder = run.last_checkpoint()
    assert folder is not None
    saved = torch.load(folder / "optimizer.pt")["optimizer"]["state"]
    spec = spec_from_json(rundir.read_json(alone.spec))
    trainer = Trainer(spec, alone, 1, StopFlag(), World(torch.device("cpu")))
    while trainer.samples < int(folder.name):
        trainer.step()
    ours = trainer.optimizer.state_dict()["state"]
    assert len(saved) == len(ours) == len(list(trainer.model.parameters()))
    for number, moments in ours.items():
        expected, found = moments["exp_avg"], saved[number]["exp_avg"]
        assert float((found - expected).norm()) < 1e-5 * float(expected.norm())


def test_rank_0_alone_writes(two: dict[str, RunDir]) -> None:
    run = two["resize"]
    assert read_state(run).name == "done"
    assert [row["event"] for row in read_jsonl(run.events)] == ["started", "done"]
    [attempt] = [path for path in run.attempts.iterdir() if path.name.isdigit()]
    assert sorted(path.name for path in attempt.iterdir()) == [
        "env.json",
        "exit.json",
        "log",
        "log.1",
    ]
    assert rundir.read_json(attempt / "exit.json")["samples"] == 640
    assert list((run.attempts / ".rendezvous").iterdir()) == []


# Stopping and resuming


def test_a_signal_to_one_stops_both_and_the_resumed_run_is_the_same(
    two: dict[str, RunDir], plan: Callable[..., RunDir]
) -> None:
    run = plan("stopped", gpus=2, **MASKED)

    both = start_run(run, tasks=2, step=1)
    assert wait_until(lambda: len(read_jsonl(run.metrics)) >= 2, both[0])
    both[1].send_signal(signal.SIGUSR2)
    codes, said = end_run(both)
    assert codes == [STOPPED, STOPPED], said
    state = read_state(run)
    assert state.name == "stopped" and 64 <= state.samples < 640
    assert rundir.read_json(run.attempts / "1" / "exit.json")["samples"] == state.samples
    check_moments(run, plan("stopped-1", **MASKED))

    both = start_run(run, tasks=2, step=2)
    ended = run.checkpoints / "640"
    assert wait_until(ended.exists, both[0])  # evaluation is next
    both[1].send_signal(signal.SIGTERM)
    codes, said = end_run(both)
    assert codes == [STOPPED, STOPPED], said
    assert not json.loads(run.evals.read_text())["rows"]

    train_run(run, tasks=2, step=3)
    rows = [(row["event"], row.get("signal")) for row in read_jsonl(run.events)]
    assert rows == [
        ("started", None),
        ("stopped", "SIGUSR2"),
        ("resumed", None),
        ("stopped", "SIGTERM"),
        ("resumed", None),
        ("done", None),
    ]
    assert outcome_of(run) == outcome_of(two["random"])


# Refusals


def test_a_wrong_number_of_tasks_is_refused(plan: Callable[..., RunDir]) -> None:
    run = plan("wrong", gpus=4)
    assert work(run) == (FAILED, None)
    reason = (
        "wrong: got 1 tasks for gpus=4; allowed: one task per GPU; start it by srun --ntasks=4, or "
        "plan it with gpus: 1"
    )
    assert (read_state(run).reason, read_state(run).kind) == (reason, "error")
    assert (run.attempts / "1" / "log").read_text() == reason + "\n"


def test_a_held_run_is_left_by_both(plan: Callable[..., RunDir]) -> None:
    run = plan("held", gpus=2)
    claim.take("held", run.attempts, run.state, {"threads": 1})
    codes, said = end_run(start_run(run, tasks=2))
    assert codes == [HELD, HELD]
    assert re.fullmatch(r"held: held by pid \d+ on \S+; wait for it, or stop that process\n", said)


def test_a_rank_that_never_comes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PeerLost, match=r"rank 1 of 2 waited 0 s for rank 0 to write .*7_0_3.json"):
        join_world(RunDir(tmp_path), gpus=2, patience=timedelta(seconds=0.2))


def test_seats() -> None:
    assert find_seat(2, SRUN) == Seat(1, 2, 0, "7_0_3")
    again = {"SLURM_RESTART_COUNT": "1", "SLURM_LOCALID": "1"}
    assert find_seat(2, SRUN | again) == Seat(1, 2, 1, "7_1_3")
    assert find_seat(1, SRUN | again) == Seat(local_rank=1), "a run of one GPU is alone"
    batch_script = {name: SRUN[name] for name in SRUN if name != "SLURM_STEP_ID"}
    assert find_seat(2, batch_script) == Seat()
    assert find_seat(2, {}) == Seat()


# Failures


def test_what_another_rank_said_first_is_the_reason(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (run.attempts / "1").mkdir(parents=True)
    leave_word(run, 1, 3, torch.OutOfMemoryError("no memory"))
    leave_word(run, 1, 2, PeerLost("rank 3 is gone"))
    report(run, 1, PeerLost("another process of the run does not answer"))
    state = read_state(run)
    assert (state.name, state.kind) == ("failed", "oom_gpu")
    assert state.reason == "rank 3: OutOfMemoryError: no memory"
    rundir.write_json(run.state, {"state": "running", "samples": 5, "attempt": 1})
    gone = {"host": claim.make_claim().host, "pid": 2**22 - 1, "process_start": 0.0}
    rundir.write_json(run.attempts / "1" / "env.json", {"claim": gone})
    assert read_state(run).kind == "oom_gpu", "rank 0 was killed before it could say so"


def test_kinds_of_failures() -> None:
    assert name_kind(MemoryError()) == "oom_host"
    assert name_kind(RuntimeError("DefaultCPUAllocator: can't allocate memory")) == "oom_host"
    assert name_kind(torch.distributed.DistBackendError("NCCL error in: x")) == "nccl"
    assert name_kind(PeerLost("Connection closed by peer")) == "dist"
    assert name_kind(ValueError("x")) == "error"


# Meetings


def test_ranks_meet_about_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("clipa_scaling.train.stopping.time.monotonic", lambda: now)

    class Pair(World):
        def largest(self, *values: float) -> list[float]:
            met.append(now)
            return list(values)

    met: list[float] = []
    meetings = Meetings(Pair(torch.device("cpu"), 0, 2))
    for step in range(3000):
        now += 0.01 if step < 1500 else 0.02
        assert meetings.compare(1.0) in ([1.0], [0.0])
    gaps = [after - before for before, after in zip(met, met[1:], strict=False)]
    assert max(gaps) < 2.01 and 0.9 < gaps[-1] <= 1.01
    alone = Meetings(World(torch.device("cpu")))
    assert [alone.compare(1.0) for _ in range(3)] == [[1.0]] * 3
