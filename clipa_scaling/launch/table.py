"""Statuses for people and programs: a table, a line, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from clipa_scaling.launch.queue import Queue
from clipa_scaling.launch.status import RunStatus
from clipa_scaling.plan import Plan
from clipa_scaling.show import clock, coloured, count_states, hours
from clipa_scaling.spec import short_count

ORDER = (
    "failed", "diverged", "lost", "stalled", "unknown", "running", "requeued", "pending", "held",
    "stopped", "cancelled", "planned", "blocked", "done", "excluded",
)  # fmt: skip


def headline(plan: Plan, statuses: Sequence[RunStatus], queue: Queue, has_batches: bool) -> str:
    """How many are in which state, and how old the queue's part of it is."""
    states = [status.state for status in statuses] + ["excluded"] * len(plan.excluded)
    used = sum(status.gpu_hours for status in statuses)
    planned = sum(status.gpu_hours_planned for status in statuses)
    said = f"{plan.sweep.name}: {count_states(states)}; {hours(used)} of {hours(planned)} GPU-hours"
    if not has_batches:
        return said
    if not queue.time:
        return f"{said}; the queue was not asked yet{because(queue)}"
    return f"{said}; the queue as of {clock(queue.age)} ago{because(queue)}"


def because(queue: Queue) -> str:
    return f" (it does not answer: {queue.error})" if queue.error else ""


def status_table(title: str, statuses: Sequence[RunStatus], most: int) -> Table:
    """The runs that need a look first; at most `most` rows."""
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold", ratio=2)
    for name in ("state", "samples", "loss", "samples/s", "left", "try", "GPU-h", "planned"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold", ratio=2)
    ordered = sorted(statuses, key=lambda status: ORDER.index(status.state))
    for status in ordered[:most]:
        table.add_row(*cells(status))
    if len(ordered) > most:
        table.add_row(f"… {len(ordered) - most} more (--json has all)")
    return table


def cells(status: RunStatus) -> Sequence[str]:
    spec = status.planned.spec
    loss, rate = status.progress.get("loss"), status.progress.get("samples_per_second")
    return (
        status.planned.id,
        coloured(status.state),
        f"{status.samples / spec.samples:.0%}",
        "-" if loss is None else f"{loss:.3f}",
        "-" if not rate else short_count(round(rate)),
        "-" if left(status) is None else clock(left(status) or 0.0),
        str(status.attempt or "-"),
        hours(status.gpu_hours),
        hours(status.gpu_hours_planned),
        escape(status.reason),
    )


def left(status: RunStatus) -> float | None:
    """Seconds of training left at the last rate, of a run at work."""
    rate = status.progress.get("samples_per_second")
    if status.state != "running" or not rate:
        return None
    return float((status.planned.spec.samples - status.samples) / rate)


def status_json(
    plan: Plan, statuses: Sequence[RunStatus], queue: Queue, has_batches: bool
) -> dict[str, Any]:
    """All of it, for programs."""
    excluded = [
        {
            "stage": cell.stage,
            "state": "excluded",
            "reason": cell.reason,
            "asked": dict(cell.values),
        }
        for cell in plan.excluded
    ]
    return {
        "sweep": plan.sweep.name,
        "queue_age_seconds": queue.age if has_batches and queue.time else None,
        "queue_error": queue.error or None,
        "runs": [status_to_json(status) for status in statuses] + excluded,
    }


def status_to_json(status: RunStatus) -> Mapping[str, Any]:
    return {
        "run": status.planned.id,
        "stage": status.planned.spec.stage,
        "state": status.state,
        "reason": status.reason,
        "kind": status.failure.kind if status.failure else None,
        "samples": status.samples,
        "samples_planned": status.planned.spec.samples,
        "loss": status.progress.get("loss"),
        "samples_per_second": status.progress.get("samples_per_second"),
        "seconds_left": left(status),
        "attempt": status.attempt,
        "gpu_hours": status.gpu_hours,
        "gpu_hours_planned": status.gpu_hours_planned,
        "job": status.job or None,
        "log": status.log or None,
    }
