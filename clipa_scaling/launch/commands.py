"""Slurm's own commands: every call of one, each answer parsed, a failed query an error."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from clipa_scaling.claim import own_job

SECONDS = 60  # a controller that answers later counts as one that does not
MOST_IDS = 500  # of jobs in one command line
FIELDS = ("%i", "%T", "%r", "%N", "%M", "%j")  # as QueuedJob has them; a name may hold the bar
# What a launcher started inside an allocation would pass on, so that the jobs take themselves for
# part of it.
LEAKS = re.compile(
    r"(SLURM|SBATCH|SRUN|PMIX|PMI|SUBMITIT)_.*|RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|"
    r"MASTER_(ADDR|PORT)"
)
STUCK = "launch failed requeued held"  # why Slurm holds a job that a node could not start
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS")
NO_CONFIGURATION = ("could not establish a configuration source", "unable to process configuration")


# What Slurm remarks on an order that it nevertheless follows as far as can be: to jobs that are
# over, beside "No error" for the others; to jobs for which no node will do now.
REMARKS = re.compile(
    r"already (finished|completing or completed)|No error|Invalid job id specified|"
    r"not available now",
    re.IGNORECASE,
)
# Its words where the controller does not answer; all others are an answer.
AWAY = re.compile(
    r"contact slurm controller|timed out|zero bytes|standby mode|connect|no answer|"
    r"unexpected message",
    re.IGNORECASE,
)


class QueueError(RuntimeError):
    """Slurm did not answer, or refused; nothing is known, so nothing may change."""


class Refused(QueueError):
    """Slurm answered that it will not do what it was told."""


def make_error(said: str) -> QueueError:
    """The error behind a command's last line."""
    return QueueError(said) if AWAY.search(said) else Refused(said)


@dataclass(frozen=True)
class QueuedJob:
    """A job, or one task of an array, as the controller knows it."""

    id: str
    state: str
    reason: str
    nodes: str
    elapsed: str
    name: str


@dataclass(frozen=True)
class Limits:
    """What the controller accepts; `minutes` is the partition's time limit, None without one."""

    array: int
    minutes: int | None


def has_slurm() -> bool:
    """Whether this machine is set up to submit jobs, its controller up or not."""
    if shutil.which("sbatch") is None or shutil.which("scontrol") is None:
        return False
    try:
        asked = subprocess.run(
            ["scontrol", "ping"], capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return True
    said = (asked.stdout + asked.stderr).lower()
    return not any(phrase in said for phrase in NO_CONFIGURATION)


@contextmanager
def clean_environment() -> Iterator[None]:
    """Without what an enclosing job leaks; put back afterwards."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if is_leak(name)}
    try:
        yield
    finally:
        os.environ.update(taken)


def is_leak(name: str) -> bool:
    return name not in KEPT and LEAKS.fullmatch(name) is not None


def call(*command: str, excused: re.Pattern[str] | None = None) -> str:
    """A command's output; QueueError with its last line where it fails.

    excused: a failure all of whose lines it fits is none.
    """
    try:
        with clean_environment():
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=SECONDS
            )
    except FileNotFoundError:
        raise Refused(f"{command[0]}: no such program; is Slurm installed here?") from None
    except subprocess.TimeoutExpired:
        raise QueueError(f"{command[0]}: no answer within {SECONDS} s") from None
    # scontrol says on its output what it does not find.
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    is_excused = excused is not None and said and all(map(excused.search, said))
    if done.returncode and not is_excused:
        raise make_error(said[-1] if said else f"{command[0]}: exit code {done.returncode}")
    return done.stdout


def ask_queue() -> dict[str, QueuedJob]:
    """All jobs of this user, also those just ended, array tasks apart, in one call."""
    text = call("squeue", "--me", "-h", "-r", "-t", "all", "-o", "|".join(FIELDS))
    return parse_queue(text)


def parse_queue(text: str) -> dict[str, QueuedJob]:
    """The lines of `squeue`; a line that is none of ours in form raises QueueError."""
    jobs = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        fields = line.strip().split("|", len(FIELDS) - 1)
        if len(fields) != len(FIELDS):
            raise QueueError(f"squeue: cannot read the line {line!r}")
        job = QueuedJob(*fields)
        jobs[job.id] = job
    return jobs


def ask_accounting(jobs: Sequence[str]) -> dict[str, str]:
    """Each job's last state, where accounting knows it; QueueError where there is none."""
    found: dict[str, str] = {}
    for some in chunks(jobs):
        wanted = ",".join(some)
        text = call("sacct", "-X", "-D", "-n", "-P", "-j", wanted, "-o", "JobID,State")
        found |= parse_accounting(text)
    return {job: found[job] for job in jobs if job in found}


def parse_accounting(text: str) -> dict[str, str]:
    """The lines of `sacct -P`; of a requeued job's several, the last counts."""
    states = {}
    for line in text.splitlines():
        job, bar, state = line.strip().partition("|")
        if bar and state:
            for task in expand(job):
                states[task] = state.split()[0].rstrip("+")  # `CANCELLED by 0`
    return states


def expand(job: str) -> list[str]:
    """The tasks of `7_[0-2,5%4]`, as accounting names those that never began."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", job)
    if match is None:
        return [job]
    tasks = []
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        tasks += [f"{match[1]}_{n}" for n in range(int(first), int(last or first) + 1)]
    return tasks


def ask_limits(partition: str | None) -> Limits:
    """The controller's limit on arrays and the partition's (by default the default's) on time."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"), re.M)
    if partition:
        names = partition.split(",")
        lines = [call("scontrol", "-o", "show", "partition", name.strip()) for name in names]
    else:
        shown = call("scontrol", "-o", "show", "partition").splitlines()
        lines = [line for line in shown if " Default=YES " in f"{line} "]
    found_limits = [re.search(r"\bMaxTime=(\S+)", line) for line in lines]
    parsed = [parse_minutes(limit[1]) for limit in found_limits if limit]
    limits = [minutes for minutes in parsed if minutes is not None]
    return Limits(
        array=max(1, int(found[1])) if found else 1,  # 0 where arrays are switched off
        minutes=min(limits, default=None),
    )


def parse_minutes(text: str) -> int | None:
    """Whole minutes of `D-HH:MM:SS` or `HH:MM:SS`; None for UNLIMITED."""
    seconds = parse_clock(text)
    return None if seconds is None else int(seconds // 60)


def release(job: str) -> None:
    """Let a held job, or all tasks of a held array, start."""
    call("scontrol", "release", job, excused=REMARKS)


def hold(job: str) -> None:
    """Let no more of a job start; what runs goes on."""
    call("scontrol", "hold", job, excused=REMARKS)


def set_throttle(job: str, tasks: int) -> None:
    """How many tasks of an array may be at work at once."""
    call("scontrol", "update", f"JobId={job}", f"ArrayTaskThrottle={tasks}", excused=REMARKS)


def cancel(jobs: Sequence[str]) -> None:
    """End jobs and array tasks."""
    for some in chunks(jobs):
        call("scancel", *some, excused=REMARKS)


def seconds_left(job: str) -> float | None:
    """What is left of a job's time, as the controller has it now; None where there is no limit."""
    return parse_clock(call("squeue", "-h", "-j", job, "-o", "%L").strip())


def parse_clock(text: str) -> float | None:
    """Seconds of `D-HH:MM:SS`, `HH:MM:SS` or `M:SS`, as squeue prints times; None for a word."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def requeue_self() -> None:
    """Put the job this process is part of back into the queue: of an array, this task alone."""
    call("scontrol", "requeue", own_job())


def chunks(jobs: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(jobs), MOST_IDS):
        yield jobs[start : start + MOST_IDS]
