"""What runs are priced on and what they ask of Slurm: a sweep file's resources, budget, slurm.

python -m clipa_scaling.resources lists the keys of the slurm block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from clipa_scaling.cost import DEVICES
from clipa_scaling.spec import nearest
from clipa_scaling.yamlfile import Document, Where

# How often a run is submitted again after each kind of failure, unless the file says otherwise.
# Assumed: what the cluster does to a run it may do often; what the run does to itself, once.
RETRIES: Mapping[str, int] = {
    "preempted": 100,
    "timeout": 100,
    "node": 10,
    "killed": 3,
    "nccl": 3,
    "dist": 3,
    "oom_gpu": 1,
    "oom_host": 1,
    "error": 1,
}


@dataclass(frozen=True)
class Resources:
    """What a run is priced on; utilisation, price and hours as given, else None."""

    device: str = "a100-80gb"
    utilisation: float | None = None
    dollars_per_gpu_hour: float | None = None
    is_chosen: bool = False
    hours: float | None = None


@dataclass(frozen=True)
class Budget:
    """Above either number nothing is launched; infinite where not given."""

    gpu_hours: float = math.inf
    dollars: float = math.inf


@dataclass(frozen=True)
class Slurm:
    """What jobs ask for; None leaves a choice to the cluster.

    mem_gb: per node. max_parallel: tasks of the sweep at work at once. max_submit: tasks of the
    sweep in the queue at once. safety: hours asked for per hour estimated. signal_seconds: the
    warning before the time limit. pack_partition: for packing, which needs no GPU.
    """

    partition: str | None = None
    pack_partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gpus_per_node: int = 8
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    max_parallel: int | None = None
    max_submit: int | None = None
    safety: float = 2.0
    signal_seconds: int = 120
    pack_tasks: int = 8
    pack_hours: float = 4.0
    retries: Mapping[str, int] = field(default_factory=lambda: dict(RETRIES))
    sbatch: Mapping[str, str | bool] = field(default_factory=dict)
    setup: tuple[str, ...] = ()


WORDS = ("partition", "pack_partition", "account", "qos", "constraint", "exclude")
COUNTS = (
    "gpus_per_node",
    "cpus_per_task",
    "max_parallel",
    "max_submit",
    "signal_seconds",
    "pack_tasks",
)
NUMBERS = ("mem_gb", "safety", "pack_hours")
SLURM_KEYS = (*WORDS, *COUNTS, *NUMBERS, "retries", "sbatch", "setup")
# Written by the launcher itself: another value would part a job from what is recorded of it.
OURS = (
    "array", "job-name", "comment", "hold", "requeue", "no-requeue", "output", "error", "signal",
    "dependency", "time", "nodes", "ntasks", "ntasks-per-node", "chdir", "open-mode", "parsable",
    "wait", "test-only", "mem",
)  # fmt: skip


def read_resources(document: Document) -> tuple[Resources, Budget]:
    """The device and price a plan assumes, and the limits it must keep."""
    keys = ("gpu", "utilisation", "hours")
    body = document.check_keys(("resources",), document.values.get("resources", {}), keys)
    device = document.check_scalar(("resources", "gpu"), body.get("gpu", "a100-80gb"), str)
    if device not in DEVICES:
        message = f"unknown device {device!r}; {nearest(str(device), DEVICES)}"
        raise document.error(("resources", "gpu"), message)
    hours = None
    if body.get("hours", "auto") != "auto":
        hours = read_positive(document, ("resources", "hours"), body)
    utilisation = read_positive(document, ("resources", "utilisation"), body)
    keys = ("gpu_hours", "dollars", "dollars_per_gpu_hour")
    limits = document.check_keys(("budget",), document.values.get("budget", {}), keys)
    price = read_positive(document, ("budget", "dollars_per_gpu_hour"), limits)
    gpu_hours = read_positive(document, ("budget", "gpu_hours"), limits)
    dollars = read_positive(document, ("budget", "dollars"), limits)
    if dollars is not None and price is None:
        message = "needs dollars_per_gpu_hour beside it; add the price"
        raise document.error(("budget", "dollars"), message)
    budget = Budget(
        gpu_hours=math.inf if gpu_hours is None else gpu_hours,
        dollars=math.inf if dollars is None else dollars,
    )
    return Resources(device, utilisation, price, "gpu" in body, hours), budget


def read_slurm(document: Document) -> Slurm:
    """The `slurm` block; SweepError with the line of a key that is wrong."""
    where = ("slurm",)
    body = document.check_keys(where, document.values.get("slurm", {}), SLURM_KEYS)
    chosen: dict[str, Any] = {}
    for name in WORDS:
        if name in body:
            chosen[name] = document.check_scalar((*where, name), body[name], str)
    for name in COUNTS:
        if name in body:
            chosen[name] = document.check_scalar((*where, name), body[name], int)
            if chosen[name] < 1:
                raise document.error((*where, name), f"{chosen[name]}; allowed: 1 or more")
    for name in NUMBERS:
        if name in body:
            chosen[name] = read_positive(document, (*where, name), body)
    if "retries" in body:
        chosen["retries"] = dict(RETRIES) | read_retries(document, body["retries"])
    if "sbatch" in body:
        chosen["sbatch"] = read_sbatch(document, body["sbatch"])
    if "setup" in body:
        lines = document.check_list((*where, "setup"), body["setup"])
        chosen["setup"] = tuple(
            document.check_scalar((*where, "setup", index), line, str)
            for index, line in enumerate(lines)
        )
    return Slurm(**chosen)


def read_retries(document: Document, body: Any) -> dict[str, int]:
    """How often after each kind of failure; 0 is never."""
    where = ("slurm", "retries")
    limits = {
        kind: document.check_scalar((*where, kind), count, int)
        for kind, count in document.check_keys(where, body, RETRIES).items()
    }
    for kind, count in limits.items():
        if count < 0:
            raise document.error((*where, kind), f"{count}; allowed: 0 or more")
    return limits


def read_sbatch(document: Document, body: Any) -> dict[str, str | bool]:
    """Further options of sbatch, `exclusive: true` for one without a value."""
    where = ("slurm", "sbatch")
    options: dict[str, str | bool] = {}
    for key, value in document.check_mapping(where, body).items():
        name = str(key).removeprefix("--").replace("_", "-")
        if name in OURS:
            raise document.error((*where, key), "is the launcher's own; remove it")
        if len(name) < 2:
            raise document.error((*where, key), "is a short option; write its long name")
        if name in WORDS:
            raise document.error((*where, key), f"has its own key; write slurm.{name}")
        if value is not True and not isinstance(value, str | int | float):
            raise document.error((*where, key), f"got {value!r}; allowed: a word, a number, true")
        options[name] = value if value is True else str(value)
    return options


def read_positive(document: Document, where: Where, body: Mapping[str, Any]) -> float | None:
    """A positive number, or None where the key is absent."""
    if str(where[-1]) not in body:
        return None
    value: float = document.check_scalar(where, body[str(where[-1])], float)
    if not 0 < value < math.inf:
        raise document.error(where, f"{value} is not positive and finite; allowed: above 0")
    return value


MEANINGS: Mapping[str, str] = {
    "partition": "of runs",
    "pack_partition": "of packing, which needs no GPU",
    "account": "whom it is charged to",
    "qos": "quality of service",
    "constraint": "features of nodes",
    "exclude": "nodes to keep away from",
    "gpus_per_node": "how many a node has; a run of more takes whole nodes",
    "cpus_per_task": "cores of each task, one task per GPU",
    "mem_gb": "memory of a node",
    "max_parallel": "tasks of the sweep at work at once",
    "max_submit": "tasks of the sweep in the queue at once",
    "safety": "hours asked for per hour estimated, where resources.hours is auto",
    "signal_seconds": "the warning before the time limit, to save and requeue",
    "pack_tasks": "jobs that share the packing",
    "pack_hours": "time limit of each",
    "retries": "submissions again, by kind of failure",
    "sbatch": "further options of sbatch, e.g. {exclusive: true}",
    "setup": "shell lines before each task",
}


def list_keys() -> str:
    """The keys of the slurm block, a line each: name, default, meaning."""
    lines = []
    for item in fields(Slurm):
        default = getattr(Slurm(), item.name)
        unset = "no limit" if item.name.startswith("max_") else "the cluster's"
        said = unset if default is None else default or "none"
        if item.name == "retries":
            said = ""
            continued = [f"  {kind:<24}{count}" for kind, count in RETRIES.items()]
        else:
            continued = []
        lines += [f"{item.name:<26}{said!s:<15}{MEANINGS[item.name]}", *continued]
    return "\n".join(lines)


if __name__ == "__main__":
    print(list_keys())
