"""Limits on what is in the queue, sweep files that change, jobs that are ended by hand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from slurm.cluster import Cluster
from slurm.launching import NAME, Study, assert_all_once, make_study, wrap_program, write_text

NewStudy = Callable[[str], Study]


def names(*seeds: int) -> list[str]:
    return [f"pretrain {seed}" for seed in seeds]


def throttles(study: Study) -> list[int]:
    """How many tasks of each array may be at work at once, 0 for all; of held ones, none."""
    found = []
    for batch in study.batches():
        if batch.state == "released":
            shown = study.cluster.run("scontrol", "-o", "show", "job", batch.job)
            limit = re.search(r"ArrayTaskThrottle=(\d+)", shown)
            at_once = int(limit[1]) if limit else 0
            found.append(at_once if at_once < len(batch.tasks) else 0)
    return found


def test_a_sweep_larger_than_an_array_may_be(new_study: NewStudy) -> None:
    """The cluster allows 101 tasks in one."""
    study = new_study(write_text(range(150)))
    said = study.launch("--max-parallel", "30")
    assert "submitted 101 runs" in said and "submitted 49 runs" in said
    assert_all_once(study, names(*range(150)))
    assert max(int(job.partition("_")[2]) for job in study.queued()) == 100
    large, small = throttles(study)
    assert large + small == 30 and 19 <= large <= 21  # by their sizes
    study.launch("--max-parallel", "12")
    assert sum(throttles(study)) == 12
    study.launch("--max-parallel", "150")
    assert throttles(study) == [0, 0]
    assert_all_once(study, names(*range(150)))


def test_fewer_at_once_than_there_are_arrays(new_study: NewStudy) -> None:
    by_gpus = (f"{{when: {{seed: [{n}, {n + 1}]}}, set: {{gpus: {n}}}}}" for n in (2, 4))
    study = new_study(write_text(range(6), more=f"rules: [{', '.join(by_gpus)}]"))
    study.launch()
    assert throttles(study) == [0, 0, 0]
    study.launch("--max-parallel", "2")
    assert throttles(study) == [1, 1]  # of two, and of two
    held = [job for job, (_, why) in study.queued().items() if why.startswith("JobHeld")]
    assert len(held) == 2
    study.cluster.wait_for(lambda: study.states() == {"pending": 4, "held": 2}, seconds=60)
    study.launch()
    assert_all_once(study, names(*range(6)))


def test_limits_change_while_tasks_of_an_array_are_over(new_study: NewStudy) -> None:
    """Slurm follows such an order for the others only, and calls that an error."""
    setup = "setup: ['[ $SLURM_ARRAY_TASK_ID = 0 ] || sleep 600', exit 1], retries: {killed: 0}"
    study = new_study(write_text(range(4), slurm=setup, begin="now"))
    study.launch()
    study.cluster.wait_for(lambda: len(study.queued()) == 3)
    study.launch()
    assert throttles(study) == [0]
    study.launch("--max-parallel", "1")
    assert throttles(study) == [1]
    study.launch()
    assert throttles(study) == [0]
    assert Counter(study.queued_runs().values()) == {1: 3}
    assert study.states()["failed"] == 1


def test_no_more_in_the_queue_than_max_submit(new_study: NewStudy) -> None:
    study = new_study(write_text(range(6), slurm="max_submit: 4"))
    said = study.launch()
    assert "submitted 4 runs" in said and "2 runs wait for room under slurm.max_submit" in said
    first = study.queued_runs()
    assert set(first.values()) == {1} and len(first) == 4
    assert "submitted" not in study.launch().replace("2 runs wait", "")
    assert study.queued_runs() == first
    study.launch("--cancel", "--only", min(first).replace("pretrain ", "seed="))
    study.launch("--only", "seed=4", "--only", "seed=5")
    assert len(study.queued_runs()) == 4
    study.write(write_text(range(6)))
    study.launch()
    assert_all_once(study, names(*range(6)))


def test_values_added_and_taken_away(new_study: NewStudy) -> None:
    study = new_study(write_text(range(3)))
    study.launch()
    study.write(write_text(range(1, 5)))
    said = study.launch()
    assert "submitted 2 runs" in said
    assert re.search(r"no longer in the file: 1 runs \(pretrain-\S+-s0-\S+\)", said)
    assert "what of them is queued goes on" in said and "--cancel --only RUN" in said
    assert_all_once(study, names(*range(5)))
    assert sorted(study.status()) == names(1, 2, 3, 4)
    study.launch("--cancel", "--only", "*-s0-*")
    assert_all_once(study, names(*range(1, 5)))


def test_cancelled_runs_are_taken_up_by_hand(
    any_cluster: Cluster, packs: Path, tmp_path: Path
) -> None:
    any_cluster.clear()
    study = make_study(tmp_path / "study", packs, any_cluster, write_text(range(3)))
    study.launch()
    assert study.launch("--cancel", "--only", "seed=1") == "cancelled 1 run\n"
    assert study.queued_runs() == Counter(names(0, 2))
    one = study.status()["pretrain 1"]
    assert (one["state"], one["reason"]) == ("cancelled", "by --cancel")
    study.launch()
    assert_all_once(study, names(0, 1, 2))
    assert study.launch("--cancel") == "cancelled 3 runs\n"
    assert not study.queued()
    assert study.states() == {"cancelled": 3}
    study.launch()
    assert_all_once(study, names(0, 1, 2))
    any_cluster.clear()  # by scancel, behind our back
    any_cluster.wait_for(lambda: study.states() == {"cancelled": 3}, seconds=60)
    study.launch("--only", "seed=2")
    assert study.queued_runs() == Counter(names(2))
    any_cluster.clear()


def test_one_task_cancelled_before_it_began(
    any_cluster: Cluster, packs: Path, tmp_path: Path
) -> None:
    """Of such a task the controller keeps nothing."""
    any_cluster.clear()
    study = make_study(tmp_path / "study", packs, any_cluster, write_text(range(3)))
    study.launch()
    job = study.status()["pretrain 1"]["job"]
    any_cluster.run("scancel", job)
    any_cluster.wait_for(lambda: study.status()["pretrain 1"]["state"] == "cancelled")
    assert study.states()["pending"] == 2
    study.launch()
    assert_all_once(study, names(0, 1, 2))
    any_cluster.clear()


def test_questions_within_the_poll_interval_are_one(new_study: NewStudy, tmp_path: Path) -> None:
    study = new_study(write_text(range(3)))
    study.launch()
    asked = tmp_path / "asked"
    path = wrap_program(tmp_path / "bin", "squeue", f"echo once >> {asked}")
    for _ in range(2):
        study.launch("--status", PATH=path, CLIPA_POLL_SECONDS="600")
    assert not asked.exists()  # launching asked
    (study.runs / ".sweeps/.queue.json").unlink()
    for _ in range(2):
        study.launch("--status", PATH=path, CLIPA_POLL_SECONDS="600")
    assert asked.read_text() == "once\n"
    study.launch("--status", PATH=path, CLIPA_POLL_SECONDS="0")
    assert asked.read_text() == "once\n" * 2


def test_two_sweeps_submit_a_run_that_they_share_once(new_study: NewStudy) -> None:
    first = new_study(write_text(range(3)))
    first.launch()
    other = replace(first, sweep=first.sweep.with_name("other.yaml"))
    other.write(write_text(range(1, 5)).replace(f"name: {NAME}", "name: other"))
    assert "submitted 2 runs" in other.launch()
    queue = first.cluster.run("squeue", "-r", "-h", "-o", "%j").split()
    assert Counter(name.split(":")[1] for name in queue) == {NAME: 3, "other": 2}
    assert other.states() == {"pending": 4}
    assert other.launch("--cancel") == "cancelled 2 runs\n"
    assert_all_once(first, names(0, 1, 2))
    assert other.states() == {"pending": 2, "cancelled": 2}
    first.launch("--cancel")
    assert "submitted 4 runs" in other.launch()
