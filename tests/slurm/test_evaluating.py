"""--evaluate submits what finished runs lack, behind their packing, and trains nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from small_sweep import command

from slurm.launching import Study, write_text

NewStudy = Callable[[str], Study]
NEW = "evals: {more: {path: scenes, task: classify, pairs: 32, seed: 5}}\n"


def run_here(study: Study, *options: str) -> None:
    """The command without Slurm."""
    process = study.spawn(command(study.sweep, "--cluster", "local", *options))
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said


def test_only_missing_evaluations_are_submitted_and_each_once(new_study: NewStudy) -> None:
    """Of three runs one is evaluated already and one not finished."""
    study = new_study(write_text(range(3)))
    new = study.sweep.parent / "new.yaml"
    new.write_text(NEW)
    run_here(study, "--only", "seed=0", "--only", "seed=1")
    run_here(study, "--evaluate", str(new), "--only", "seed=0")
    for number in range(2):
        said = study.launch("--evaluate", str(new))
        assert "more: common, training size: 1 of 2 runs" in said
        assert ("submitted 1 run as job" in said) == (number == 0)
        assert study.queued_runs() == Counter(["evaluate 1"])
    states = {name: run["state"] for name, run in study.status().items()}
    assert states == {
        "pretrain 0": "done", "pretrain 1": "done", "pretrain 2": "planned",
        "evaluate 0": "done", "evaluate 1": "pending",
    }  # fmt: skip
    study.launch("--cancel", "--only", "evaluate-*")
    assert study.status()["evaluate 1"]["state"] == "cancelled"


def test_a_set_is_packed_first_then_measured_and_collected(new_study: NewStudy) -> None:
    study = new_study(write_text([0]))
    new = study.sweep.parent / "new.yaml"
    new.write_text(NEW)
    run_here(study)
    study.write(write_text([0], begin="now"))
    said = study.launch("--evaluate", str(new), "--follow")
    assert said.count("submitted") == 2 and "submitted packing as" in said
    packing, runs = study.batches()
    assert runs.after == (packing.job,) and runs.tasks[0].startswith("evaluate-")
    table = (study.sweep.parent / "results/queue/evals.csv").read_text()
    assert table.count(f",{runs.tasks[0]},") == 3
    assert study.launch("--evaluate", str(new)).startswith("nothing to evaluate: 1 done runs")
    assert study.launch().startswith("nothing to do: 1 done.")
