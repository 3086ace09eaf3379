"""Which failure it was, whether another try may help, and when a whole sweep should stop."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from clipa_scaling import rundir
from clipa_scaling.launch.batch import Ask, Batch, count_retries
from clipa_scaling.launch.queue import Ended
from clipa_scaling.resources import Slurm
from clipa_scaling.rundir import RunDir, RunState
from clipa_scaling.spec import RunSpec

SAME_ERRORS = 3  # runs that died alike, before any other ended, tell of a fault they all have
# What Slurm's word for a job's end says of its kind; FAILED is told by the run directory.
KINDS: Mapping[str, str] = {
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "OUT_OF_MEMORY": "oom_host",
    "PREEMPTED": "preempted",
    "REVOKED": "node",
}


@dataclass(frozen=True)
class Failure:
    """How a run's last job failed: its kind, what to say of it, its node, if the run began there.

    One that did not could make no progress: srun fails where the controller is away at its start.
    """

    kind: str
    reason: str
    node: str = ""
    begun: bool = True


def classify(ended: Ended, state: RunState) -> Failure:
    """The failure behind a job that ended and left its run unfinished.

    The run's own word counts first; then Slurm's; a job that failed without a word was killed.
    """
    if state.name == "failed":
        return Failure(state.kind or "error", state.reason, ended.nodes)
    if ended.state in KINDS:
        return Failure(KINDS[ended.state], f"Slurm says {ended.state}", ended.nodes)
    if state.name == "stopped":
        return Failure("killed", "stopped by a signal from outside", ended.nodes)
    return Failure("killed", f"its process died without a word ({ended.state})", ended.nodes)


def made_progress(run: RunDir) -> bool:
    """Whether the last attempt left a checkpoint beyond the one that it began with.

    Of an evaluation run, rows beyond those that it found.
    """
    checkpoint, last = run.last_checkpoint(), run.last_attempt()
    begun = [
        row
        for row in rundir.read_jsonl(run.events)
        if row["event"] in ("started", "resumed") and last and row["attempt"] == int(last.name)
    ]
    if begun and "evals" in begun[-1]:
        rows = (rundir.read_json(run.evals) or {"rows": []})["rows"]
        return len(rows) > int(begun[-1]["evals"])
    return bool(checkpoint and begun and int(checkpoint.name) > begun[-1]["samples"])


def count_events(run: RunDir, event: str, kind: str) -> int:
    """How often a run noted an event of this kind."""
    rows = rundir.read_jsonl(run.events)
    return sum(row["event"] == event and row.get("kind") == kind for row in rows)


def refuse_retry(
    run: RunDir, failure: Failure, batches: Sequence[Batch], slurm: Slurm
) -> str | None:
    """Why a failed run is not submitted again by itself, or None where it is."""
    kind, limit = failure.kind, slurm.retries.get(failure.kind, 0)
    tried = count_retries(batches, run.path.name, kind) + count_events(run, "requeued", kind)
    if tried >= limit:
        return f"retries.{kind}={limit} used up; raise it, or --retry failed"
    if kind == "oom_host" and slurm.mem_gb is None:
        return "slurm.mem_gb is not set, so there is none to raise"
    if kind == "oom_gpu" and (rundir.read_json(run.spec) or {}).get("grad_checkpointing"):
        return "grad_checkpointing is on already"
    if kind in ("oom_gpu", "oom_host"):  # what is changed makes the next attempt another one
        return None
    if failure.begun and not made_progress(run):
        return "its last attempt made no progress; once mended: --retry failed"
    return None


def change_ask(ask: Ask, kinds: Sequence[str], node: str) -> Ask:
    """What the next attempt asks for: memory doubled for each lack of it, not the failed node."""
    ask = replace(ask, mem_gb=ask.mem_gb * 2 ** kinds.count("oom_host"))
    if kinds and kinds[-1] == "node" and re.fullmatch(r"[\w.-]+", node):  # one node, no list
        ask = replace(ask, exclude=(node,))
    return ask


def change_spec(spec: RunSpec, kinds: Iterable[str]) -> RunSpec:
    """The spec after failures of these kinds: nothing that determines the weights may change."""
    if "oom_gpu" in kinds:
        return replace(spec, grad_checkpointing=True)
    return spec


def close_attempt(run: RunDir, kind: str, job: str) -> None:
    """Note that a job's attempt is over, once the job is known to be: it cannot say so itself.

    A claim from another host would else hold the run until its heartbeat is old.
    """
    last = run.last_attempt()
    if last is None or (rundir.read_json(last / "env.json") or {}).get("job") != job:
        return
    if not (last / "exit.json").exists():
        value = {"code": None, "time": time.time(), "kind": kind, "by": "launcher"}
        rundir.write_json(last / "exit.json", value)


def common_error(states: Iterable[RunState]) -> str | None:
    """The error that the first several runs to end all died of; None once one ended otherwise."""
    ended = [state for state in states if state.name in ("failed", "done")]
    if len(ended) < SAME_ERRORS or any(state.name == "done" for state in ended):
        return None
    reasons = Counter(normalise(state.reason) for state in ended)
    [(_, count)] = reasons.most_common(1)
    return ended[0].reason if count == len(ended) else None


def normalise(reason: str) -> str:
    """A reason without its run ids and numbers, in which equal errors differ."""
    return re.sub(r"\S+-s\d+-[0-9a-f]{10}|\d+", "#", reason)
