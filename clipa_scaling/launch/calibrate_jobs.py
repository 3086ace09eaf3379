"""Measuring on Slurm: a job for each cell in its runs' shape, found again by its name."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import DelayedSubmission, FailedJobError, JobPaths

from clipa_scaling.launch import commands
from clipa_scaling.launch.batch import Batch, folder_digits
from clipa_scaling.launch.calibrate import Calibration, Cell, most_minutes
from clipa_scaling.launch.commands import QueuedJob
from clipa_scaling.launch.job import CalibrateJob
from clipa_scaling.launch.queue import ENDED, POLL_SECONDS
from clipa_scaling.launch.slurm import REQUEUES, ask_for, parameters
from clipa_scaling.launch.status import last_words
from clipa_scaling.speed import failure_path, record_path, request_path
from clipa_scaling.sweepfile import Sweep
from clipa_scaling.yamlfile import SweepError

# Not of the form of a sweep's batches, whose launcher ends waiting jobs that no batch accounts for.
PREFIX = "clipa-calibrate"
LATE_SECONDS = 10.0  # assumed: what a shared file system may be late


def job_name(work: Calibration, cell: Cell) -> str:
    """By it a job is found that an earlier call submitted."""
    return f"{PREFIX}:{folder_digits(work.runs)}:{cell.key}"


def job_folder(work: Calibration) -> Path:
    """Where scripts, pickles and output of jobs lie."""
    return work.folder / "jobs"


def submit_missing(work: Calibration, sweep: Sweep, cells: Sequence[Cell]) -> list[Cell]:
    """Submit a job for each cell that has none in the queue; the cells that have one now.

    What Slurm refuses is told and keeps back nothing else. QueueError where it does not answer.
    """
    limits = commands.ask_limits(sweep.slurm.partition)
    there = living_jobs(work.runs)
    waited = []
    for cell in cells:
        if job_name(work, cell) in there:
            adopt(work, cell, there[job_name(work, cell)])
            waited.append(cell)
            continue
        try:
            job = submit_job(work, sweep, cell, limits.minutes)
        except commands.Refused as error:
            work.end(cell, f"Slurm refuses: {error}", job_folder(work))
            continue
        except SweepError as error:
            work.end(cell, str(error), job_folder(work))
            continue
        work.say(f"submitted {cell.name} as job {job}")
        waited.append(cell)
    adopted = sum(job_name(work, cell) in there for cell in cells)
    if adopted:
        work.say(f"in the queue already: {adopted}")
    return waited


def adopt(work: Calibration, cell: Cell, job: QueuedJob) -> None:
    """Give a job what it is to call, where its launcher died before it had: it waits for that."""
    path = JobPaths(job_folder(work), job_id=job.id).submitted_pickle
    if not path.exists():
        submission = DelayedSubmission(CalibrateJob(str(request_path(work.runs, cell.key))))
        submission.set_timeout(most_minutes(work.minutes), REQUEUES)
        submission.dump(path)


def living_jobs(runs: Path) -> dict[str, QueuedJob]:
    """The jobs of this runs folder's calibration that wait or are at work, by name."""
    return {name: job for name, job in known_jobs(runs).items() if job.state not in ENDED}


def known_jobs(runs: Path) -> dict[str, QueuedJob]:
    """The latest job of each name that the controller still remembers."""
    ours = f"{PREFIX}:{folder_digits(runs)}:"
    jobs = [job for job in commands.ask_queue().values() if job.name.startswith(ours)]
    return {job.name: job for job in sorted(jobs, key=lambda job: int(job.id))}


def submit_job(work: Calibration, sweep: Sweep, cell: Cell, most: int | None) -> str:
    """Hand a cell's job to sbatch; its id."""
    minutes = most_minutes(work.minutes)
    minutes = minutes if most is None else min(minutes, most)
    resources = replace(sweep.resources, hours=minutes / 60)
    signal = min(sweep.slurm.signal_seconds, 30)  # nothing is to be saved
    slurm = replace(sweep.slurm, signal_seconds=signal)
    ask = ask_for(cell.row, resources, slurm, most)
    batch = Batch(
        id=cell.key, sweep=sweep.name, kind="runs", tasks=(cell.key,), ask=ask,
        code=str(work.code), time=time.time(),
    )  # fmt: skip
    asked: dict[str, Any] = parameters(batch, slurm, 1)
    del asked["additional_parameters"]["hold"]
    asked["job_name"] = job_name(work, cell)
    folder = job_folder(work)
    folder.mkdir(parents=True, exist_ok=True)
    request = work.request(cell)
    try:
        with commands.clean_environment():
            executor = SlurmExecutor(folder, max_num_timeout=REQUEUES)
            executor.update_parameters(**asked)
            return str(executor.submit(CalibrateJob(str(request))).job_id)
    except FailedJobError as error:
        said = [line for line in str(error).splitlines() if line.strip()]
        raise commands.make_error(said[-1] if said else "no answer from sbatch") from None


def wait_for(work: Calibration, cells: Sequence[Cell]) -> None:
    """Until every cell is measured or its job is over.

    A queue that does not answer changes nothing. KeyboardInterrupt leaves the jobs to themselves:
    the same command waits for them again.
    """
    waiting, absent, silent = list(cells), dict[str, float](), False
    while waiting:
        try:
            jobs, silent = known_jobs(work.runs), False
        except commands.QueueError as error:
            if not silent:
                work.say(f"Slurm does not answer, so only records tell: {error}")
            jobs, silent = {}, True
        for cell in list(waiting):
            job = jobs.get(job_name(work, cell))
            if job is not None and job.reason == commands.STUCK:
                commands.cancel([job.id])
                work.end(cell, f"its job {job.id} cannot start ({job.reason})", job_folder(work))
                waiting.remove(cell)
                continue
            alive = silent or (job is not None and job.state not in ENDED)
            if not is_settled(work, cell):
                if alive:
                    absent.pop(cell.key, None)
                    continue
                if time.time() - absent.setdefault(cell.key, time.time()) < LATE_SECONDS:
                    continue
            settle(work, cell, job)
            waiting.remove(cell)
        if waiting:
            time.sleep(min(POLL_SECONDS, LATE_SECONDS) if absent else POLL_SECONDS)


def is_settled(work: Calibration, cell: Cell) -> bool:
    """Whether the job said how it went: a record or a failure later than the request."""
    asked = request_path(work.runs, cell.key).stat().st_mtime_ns
    paths = record_path(work.runs, cell.key), failure_path(work.runs, cell.key)
    return any(path.exists() and path.stat().st_mtime_ns >= asked for path in paths)


def settle(work: Calibration, cell: Cell, job: QueuedJob | None) -> None:
    """Say what became of a cell whose job said so, or is over."""
    if is_settled(work, cell):
        work.end(cell, "", job_folder(work))
        return
    outputs = sorted(job_folder(work).glob(f"{job.id}_*_log.out")) if job is not None else []
    said = last_words(outputs[0]) if outputs else ""
    state = job.state if job is not None else "it left the queue"
    where = outputs[0] if outputs else job_folder(work)
    work.end(cell, f"its job ended without a record ({state}){': ' * bool(said)}{said}", where)
