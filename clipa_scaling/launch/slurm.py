"""Batches to sbatch, through submitit: what a job asks for, its script, its pickles."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import DelayedSubmission, FailedJobError, JobPaths

from clipa_scaling.launch.batch import Ask, Batch, files_of
from clipa_scaling.launch.commands import clean_environment, make_error
from clipa_scaling.launch.job import PackJob, TrainJob
from clipa_scaling.plan import PlanRow
from clipa_scaling.resources import Resources, Slurm
from clipa_scaling.yamlfile import SweepError

HOURS = (1, 2, 4, 8, 12, 24, 48)  # few sizes, so that arrays stay large
REQUEUES = 10**6  # submitit's own limit on requeues, out of the way: ours are in the sweep file


def ask_for(
    row: PlanRow,
    resources: Resources,
    slurm: Slurm,
    most_minutes: int | None,
    evaluation_hours: float = 0.0,
) -> Ask:
    """What a run's job asks for. Raises SweepError where the run does not fit the nodes.

    evaluation_hours: what its own evaluations take beside the training that is priced.
    """
    gpus = row.planned.spec.gpus
    per_node = min(gpus, slurm.gpus_per_node)
    if gpus % per_node:
        raise SweepError(
            f"{row.planned.id}: gpus={gpus} does not fill nodes of slurm.gpus_per_node="
            f"{slurm.gpus_per_node}; allowed: up to that, or a multiple of it"
        )
    minutes = limit_minutes(row, resources, slurm, most_minutes, evaluation_hours)
    if slurm.signal_seconds >= 60 * minutes:
        raise SweepError(
            f"{row.planned.id}: slurm.signal_seconds={slurm.signal_seconds} is not below the time "
            f"limit, {minutes} min; lower it, or raise resources.hours"
        )
    return Ask(
        nodes=gpus // per_node,
        tasks_per_node=per_node,
        gpus_per_node=0 if is_cpu(resources) else per_node,
        minutes=minutes,
        mem_gb=slurm.mem_gb or 0.0,
    )


def is_cpu(resources: Resources) -> bool:
    """Whether runs are priced on cores, so that no GPU is asked for."""
    return resources.device.startswith("cpu")


def limit_minutes(
    row: PlanRow,
    resources: Resources,
    slurm: Slurm,
    most: int | None,
    evaluation_hours: float = 0.0,
) -> int:
    """The time limit: as given, else the estimate x safety in few sizes; at most the partition's.

    A run that needs longer is warned, saves, and goes back into the queue.
    """
    if resources.hours is not None:
        minutes = math.ceil(60 * resources.hours)
    else:
        training = row.cost.gpu_hours / (row.planned.spec.gpus * row.cost.threads)
        estimate = slurm.safety * (training + evaluation_hours)
        fitting = [hours for hours in HOURS if hours >= estimate]
        minutes = 60 * (fitting[0] if fitting else HOURS[-1])
    return minutes if most is None else min(minutes, most)


def ask_for_packing(slurm: Slurm, most_minutes: int | None) -> Ask:
    """What each share of a packing asks for: no GPU."""
    minutes = math.ceil(60 * slurm.pack_hours)
    minutes = minutes if most_minutes is None else min(minutes, most_minutes)
    return Ask(
        nodes=1, tasks_per_node=1, gpus_per_node=0, minutes=minutes, mem_gb=slurm.mem_gb or 0
    )


def parameters(batch: Batch, slurm: Slurm, at_once: int) -> dict[str, Any]:
    """submitit's parameters of a batch; None leaves a line out."""
    ask = batch.ask
    cpus = slurm.cpus_per_task
    srun_args = ["--kill-on-bad-exit=1"]
    if cpus is not None:  # since Slurm 22.05 srun does not take it from sbatch
        srun_args.append(f"--cpus-per-task={cpus}")
    return {
        "job_name": batch.name,
        "time": ask.minutes,
        "nodes": ask.nodes,
        "ntasks_per_node": ask.tasks_per_node,
        "gpus_per_node": ask.gpus_per_node or None,
        "cpus_per_task": cpus,
        "mem": f"{ask.mem_gb:g}GB" if ask.mem_gb else None,
        "partition": (batch.kind == "pack" and slurm.pack_partition) or slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "exclude": ",".join([*filter(None, [slurm.exclude]), *ask.exclude]) or None,
        "dependency": "afterok:" + ":".join(batch.after) if batch.after else None,
        "signal_delay_s": slurm.signal_seconds,
        "array_parallelism": at_once,
        "stderr_to_stdout": True,
        "wckey": None,
        "setup": setup_lines(batch, slurm),
        "srun_args": srun_args,
        # An option of the file that submitit writes too wins, since its key is spelt the same.
        "additional_parameters": {
            "hold": True,
            "requeue": True,
            **({"kill_on_invalid_dep": "yes"} if batch.after else {}),
            **{name.replace("-", "_"): value for name, value in slurm.sbatch.items()},
        },
    }


def setup_lines(batch: Batch, slurm: Slurm) -> list[str]:
    """Shell lines before srun: the file's, then the snapshot's code, not the current folder's."""
    code = shlex.quote(batch.code)
    lines = ["export PYTHONSAFEPATH=1", f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}"]
    if slurm.cpus_per_task is not None:
        lines.append(f"export OMP_NUM_THREADS={slurm.cpus_per_task}")
    return [*slurm.setup, *lines]


def make_jobs(runs: Path, batch: Batch, slurm: Slurm) -> Sequence[TrainJob | PackJob]:
    """What each task of a batch is to call."""
    if batch.kind == "pack":
        workers = slurm.cpus_per_task or 1
        return [
            PackJob(batch.packs, f"{index}/{len(batch.tasks)}", workers)
            for index in range(len(batch.tasks))
        ]
    return [
        TrainJob(str(runs / run), batch.ask.minutes, slurm.signal_seconds, dict(slurm.retries))
        for run in batch.tasks
    ]


def submit_held(runs: Path, batch: Batch, slurm: Slurm, at_once: int) -> str:
    """Hand a batch to sbatch, held; its job's id. Refused, or QueueError where nobody answered."""
    folder = files_of(runs, batch)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = make_jobs(runs, batch, slurm)
    try:
        with clean_environment():
            executor = SlurmExecutor(folder, max_num_timeout=REQUEUES)
            executor.update_parameters(**parameters(batch, slurm, at_once))
            with executor.batch():
                submitted = [executor.submit(job) for job in jobs]
    except FailedJobError as error:
        said = [line for line in str(error).splitlines() if line.strip()]
        raise make_error(said[-1] if said else "no answer from sbatch") from None
    return str(submitted[0].job_id).partition("_")[0]


def write_pickles(runs: Path, batch: Batch, slurm: Slurm) -> None:
    """The files that submitit's jobs read, where a launcher died before it had named them."""
    folder = files_of(runs, batch)
    for job, job_id in zip(make_jobs(runs, batch, slurm), batch.task_jobs(), strict=True):
        path = JobPaths(folder, job_id=job_id).submitted_pickle
        if not path.exists():
            submission = DelayedSubmission(job)
            submission.set_timeout(batch.ask.minutes, REQUEUES)
            submission.dump(path)
    for path in folder.glob("*.pkl"):
        if "_submitted" not in path.name and "_result" not in path.name:
            path.unlink()
