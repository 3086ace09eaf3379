"""A child is submitted once its parent is done, and never on one that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from slurm.launching import Study, write_text

NewStudy = Callable[[str], Study]
STAGES = "stages: {more: {kind: finetune, parent: pretrain, set: {lr: 1e-4}}}"


def test_a_child_waits_for_its_parent(new_study: NewStudy) -> None:
    study = new_study(write_text(range(2), more=STAGES))
    for _ in range(2):
        study.launch()
        assert study.queued_runs() == Counter(["pretrain 0", "pretrain 1"])
        assert study.states() == {"pending": 2, "blocked": 2}
    study.launch("--only", "stage=more")
    assert study.queued_runs() == Counter(["pretrain 0", "pretrain 1"])
    study.launch("--cancel")
    assert study.states() == {"cancelled": 2, "blocked": 2}


def test_a_child_of_a_failed_parent_is_never_submitted(new_study: NewStudy) -> None:
    """Also not once the controller has forgotten the parent's job, 20 s after its end."""
    quick_end = "setup: [exit 1], retries: {killed: 0}"
    study = new_study(write_text(range(2), slurm=quick_end, more=STAGES, begin="now"))
    said = study.launch("--follow", code=1)
    assert said.count("killed: its process died without a word (FAILED)") == 2
    assert study.states() == {"failed": 2, "blocked": 2}
    jobs = [job for batch in study.batches() for job in batch.task_jobs()]
    study.cluster.wait_for(lambda: not set(jobs) & set(study.cluster.jobs()), seconds=90)
    for _ in range(3):
        study.launch(code=1)
        assert study.states() == {"failed": 2, "blocked": 2}
    assert len(study.batches()) == 1 and not study.queued()


def test_six_runs_of_two_stages_and_nothing_more(new_study: NewStudy) -> None:
    study = new_study(write_text(range(3), more=STAGES, begin="now"))
    study.launch("--follow")
    assert study.states() == {"done": 6}
    submitted = [run for batch in study.batches() for run in batch.tasks]
    assert len(submitted) == len(set(submitted)) == 6, "children as their parents end, each once"
    statuses = study.status()
    assert all(status["log"] and status["gpu_hours"] > 0 for status in statuses.values())
    done = list(study.runs.glob("*/done.json"))
    assert len(done) == 6
    for _ in range(2):
        assert study.launch().startswith("nothing to do: 6 done.")
        assert study.launch("--follow").startswith("nothing to do: 6 done.")
    assert len([run for batch in study.batches() for run in batch.tasks]) == 6
    assert not study.queued()


def test_a_fault_of_all_runs_stops_the_launch_and_is_shown_once(new_study: NewStudy) -> None:
    """Nothing but the first to end is run: the rest waits for room, then is cancelled."""
    quick_end = "setup: [exit 1], retries: {killed: 0}, max_parallel: 1"
    study = new_study(write_text(range(9), slurm=quick_end, begin="now"))
    said = study.launch("--follow", code=1)
    assert said.count("its process died without a word") == 1
    assert "runs to end all failed alike, so no more are launched" in said
    states = study.states()
    assert states["cancelled"] >= 2 and states["failed"] >= 3
    assert not study.queued()
    again = study.launch(code=1)
    assert "so no more are launched" in again and len(study.batches()) == 1
    study.write(write_text(range(9)))
    assert "submitted 9 runs as array" in study.launch("--retry", "failed")
    study.launch("--cancel")
