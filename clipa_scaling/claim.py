"""Who works on a run: one owner at a time, taken over when that owner is gone."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

STALE_SECONDS = 300.0  # assumed: far above the heartbeat, so only a dead host's owner reaches it


class HeldError(RuntimeError):
    """Another living process owns the run; the message names it."""


@dataclass(frozen=True)
class Claim:
    """An owner: enough to tell, later and elsewhere, whether it still lives."""

    host: str
    pid: int
    process_start: float
    slurm_job: str = ""
    slurm_restart: int = 0


def own_job(environment: Mapping[str, str] = os.environ) -> str:
    """The id of the Slurm job a process is part of, as squeue prints it; empty outside one.

    The raw id of an array's last task is that of the whole array, so tasks need both numbers.
    """
    if environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID", "")


def make_claim() -> Claim:
    """The claim of this process; `process_start` guards against a recycled pid."""
    return Claim(
        host=socket.gethostname(),
        pid=os.getpid(),
        process_start=psutil.Process().create_time(),
        slurm_job=os.environ.get("SLURM_JOB_ID", ""),
        slurm_restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
    )


def is_alive(claim: Claim, heartbeat: Path | None = None) -> bool:
    """Whether the owner lives: its process on this host, elsewhere the age of its heartbeat."""
    if claim.host == socket.gethostname():
        try:
            process = psutil.Process(claim.pid)
            same = abs(process.create_time() - claim.process_start) < 1.0
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
    if heartbeat is None or not heartbeat.exists():
        return True  # it may be starting
    return time.time() - heartbeat.stat().st_mtime < STALE_SECONDS


def load_owner(attempt: Path) -> Claim:
    """Who took an attempt."""
    return Claim(**json.loads((attempt / "env.json").read_text())["claim"])


def signal_owner(owner: Claim, number: int) -> None:
    """Signal an owner on this host, if it still lives."""
    if owner.host == socket.gethostname() and is_alive(owner):
        os.kill(owner.pid, number)


def take(what: str, attempts: Path, heartbeat: Path, environment: dict[str, Any]) -> Path:
    """Make the next attempt's folder, owned by this process; `what` names it in errors.

    The folder is filled under a temporary name and renamed into place: of two processes that take
    the same number one fails, looks again and finds a living owner. Raises HeldError naming it.
    """
    attempts.mkdir(parents=True, exist_ok=True)
    mine = make_claim()
    while True:
        numbers = sorted(int(folder.name) for folder in attempts.iterdir() if folder.name.isdigit())
        if numbers:
            check_free(what, attempts / str(numbers[-1]), heartbeat, mine)
        number = numbers[-1] + 1 if numbers else 1
        temporary = attempts / f".{number}.{secrets.token_hex(4)}"
        temporary.mkdir()
        record = {"attempt": number, "claim": asdict(mine), "job": own_job(), **environment}
        with open(temporary / "env.json", "w") as file:
            file.write(json.dumps(record, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            temporary.rename(attempts / str(number))
        except OSError:
            shutil.rmtree(temporary)
            continue
        return attempts / str(number)


@contextmanager
def keep_alive(heartbeat: Path) -> Iterator[None]:
    """Touch a path now and then, for owners on other hosts that go by its age."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(STALE_SECONDS / 10):
            os.utime(heartbeat)

    threading.Thread(target=touch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def check_free(what: str, attempt: Path, heartbeat: Path, mine: Claim) -> None:
    """Raise HeldError unless the attempt ended, its owner is gone, or it is this job restarted."""
    if (attempt / "exit.json").exists():
        return
    owner = load_owner(attempt)
    restarted = owner.slurm_job == mine.slurm_job and owner.slurm_restart < mine.slurm_restart
    if not (owner.slurm_job and restarted) and owner != mine and is_alive(owner, heartbeat):
        raise HeldError(
            f"{what}: held by pid {owner.pid} on {owner.host}; wait for it, or stop that process"
        )
