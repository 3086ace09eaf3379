"""Rates are measured by jobs that are found again, and that no sweep's launch takes for its own."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

from slurm.launching import Study, write_text

NewStudy = Callable[[str], Study]
QUICK = ("--calibrate", "--minutes", "0.02")


def calibration_jobs(study: Study) -> list[str]:
    """The names of those that wait or are at work."""
    names = study.cluster.run("squeue", "-h", "-o", "%j").split()
    return [name for name in names if name.startswith("clipa-calibrate:")]


def test_a_job_measures_and_its_launcher_may_die(new_study: NewStudy) -> None:
    """As it waits for its job, which a launch of the sweep leaves alone; asked again, it ends."""
    study = new_study(write_text(range(2)))
    first = study.start(*QUICK)
    study.cluster.wait_for(lambda: len(calibration_jobs(study)) == 1)
    first.kill()
    first.communicate()
    [name] = calibration_jobs(study)
    for pickle in study.runs.glob(".calibration/jobs/*.pkl"):
        pickle.unlink()  # as if it had died before it could say what the job is to call
    assert "submitted 2 runs" in study.launch("--retry", "failed")
    assert "jobs of --calibrate go on: 1; to end them: scancel " in study.launch("--cancel")
    assert calibration_jobs(study) == [name]

    second = study.start(*QUICK)
    study.cluster.wait_for(lambda: bool(list(study.runs.glob(".calibration/*.request.json"))))
    [job] = study.cluster.run("squeue", "-h", "-n", name, "-o", "%i").split()
    study.cluster.start_now(job)
    said, _ = second.communicate(timeout=240)
    assert second.returncode == 0, said
    assert "in the queue already: 1" in said and "submitted" not in said
    assert "measured 1 of 1" in said and "(2 of 2 runs" in said
    [record] = (
        json.loads(path.read_text())
        for path in study.runs.glob(".calibration/????????????????.json")
    )
    assert record["measured_on"] == "cpu" and record["data"] != "generated"
    assert not list(study.runs.glob("pretrain-*/attempts")), "no run was touched"
    [path] = study.runs.glob(".calibration/????????????????.json")
    path.write_text(json.dumps(record | {"steady": True}))  # as a longer measurement would be
    assert "measured already: 1 of 1" in study.launch(*QUICK)


def test_a_job_that_dies_and_one_that_is_left(new_study: NewStudy) -> None:
    study = new_study(write_text([0], slurm="setup: [echo broken node, exit 1]", begin="now"))
    said = study.launch(*QUICK, code=1)
    assert "its job ended without a record (FAILED): broken node" in said
    study.write(write_text([0]))
    left = study.start(*QUICK)
    study.cluster.wait_for(lambda: len(calibration_jobs(study)) == 1)
    left.send_signal(signal.SIGINT)
    said, _ = left.communicate(timeout=60)
    assert left.returncode == 130 and "detached: the jobs go on" in said
    assert len(calibration_jobs(study)) == 1
