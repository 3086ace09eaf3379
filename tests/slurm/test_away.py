"""The controller away for a while: nothing is known, so nothing changes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

from slurm.launching import Study, assert_all_once, write_text

NewStudy = Callable[[str], Study]
AWAY = "Unable to contact slurm controller"
# Real runs, a step each, and a child of each.
REAL = write_text(
    range(2),
    begin="now",
    more="stages: {more: {kind: finetune, parent: pretrain, set: {lr: 1e-4}}}",
)


def test_status_while_the_controller_is_away(new_study: NewStudy) -> None:
    study = new_study(write_text(range(3)))
    study.launch()
    before = study.status()
    assert {run["state"] for run in before.values()} == {"pending"}
    study.cluster.stop_controller()
    try:
        time.sleep(1.1)  # the last answer is old enough to ask anew
        for _ in range(2):  # as often as a job may be absent before it is lost
            said = " ".join(study.launch("--status").split())
            assert "queue: 3 pending" in said
            assert "ago (it does not answer" in said and AWAY in said
        found = json.loads(study.launch("--status", "--json"))
        assert AWAY in found["queue_error"] and found["queue_age_seconds"] > 1
        assert [run["state"] for run in found["runs"]] == ["pending"] * 3
        assert AWAY in study.launch(code=1)
        assert "nothing cancelled" in study.launch("--cancel", code=1)
    finally:
        study.cluster.start_controller()
    study.launch()
    assert_all_once(study, [f"pretrain {seed}" for seed in range(3)])
    assert len(study.batches()) == 1
    assert json.loads(study.launch("--status", "--json"))["queue_error"] is None


def test_following_while_the_controller_is_away(new_study: NewStudy) -> None:
    study = new_study(REAL)
    follower = study.start("--follow")
    study.cluster.wait_for(lambda: len(list(study.runs.glob("*/attempts/1"))) == 2)
    study.cluster.stop_controller()
    try:
        time.sleep(12)  # a run is over before
        assert follower.poll() is None
    finally:
        study.cluster.start_controller()
    said, _ = follower.communicate(timeout=600)
    assert follower.returncode == 0, said
    assert said.count("Slurm does not answer, so nothing changes until it does") == 1
    assert said.count("Slurm answers again") == 1
    assert not re.search(r"\d+ (lost|failed|unknown)", said)
    assert study.states() == {"done": 4}
    runs = sorted(study.runs.glob("*-s*"))
    assert [len(list((run / "attempts").iterdir())) for run in runs] == [1] * 4
    submitted = [run for batch in study.batches() for run in batch.tasks]
    assert sorted(submitted) == [run.name for run in runs]  # the children too, and each once


def test_a_job_that_could_not_begin_is_tried_again(new_study: NewStudy) -> None:
    """srun fails where the controller is away; the run never began, so it made no progress."""
    study = new_study("")
    fail_once = f"setup: ['mkdir {study.runs.parent / 'tried'} && exit 1']"
    study.write(write_text(range(1), begin="now", slurm=fail_once))
    said = study.launch("--follow")
    assert "submitted 1 run as job" in said and "1 of them again" in said
    assert study.states() == {"done": 1}
