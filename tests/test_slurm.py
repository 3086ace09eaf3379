"""What is said to Slurm and what is read from it, without one: golden scripts, parsed answers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_sweep import SMALL, write_small
from submitit.slurm.slurm import _make_sbatch_string

from clipa_scaling.claim import own_job
from clipa_scaling.launch import commands
from clipa_scaling.launch.batch import Ask, Batch, batch_from_json, load_batches, save_batch
from clipa_scaling.launch.choose import choose_runs
from clipa_scaling.launch.commands import QueueError, parse_accounting, parse_queue
from clipa_scaling.launch.queue import Queue
from clipa_scaling.launch.slurm import ask_for, parameters
from clipa_scaling.launch.status import read_statuses
from clipa_scaling.launch.submit import share_out
from clipa_scaling.plan import make_plan
from clipa_scaling.resources import Slurm
from clipa_scaling.sweepfile import Sweep, load_sweep
from clipa_scaling.yamlfile import SweepError

GOLDEN = Path(__file__).parent / "golden"
BATCH = Batch(
    id="0123456789ab",
    sweep="inverse",
    kind="runs",
    tasks=("one", "two", "three"),
    ask=Ask(nodes=1, tasks_per_node=1, gpus_per_node=1, minutes=480),
    code="/runs/.code/abc",
    time=0.0,
)
SCRIPTS: dict[str, tuple[Batch, Slurm]] = {
    "array": (BATCH, Slurm()),
    "nodes": (
        replace(
            BATCH,
            tasks=("one",),
            ask=Ask(4, 8, 8, 2880, mem_gb=900.0, exclude=("n7",)),
            after=("77",),
        ),
        Slurm(
            partition="gpu",
            account="vision",
            qos="long",
            constraint="a100",
            cpus_per_task=12,
            setup=("module load cuda", "source env.sh"),
            sbatch={"exclusive": True, "gpus-per-node": "a100:8", "mail-type": "FAIL"},
        ),
    ),
    "pack": (
        replace(
            BATCH, kind="pack", tasks=("share 0", "share 1"), ask=Ask(1, 1, 0, 240), packs=("/p",)
        ),
        Slurm(partition="gpu", pack_partition="cpu", cpus_per_task=16, signal_seconds=60),
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_batch_scripts_are_the_golden_ones(name: str) -> None:
    batch, slurm = SCRIPTS[name]
    count = len(batch.tasks) if len(batch.tasks) > 1 else None
    wanted: dict[str, Any] = parameters(batch, slurm, at_once=2)
    script = _make_sbatch_string("python JOB", "/runs/files", map_count=count, **wanted)
    path = GOLDEN / f"{name}.sh"
    if os.environ.get("ACCEPT_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
    assert script == path.read_text(), (
        f"the script of {name} is no longer tests/golden/{name}.sh; if the change is meant: "
        "ACCEPT_GOLDEN=1 pytest tests/test_slurm.py, then look at the difference and commit it"
    )


def test_the_queues_lines_are_read() -> None:
    jobs = parse_queue(
        "12_3|PENDING|JobHeldUser||0:00|clipa:a:1\n13|RUNNING|None|n[1-2]|1-02:03:04|a|b\n\n"
    )
    assert jobs["12_3"].reason == "JobHeldUser"
    assert jobs["13"].nodes == "n[1-2]" and jobs["13"].name == "a|b"
    assert commands.parse_clock(jobs["13"].elapsed) == ((24 + 2) * 60 + 3) * 60 + 4
    with pytest.raises(QueueError, match="cannot read the line 'slurm_load_jobs error'"):
        parse_queue("slurm_load_jobs error\n")


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("7_1|CANCELLED by 0\n", "CANCELLED"),
        ("7_[0-2,5%4]|CANCELLED by 1000\n", "CANCELLED"),
        ("7_1|PREEMPTED\n7_1|COMPLETED\n", "COMPLETED"),
        ("7_[2-9]|PENDING\n7_1|NODE_FAIL\n", "NODE_FAIL"),
    ],
)
def test_accountings_lines_are_read(text: str, state: str) -> None:
    assert parse_accounting(text)["7_1"] == state


def test_no_accounting_and_no_answer_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(commands.Refused, match="squeue: no such program"):
        commands.ask_queue()
    said = "sacct: error: Slurm accounting storage is disabled"
    write_program(tmp_path / "sacct", f"echo '{said}' >&2; exit 1")
    with pytest.raises(QueueError, match=f"^{said}$"):
        commands.ask_accounting(["7"])


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_nothing_of_an_enclosing_job_leaks_but_its_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "SLURM_CPU_BIND", "RANK", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    write_program(tmp_path / "squeue", "env | cut -d= -f1")
    names = commands.call("squeue").split()
    assert "SLURM_CONF" in names and "PATH" in names
    assert not [name for name in names if name.startswith(("SLURM_J", "SLURM_CPU", "SBATCH"))]
    assert not {"RANK", "MASTER_PORT"} & set(names)
    assert os.environ["SLURM_JOB_ID"] == "1", "put back afterwards"


def test_tasks_of_an_array_are_named_by_both_numbers() -> None:
    """The raw id of the last task is the whole array's: requeuing it would requeue all."""
    array = {"SLURM_JOB_ID": "70", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "9"}
    assert own_job(array) == "70_9"
    assert own_job({"SLURM_JOB_ID": "71"}) == "71"
    assert own_job({}) == ""


def small(tmp_path: Path, slurm: str = "{}", resources: str = "{gpu: a100-80gb}") -> Sweep:
    text = SMALL.replace("resources: {gpu: cpu-core}", f"resources: {resources}\nslurm: {slurm}")
    return load_sweep(write_small(tmp_path, text), tmp_path / "packs")


@pytest.mark.parametrize(
    ("gpu_hours", "gpus", "most", "minutes"),
    [
        (0.4, 1, None, 60),
        (0.6, 1, None, 120),
        (70.0, 8, None, 24 * 60),
        (1000.0, 1, None, 48 * 60),
        (70.0, 8, 10 * 60, 10 * 60),
    ],
)
def test_auto_hours_are_the_estimate_twice_rounded_up_and_clipped(
    tmp_path: Path, gpu_hours: float, gpus: int, most: int | None, minutes: int
) -> None:
    sweep = small(tmp_path)
    row = make_plan(sweep, tmp_path).rows[0]
    spec = replace(row.planned.spec, gpus=gpus)
    row = replace(
        row, planned=replace(row.planned, spec=spec), cost=replace(row.cost, gpu_hours=gpu_hours)
    )
    assert ask_for(row, sweep.resources, sweep.slurm, most).minutes == minutes


def test_auto_hours_are_of_the_wall_and_leave_time_to_evaluate(tmp_path: Path) -> None:
    """On CPUs the price counts each thread; evaluation is not in it."""
    sweep = small(tmp_path)
    row = make_plan(sweep, tmp_path).rows[0]
    row = replace(row, cost=replace(row.cost, gpu_hours=8.0, threads=8))
    assert ask_for(row, sweep.resources, sweep.slurm, None).minutes == 2 * 60
    assert ask_for(row, sweep.resources, sweep.slurm, None, 2.5).minutes == 8 * 60


def test_a_launch_asks_for_the_time_of_evaluation(tmp_path: Path) -> None:
    """Of many pictures, beside a training of minutes."""
    found = []
    for pairs in (400, 400_000_000):
        text = SMALL.replace("pairs: 400,", f"pairs: {pairs},")
        plan = make_plan(load_sweep(write_small(tmp_path, text), tmp_path), tmp_path / "runs")
        statuses = read_statuses(plan, tmp_path / "runs", [], Queue())
        wanted = choose_runs(
            plan, statuses, tmp_path / "runs", [], commands.Limits(1, None),
            by_hand=True, retry=False, wants=lambda _: True,
        )  # fmt: skip
        found.append({item.ask.minutes for item in wanted})
    assert found[0] == {60} and min(found[1]) >= 240


@pytest.mark.parametrize(
    ("gpus", "nodes", "tasks"), [(1, 1, 1), (3, 1, 3), (4, 1, 4), (8, 2, 4), (12, 3, 4)]
)
def test_one_task_per_gpu_on_whole_nodes(tmp_path: Path, gpus: int, nodes: int, tasks: int) -> None:
    sweep = small(tmp_path, "{gpus_per_node: 4}")
    row = make_plan(sweep, tmp_path).rows[0]
    row = replace(row, planned=replace(row.planned, spec=replace(row.planned.spec, gpus=gpus)))
    ask = ask_for(row, sweep.resources, sweep.slurm, None)
    assert (ask.nodes, ask.tasks_per_node, ask.gpus_per_node) == (nodes, tasks, tasks)
    on_cores = ask_for(row, replace(sweep.resources, device="cpu-core"), sweep.slurm, None)
    assert on_cores.gpus_per_node == 0


def test_what_does_not_fit_the_nodes_or_the_time_is_refused(tmp_path: Path) -> None:
    sweep = small(
        tmp_path, "{gpus_per_node: 4, signal_seconds: 60}", "{gpu: cpu-core, hours: 0.01}"
    )
    row = make_plan(sweep, tmp_path).rows[0]
    with pytest.raises(SweepError, match="signal_seconds=60 is not below the time limit, 1 min"):
        ask_for(row, sweep.resources, sweep.slurm, None)
    six = replace(row, planned=replace(row.planned, spec=replace(row.planned.spec, gpus=6)))
    with pytest.raises(SweepError, match="gpus=6 does not fill nodes of slurm.gpus_per_node=4"):
        ask_for(six, sweep.resources, sweep.slurm, None)


@pytest.mark.parametrize(
    ("most", "sizes", "shares"),
    [
        (None, [3, 5], [3, 5]),
        (10, [3, 5], [3, 5]),
        (4, [3, 5], [1, 3]),
        (8, [100, 10], [7, 1]),
        (2, [3, 5, 1], [1, 1, 0]),
        (1, [50], [1]),
    ],
)
def test_max_parallel_is_shared_out(most: int | None, sizes: list[int], shares: list[int]) -> None:
    found = share_out(most, {str(index): size for index, size in enumerate(sizes)})
    assert list(found.values()) == shares


def test_a_batch_is_kept_whole(tmp_path: Path) -> None:
    for batch, _ in SCRIPTS.values():
        save_batch(tmp_path, batch)
        assert load_batches(tmp_path, "inverse") == [batch]
    with pytest.raises(TypeError):
        batch_from_json({"ask": {"exclude": []}, "tasks": [], "after": [], "packs": []})


def test_without_a_configured_slurm_the_choice_is_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not commands.has_slurm()
    write_program(tmp_path / "sbatch", "exit 0")
    write_program(tmp_path / "scontrol", "echo 'Could not establish a configuration source' >&2")
    assert not commands.has_slurm(), "programs alone are no cluster"
    write_program(tmp_path / "scontrol", "echo 'Slurmctld(primary) at c1 is DOWN'; exit 1")
    assert commands.has_slurm(), "a controller that is away is no reason to run here"


WRONG = {
    "{partitoin: gpu}": "slurm.partitoin: unknown key; nearest: partition",
    "{max_parallel: 0}": "slurm.max_parallel: 0; allowed: 1 or more",
    "{cpus_per_task: many}": "slurm.cpus_per_task: got 'many'; allowed: a value of type int",
    "{retries: {oom: 1}}": "slurm.retries.oom: unknown key; nearest: ",
    "{retries: {node: -1}}": "slurm.retries.node: -1; allowed: 0 or more",
    "{sbatch: {array: 1-9}}": "slurm.sbatch.array: is the launcher's own; remove it",
    "{sbatch: {qos: x}}": "slurm.sbatch.qos: has its own key; write slurm.qos",
    "{sbatch: {p: gpu}}": "slurm.sbatch.p: is a short option; write its long name",
    "{sbatch: {nice: [1]}}": "slurm.sbatch.nice: got [1]; allowed: a word, a number, true",
    "{setup: module load}": "slurm.setup: got 'module load'; allowed: a list",
    "{safety: .inf}": "slurm.safety: inf is not positive and finite; allowed: above 0",
}


@pytest.mark.parametrize("slurm", WRONG)
def test_a_wrong_slurm_block_is_one_line_with_its_place(tmp_path: Path, slurm: str) -> None:
    with pytest.raises(SweepError) as caught:
        small(tmp_path, slurm)
    assert WRONG[slurm] in str(caught.value) and "small.yaml:2" in str(caught.value)
    assert "\n" not in str(caught.value)
