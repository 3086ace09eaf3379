"""Whatever the cluster does to a run, its weights are those of an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_sweep import command, write_small

from clipa_scaling import claim, rundir
from clipa_scaling.rundir import RunDir
from slurm.cluster import Cluster

# One run of about ten seconds: long enough to be hit in the middle.
SWEEP = """\
name: hit
data:
  train: scenes
  pairs: 2_000
  store_px: 16
  evals:
    scenes: {path: scenes, task: classify, pairs: 200, seed: 1, prompts: ["a large {}"]}
fixed:
  model: T32/8
  image_tokens: 4
  samples: SAMPLES
  batch_size: 64
  lr: 1e-3
  text_tokens: 8
  precision: fp32
  checkpoint_every_samples: 2_048
  log_every_samples: 1_024
resources: {gpu: cpu-core, hours: 1}
slurm: {cpus_per_task: 1, signal_seconds: SIGNAL}
"""


class Study:
    """The sweep in a folder of its own, on a cluster; its packs made beforehand."""

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        packs: Path | None,
        samples: int = 24_576,
        signal: int = 20,
    ):
        text = SWEEP.replace("SAMPLES", str(samples)).replace("SIGNAL", str(signal))
        self.sweep = write_small(folder, text)
        self.cluster, self.runs = cluster, folder / "runs"
        if packs is not None:
            self.runs.mkdir()
            (self.runs / ".packs").symlink_to(packs)

    def call(self, *options: str, code: int = 0) -> str:
        """The command to its end; what it printed."""
        environment = os.environ | self.cluster.environment | {"CLIPA_POLL_SECONDS": "0.5"}
        done = subprocess.run(
            command(self.sweep, *options), capture_output=True, text=True, env=environment,
            timeout=600,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """The command, at work."""
        return subprocess.Popen(command(self.sweep, *options), stdout=subprocess.DEVNULL)

    def status(self) -> dict[str, Any]:
        [run] = json.loads(self.call("--status", "--json"))["runs"]
        return dict(run)

    @property
    def run(self) -> RunDir:
        [path] = self.runs.glob("pretrain-*")
        return RunDir(path)

    def wait(self, happens: Callable[[], bool], seconds: float = 300) -> None:
        self.cluster.wait_for(happens, seconds)

    def wait_until_half(self) -> None:
        self.wait(lambda: bool(list(self.runs.glob("pretrain-*/checkpoints/4096"))))

    def events(self) -> list[str]:
        return [row["event"] for row in rundir.read_jsonl(self.run.events)]

    def result(self) -> tuple[bytes, list[dict[str, Any]]]:
        """The final weights, and the metrics without time, throughput and attempt."""
        rows = rundir.read_jsonl(self.run.metrics)
        for row in rows:
            del row["samples_per_second"], row["attempt"]
        checkpoint = self.run.last_checkpoint()
        assert checkpoint is not None and self.run.done.exists()
        return (checkpoint / "weights.safetensors").read_bytes(), rows


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The run when nothing happens to it, packed by jobs."""
    study = Study(tmp_path_factory.mktemp("undisturbed"), cluster, None)
    said = study.call("--follow")
    assert "submitted packing as array" in said and "submitted 1 run as job" in said
    assert study.status()["state"] == "done"
    return study


@pytest.fixture
def study(undisturbed: Study, any_cluster: Cluster, tmp_path: Path) -> Study:
    return Study(tmp_path, any_cluster, undisturbed.runs / ".packs")


def finish(study: Study, undisturbed: Study, job: str) -> None:
    """Let a requeued job go on at once, and compare what comes out.

    Once its processes are gone: a node refuses a job that it still has.
    """
    last = study.run.last_attempt()
    assert last is not None
    study.wait(lambda: not claim.is_alive(claim.load_owner(last)))
    study.wait(lambda: study.status()["state"] == "requeued")
    study.cluster.start_now(job)
    study.wait(lambda: study.run.done.exists())
    assert study.result() == undisturbed.result()


def test_a_higher_partition_preempts_and_the_run_goes_on(study: Study, undisturbed: Study) -> None:
    study.call()
    study.wait_until_half()
    job = study.status()["job"]
    study.cluster.run(
        "sbatch", "-p", "high", "-N", "2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3"
    )
    study.wait(lambda: "requeued" in study.events())
    [requeued] = [row for row in rundir.read_jsonl(study.run.events) if row["event"] == "requeued"]
    assert requeued["kind"] == "preempted" and requeued["job"] == job
    finish(study, undisturbed, job)
    assert study.events()[-3:] == ["requeued", "resumed", "done"]


def test_a_time_limit_shorter_than_the_run(
    undisturbed: Study, any_cluster: Cluster, tmp_path: Path
) -> None:
    """The limit is lowered once the run trains, so that a slow start does not matter.

    Slurm looks at limits twice a minute: a longer run, beside the same one in a local pool.
    """
    packs = undisturbed.runs / ".packs"
    calm = Study(tmp_path / "calm", any_cluster, packs, samples=131_072, signal=50)
    study = Study(tmp_path / "hit", any_cluster, packs, samples=131_072, signal=50)
    study.call()
    with calm.start("--cluster", "local", "--jobs", "2") as beside:
        study.wait_until_half()
        job = study.status()["job"]
        any_cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=1")
        study.wait(lambda: "requeued" in study.events())
        beside.wait()
    [requeued] = [row for row in rundir.read_jsonl(study.run.events) if row["event"] == "requeued"]
    assert requeued["kind"] == "timeout"
    study.wait(lambda: study.status()["state"] == "requeued")
    any_cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    finish(study, calm, job)


def test_requeued_by_hand_in_the_middle(study: Study, undisturbed: Study) -> None:
    study.call()
    study.wait_until_half()
    job = study.status()["job"]
    study.cluster.run("scontrol", "requeue", job)
    finish(study, undisturbed, job)
    assert study.events()[-3:] == ["stopped", "resumed", "done"], "it saved before it left"


def test_kill_9_of_the_task(study: Study, undisturbed: Study) -> None:
    study.call()
    study.wait_until_half()
    owner = json.loads((study.run.attempts / "1/env.json").read_text())["claim"]["pid"]
    os.kill(owner, signal.SIGKILL)
    study.wait(lambda: study.status()["state"] == "failed")
    assert study.status()["kind"] == "killed"
    said = study.call("--follow")
    assert "submitted 1 run as job" in said and "1 of them again" in said
    assert study.result() == undisturbed.result()
    assert study.status()["attempt"] == 2


def test_a_node_set_down(study: Study, undisturbed: Study) -> None:
    study.call()
    study.wait_until_half()
    job = study.status()["job"]
    node = study.cluster.run("squeue", "-h", "-j", job, "-o", "%N").strip()
    study.cluster.node_down(node)
    try:
        finish(study, undisturbed, job)
    finally:
        study.cluster.node_up(node)
    assert "resumed" in study.events()


def test_requeued_by_hand_when_done_nothing_happens(study: Study, undisturbed: Study) -> None:
    study.call("--follow")
    before, job = study.result(), study.status()["job"]
    study.cluster.run("scontrol", "requeue", job)
    study.cluster.start_now(job)
    study.wait(lambda: study.cluster.jobs()[job] == "COMPLETED")
    assert study.result() == before == undisturbed.result()
    assert [path.name for path in study.run.attempts.iterdir() if path.name.isdigit()] == ["1"]
    assert study.call().startswith("nothing to do: 1 done")


def test_scancel_shows_as_cancelled_and_the_same_command_takes_the_run_up(
    study: Study, undisturbed: Study
) -> None:
    study.call()
    study.wait_until_half()
    job = study.status()["job"]
    study.cluster.run("scancel", job)
    study.wait(lambda: study.status()["state"] == "cancelled")
    assert study.events()[-1] == "stopped", "it saved before it left, and did not requeue"
    assert "cancelled" in study.call("--status")
    said = study.call("--follow")
    assert "submitted 1 run as job" in said
    assert study.result() == undisturbed.result()


def wait_until_starting(study: Study) -> str:
    """Until the job's process is about to import what trains; its job."""
    job = str(study.status()["job"])
    output = list(study.runs.glob(".sweeps/hit/submissions/*"))
    [folder] = [path for path in output if path.is_dir()]
    log = folder / f"{job}_0_log.out"
    study.wait(lambda: log.exists() and "Loading pickle" in log.read_text())
    return job


def test_scancel_while_the_run_starts_is_no_requeue(study: Study) -> None:
    study.call()
    job = wait_until_starting(study)
    study.cluster.run("scancel", job)
    study.wait(lambda: study.status()["state"] == "cancelled")
    assert study.cluster.jobs()[job] == "CANCELLED"
    assert "requeued" not in study.events()


def test_cancelling_one_run_leaves_the_packing_of_the_others(
    any_cluster: Cluster, tmp_path: Path
) -> None:
    study = Study(tmp_path, any_cluster, None)
    text = study.sweep.read_text() + "seeds: [0, 1, 2]\n"
    study.sweep.write_text(text.replace("{cpus", "{sbatch: {begin: now+1hour}, cpus"))
    study.call()
    assert study.call("--cancel", "--only", "seed=1") == "cancelled 1 run\n"
    states = [run["state"] for run in json.loads(study.call("--status", "--json"))["runs"]]
    assert states == ["pending", "cancelled", "pending"]
    assert study.call("--cancel") == "cancelled 2 runs\n"
    study.wait(lambda: "PENDING" not in study.cluster.jobs().values())
