"""The launcher killed at every step: the same command then puts every run in the queue once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.launching import NAME, Study, assert_all_once, wrap_program, write_text

NewStudy = Callable[[str], Study]
LAUNCH, SUBMITIT = "clipa_scaling.launch", "submitit.slurm.slurm:SlurmExecutor"
# Two groups, the longer-trained seeds apart: two arrays.
TWO_GROUPS = write_text(range(6), more="rules: [{when: {seed: [4, 5]}, set: {gpus: 2}}]")
SIX = [f"pretrain {seed}" for seed in range(6)]
POINTS = {
    "the lock is taken": "clipa_scaling.claim:take:after:1",
    "the first run is made": "clipa_scaling.rundir:make_run:after:1",
    "a run's spec is half written": "os:replace:before:1:spec.json",
    "the intent is half written": "os:replace:before:1:submissions",
    "the intent is written": f"{LAUNCH}.submit:save_batch:after:1",
    "a pickle is written": "submitit.core.utils:DelayedSubmission.dump:after:2",
    "all is ready for sbatch": f"{SUBMITIT}._submit_command:before:1",
    "sbatch is at work": "subprocess:Popen.__init__:after:1:sbatch",
    "sbatch has ended": f"{SUBMITIT}._get_job_id_from_submission_command:before:1",
    "the script is named": "submitit.core.utils:JobPaths.move_temporary_file:after:1",
    "two of four pickles are named": "submitit.core.utils:JobPaths.move_temporary_file:after:3",
    "the job is known and not recorded": f"{LAUNCH}.submit:submit_held:after:1",
    "the first of two is recorded": f"{LAUNCH}.submit:change:after:1",
    "the second intent is written": f"{LAUNCH}.submit:save_batch:after:2",
    "both are recorded": f"{LAUNCH}.commands:release:before:1",
    "the first is released": f"{LAUNCH}.commands:release:after:1",
    "its release is recorded": f"{LAUNCH}.commands:release:before:2",
    "both are released": f"{LAUNCH}.commands:release:after:2",
    "the plan is not kept": "clipa_scaling.start:save_plan:before:1",
}  # fmt: skip


def launch_killed(study: Study, point: str, **extra: str) -> None:
    """Launch until it kills itself; that it gets there is part of the test."""
    killed = study.start_killed(point, **extra)
    said, _ = killed.communicate(timeout=400)
    assert killed.returncode == -signal.SIGKILL, f"never came to {point}: {said}"


def assert_no_rubbish(study: Study) -> None:
    """Nothing unfinished is left where it would be read."""
    for path in study.runs.glob("pretrain-*"):
        assert (path / "spec.json").stat().st_size > 0
    assert "nothing to submit" in study.launch()
    assert set(study.states()) == {"pending"}
    assert all(batch.state != "intent" for batch in study.batches())


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS.keys())
def test_a_killed_launch_is_healed_by_the_same_command(new_study: NewStudy, point: str) -> None:
    study = new_study(TWO_GROUPS)
    launch_killed(study, point)
    study.launch()
    assert_all_once(study, SIX)
    assert_no_rubbish(study)
    assert_all_once(study, SIX)


def test_an_orphaned_sbatch_is_waited_for(new_study: NewStudy, tmp_path: Path) -> None:
    study = new_study(TWO_GROUPS)
    slow = wrap_program(tmp_path / "bin", "sbatch", "sleep 4")
    launch_killed(study, POINTS["sbatch is at work"], PATH=slow)
    assert study.queued() == {}
    said = study.launch()
    assert "submitted 4 runs" not in said and "submitted 2 runs" in said
    assert_all_once(study, SIX)


@pytest.mark.parametrize(
    "again",
    [f"{LAUNCH}.submit:write_pickles:before:1", f"{LAUNCH}.submit:change:before:1",
     f"{LAUNCH}.submit:write_pickles:after:1", f"{LAUNCH}.submit:change:after:1"],
)  # fmt: skip
def test_healing_can_be_killed_too(new_study: NewStudy, again: str) -> None:
    study = new_study(TWO_GROUPS)
    launch_killed(study, POINTS["two of four pickles are named"])
    launch_killed(study, again)
    study.launch()
    assert_all_once(study, SIX)


@pytest.mark.parametrize(
    "point",
    [f"{LAUNCH}.submit:change:before:1", f"{LAUNCH}.submit:change:after:1",
     f"{LAUNCH}.submit:save_batch:after:2", f"{LAUNCH}.commands:release:after:1"],
    ids=["packing submitted", "packing recorded", "runs intended", "packing released"],
)  # fmt: skip
def test_a_launch_killed_around_packing_packs_once(new_study: NewStudy, point: str) -> None:
    study = new_study(write_text(range(3), slurm="pack_tasks: 2"))
    for head in study.runs.glob(".packs/*/pack.json"):
        head.unlink()
    launch_killed(study, point)
    study.launch()
    assert study.queued_runs() == Counter(SIX[:3])
    [pack] = [batch for batch in study.batches() if batch.kind == "pack"]
    queued = study.queued()
    assert set(pack.task_jobs()) <= set(queued) and len(queued) == 3 + len(pack.tasks)
    assert not any(reason.startswith("JobHeld") for _, reason in queued.values())
    [runs] = [batch for batch in study.batches() if batch.kind == "runs" and batch.state != "void"]
    shown = study.cluster.run("scontrol", "show", "job", runs.task_job(0))
    assert f"Dependency=afterok:{pack.job}" in shown


def test_two_launches_at_once(new_study: NewStudy, tmp_path: Path) -> None:
    study = new_study(TWO_GROUPS)
    begun, go_on = tmp_path / "begun", tmp_path / "go_on"
    wait = f"touch {begun}; until [ -e {go_on} ]; do sleep 0.1; done"
    first = study.start(PATH=wrap_program(tmp_path / "bin", "sbatch", wait))
    try:
        study.cluster.wait_for(begun.exists)
        said = study.launch(code=2)
        assert said.count("\n") == 1
        assert f"held by pid {first.pid} on {os.uname().nodename}" in said
        assert study.launch("--cancel") == "no runs in the queue to cancel\n"
        assert [batch.state for batch in study.batches()] == ["intent"]
    finally:
        go_on.touch()
        first.communicate(timeout=400)
    assert first.returncode == 0
    assert_all_once(study, SIX)


def test_a_lock_of_a_killed_launch_is_taken_over(new_study: NewStudy) -> None:
    study = new_study(TWO_GROUPS)
    launch_killed(study, POINTS["the lock is taken"])
    study.launch()
    study.launch()
    assert_all_once(study, SIX)
    owners = sorted(path.name for path in (study.runs / ".sweeps/.launches").glob("[0-9]*"))
    assert owners == ["1", "2", "3"]


def test_what_slurm_refuses_keeps_nothing_else_back(new_study: NewStudy, tmp_path: Path) -> None:
    study = new_study(TWO_GROUPS)
    two_gpus = 'grep -q ntasks-per-node=2 "$1" && set -- --constraint=nowhere "$1"'
    path = wrap_program(tmp_path / "bin", "sbatch", two_gpus)
    for _ in range(2):
        said = study.launch(code=1, PATH=path)
        assert "Slurm refused 2 runs: " in said and "Invalid feature specification" in said
        assert study.queued_runs() == Counter(SIX[:4])
        assert not any(why.startswith("JobHeld") for _, why in study.queued().values())
    study.launch()
    assert_all_once(study, SIX)


def test_runs_that_fit_no_nodes_keep_nothing_else_back(new_study: NewStudy) -> None:
    """Eight GPUs want four nodes; there are two."""
    study = new_study(write_text(range(4), more="rules: [{when: {seed: 1}, set: {gpus: 8}}]"))
    study.launch()
    assert_all_once(study, SIX[:4])
    study.launch("--max-parallel", "2")
    assert_all_once(study, SIX[:4])


def test_a_job_of_which_nothing_is_kept_is_ended(new_study: NewStudy) -> None:
    study = new_study(TWO_GROUPS)
    study.launch()
    larger = max(study.batches(), key=lambda batch: len(batch.tasks))
    (study.runs / f".sweeps/{NAME}/submissions/{larger.id}.json").unlink()
    study.launch()
    assert_all_once(study, SIX)
    assert larger.id not in [batch.id for batch in study.batches()]
