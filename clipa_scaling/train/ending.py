"""How an attempt ends: what may go wrong, of which kind it is, and where that is written."""

from __future__ import annotations

import sys
import time
import traceback

import torch

from clipa_scaling import rundir
from clipa_scaling.rundir import DIVERGED, FAILED, RunDir
from clipa_scaling.train.world import PeerLost


class Diverged(RuntimeError):
    """The loss is no number any more."""


class Refused(ValueError):
    """A mistake of whoever planned or started the run; its one line says all."""


def name_kind(error: BaseException) -> str:
    """The kind of a failure, by which a launcher decides whether to try again."""
    if isinstance(error, Diverged):
        return "diverged"
    if isinstance(error, torch.OutOfMemoryError):
        return "oom_gpu"
    # The allocator of tensors on the host has no error of its own.
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return "oom_host"
    if isinstance(error, PeerLost | torch.distributed.DistError):
        return "nccl" if "nccl" in str(error).lower() else "dist"
    return "error"


def tell(error: Exception) -> str:
    """A failure in one line, shown in the log, with its traceback unless it is a user's mistake."""
    if isinstance(error, Refused | Diverged):
        print(error, file=sys.stderr, flush=True)
        return str(error)
    traceback.print_exception(error)
    return " ".join(f"{type(error).__name__}: {error}".split())


def report(run: RunDir, attempt: int, error: Exception) -> int:
    """Rank 0's failure becomes an event and the run's state; the exit code.

    Another rank that failed first said why: what rank 0 saw of that is only that it is gone.
    """
    reason, kind = tell(error), name_kind(error)
    first = rundir.read_failure(run.attempts / str(attempt))
    if isinstance(error, PeerLost) and first is not None:
        reason, kind = first["reason"], first["kind"]
    state = "diverged" if kind == "diverged" else "failed"
    last = rundir.read_json(run.state) or {}
    samples = last.get("samples", 0)
    row = {"time": time.time(), "event": state, "attempt": attempt, "samples": samples}
    rundir.append_jsonl(run.events, {**row, "reason": reason, "kind": kind})
    value = {**last, "state": state, "reason": reason, "kind": kind, "attempt": attempt}
    rundir.write_json(run.state, {**value, "samples": samples, "time": time.time()})
    return DIVERGED if kind == "diverged" else FAILED


def leave_word(run: RunDir, attempt: int, rank: int, error: Exception) -> int:
    """Another rank's failure, in a file of its own, for rank 0 to report; the exit code."""
    reason, kind = tell(error), name_kind(error)
    if attempt and not isinstance(error, PeerLost):
        value = {"reason": f"rank {rank}: {reason}", "kind": kind, "time": time.time()}
        rundir.write_json(run.attempts / str(attempt) / f"failed.{rank}.json", value)
    return FAILED
