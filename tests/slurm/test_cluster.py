"""The private Slurm does what a real one does, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from slurm.cluster import PROGRAMS, Cluster, find_free_ports, find_hindrance

START_ONE = """\
import sys
from pathlib import Path
from slurm.cluster import Cluster
Cluster(Path(sys.argv[1])).start()
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def leave_it_empty(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.clear()


def submit(cluster: Cluster, *options: str) -> str:
    return cluster.run("sbatch", "--parsable", "--output=/dev/null", *options).strip()


def wait_for_state(cluster: Cluster, job: str, state: str) -> None:
    cluster.wait_for(lambda: cluster.jobs().get(job) == state)


def processes_in(folder: Path) -> list[str]:
    """Names of all that works in the folder, by another way than `stop` has."""
    names = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                names.append(process.name())
    return names


def test_a_job_runs_and_its_output_is_written(any_cluster: Cluster, tmp_path: Path) -> None:
    output = tmp_path / "job.out"
    job = any_cluster.run("sbatch", "--parsable", "-o", str(output), "--wrap", "echo done").strip()
    wait_for_state(any_cluster, job, "COMPLETED")
    assert output.read_text() == "done\n"


def test_an_array_counts_its_tasks(cluster: Cluster) -> None:
    job = submit(cluster, "--array=0-1", "--wrap", "exit $SLURM_ARRAY_TASK_ID")
    wait_for_state(cluster, f"{job}_0", "COMPLETED")
    wait_for_state(cluster, f"{job}_1", "FAILED")
    with pytest.raises(RuntimeError, match="Invalid job array specification"):
        submit(cluster, "--array=0-101", "--wrap", "true")


def test_one_job_takes_both_nodes(cluster: Cluster) -> None:
    said = cluster.run("srun", "-N2", "sh", "-c", "echo $SLURMD_NODENAME")
    assert sorted(said.split()) == ["n1", "n2"]


def test_gpus_are_counted(cluster: Cluster) -> None:
    job = submit(cluster, "-w", "n1", "--gpus=1", "--wrap", "sleep 60")
    wait_for_state(cluster, job, "RUNNING")
    ask = ("srun", "-w", "n1", "--gpus=1", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert cluster.run(*ask) == "1\n"  # 0 is taken
    with pytest.raises(RuntimeError, match="not available"):
        cluster.run("srun", "-N1", "--gpus=3", "true")


def test_high_preempts_low_which_is_requeued(cluster: Cluster) -> None:
    low = submit(cluster, "-N2", "--exclusive", "--wrap", "sleep 60")
    wait_for_state(cluster, low, "RUNNING")
    high = submit(cluster, "-p", "high", "-N2", "--exclusive", "--wrap", "true")
    wait_for_state(cluster, high, "COMPLETED")
    assert cluster.jobs()[low] == "PENDING"
    cluster.start_now(low)
    cluster.wait_for(lambda: cluster.jobs()[low] == "RUNNING", seconds=60)


def test_the_controller_comes_back_with_its_queue(cluster: Cluster) -> None:
    running = submit(cluster, "--wrap", "sleep 60")
    wait_for_state(cluster, running, "RUNNING")
    waiting = submit(cluster, "--begin=now+1hour", "--wrap", "true")
    cluster.stop_controller()
    with pytest.raises(RuntimeError, match="Unable to contact slurm controller"):
        cluster.jobs()
    cluster.start_controller()
    states = cluster.jobs()
    assert (states[running], states[waiting]) == ("RUNNING", "PENDING")


def test_a_node_goes_down_and_comes_back(cluster: Cluster) -> None:
    job = submit(cluster, "-w", "n1", "--wrap", "sleep 60")
    wait_for_state(cluster, job, "RUNNING")
    cluster.node_down("n1")
    wait_for_state(cluster, job, "PENDING")
    assert cluster.run("srun", "sh", "-c", "echo $SLURMD_NODENAME") == "n2\n"
    cluster.node_up("n1")
    assert cluster.run("srun", "-w", "n1", "echo", "back") == "back\n"


def test_sacct_answers_with_accounting_only(
    cluster: Cluster, cluster_with_accounting: Cluster
) -> None:
    with pytest.raises(RuntimeError, match="accounting storage is disabled"):
        cluster.run("sacct")
    job = submit(cluster_with_accounting, "--gpus=1", "--wrap", "exit 3")
    ask = ("sacct", "-n", "-X", "-P", "-j", job, "-o", "State,ExitCode,AllocTRES")
    cluster_with_accounting.wait_for(
        lambda: cluster_with_accounting.run(*ask).startswith("FAILED|3:0|")
    )
    assert "gres/gpu=1" in cluster_with_accounting.run(*ask)


def test_two_run_at_once_and_nothing_stays(cluster: Cluster, tmp_path: Path) -> None:
    other = Cluster(tmp_path / "o", nodes=1)
    other.start()
    try:
        assert other.run("sinfo", "-h", "-N", "-p", "low", "-o", "%N") == "n1\n"
        # A job that leaves its step's process tree must end too.
        job = submit(other, f"--chdir={tmp_path}", "--wrap", "setsid sleep 60 & sleep 60")
        wait_for_state(other, job, "RUNNING")
        other.wait_for(lambda: processes_in(tmp_path).count("sleep") == 2)
        with pytest.raises(RuntimeError, match="already runs"):
            other.start()
        assert other.is_running()
    finally:
        other.stop()
    assert processes_in(tmp_path) == []
    assert not other.is_running()
    other.stop()
    assert cluster.is_running()


def test_what_a_killed_process_started_can_be_stopped(tmp_path: Path) -> None:
    base = tmp_path / "o"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", START_ONE, str(base)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as starter:
        assert starter.stdout and starter.stdout.readline() == b"up\n"
        starter.send_signal(signal.SIGKILL)
    cluster = Cluster(base)
    try:
        assert cluster.run("srun", "hostname")
    finally:
        cluster.stop()
    assert processes_in(tmp_path) == []


def test_a_start_that_fails_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurm.cluster.slurm_conf", lambda *_: "Nonsense=1\n")
    with pytest.raises(RuntimeError, match=r"(?s)slurmctld ended with 1.*Nonsense"):
        Cluster(tmp_path / "o").start()
    assert processes_in(tmp_path) == []


def test_a_folder_too_deep_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="too long"):
        Cluster(tmp_path / ("deep" * 25)).start()


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROGRAMS, "slurmxyz", "slurm-xyz")
    assert find_hindrance() == (
        "needs slurmxyz, which is not here; as root: apt-get install slurm-xyz"
    )


def test_free_ports_differ() -> None:
    assert len(set(find_free_ports(50))) == 50
