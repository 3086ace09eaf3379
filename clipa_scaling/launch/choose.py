"""Which runs to submit now: those left, those whose parent is done, those worth another try."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from clipa_scaling.evaluation_cost import SetSizes, evaluation_hours
from clipa_scaling.grid import Planned
from clipa_scaling.launch.batch import Ask, Batch
from clipa_scaling.launch.commands import Limits
from clipa_scaling.launch.retry import Failure, change_ask, change_spec, close_attempt, refuse_retry
from clipa_scaling.launch.slurm import ask_for
from clipa_scaling.launch.status import RunStatus
from clipa_scaling.launch.submit import Wanted
from clipa_scaling.plan import Plan, PlanRow
from clipa_scaling.rundir import RunDir

FRESH = ("planned", "stopped")
GONE = ("cancelled", "lost")  # a launch by hand takes them up again, --follow by itself does not
SETTLED = ("failed", "diverged")


def matches(planned: Planned, patterns: Sequence[str]) -> bool:
    """Whether a run's id fits one of the patterns, or a field one `field=value`; all of them fit
    where there are none."""
    return not patterns or any(matches_one(planned, pattern) for pattern in patterns)


def matches_one(planned: Planned, pattern: str) -> bool:
    name, equals, value = pattern.partition("=")
    if not equals:
        return fnmatchcase(planned.id, pattern)
    return str(getattr(planned.spec, name, None)) == value


def choose_runs(
    plan: Plan,
    statuses: Sequence[RunStatus],
    runs: Path,
    batches: Sequence[Batch],
    limits: Limits,
    *,
    by_hand: bool,
    retry: bool,
    wants: Callable[[Planned], bool],
) -> list[Wanted]:
    """The runs to submit, the longest first."""
    wanted, sizes = [], SetSizes(plan.sweep.packs)
    rows = sorted(zip(plan.rows, statuses, strict=True), key=lambda pair: -pair[0].cost.train_flops)
    for row, status in rows:
        if not wants(row.planned) or status.is_alive or row.is_settled:
            continue
        run = RunDir(runs / row.planned.id)
        more = evaluation_hours(row.planned.spec, row.cost, sizes)
        ask = ask_for(row, plan.sweep.resources, plan.sweep.slurm, limits.minutes, more)
        fresh = status.state in FRESH or (by_hand and status.state in GONE)
        asked = retry and status.state in SETTLED
        again = asked or (
            status.failure is not None
            and refuse_retry(run, status.failure, batches, plan.sweep.slurm) is None
        )
        if not (fresh or again):
            continue
        wanted.append(want(row, ask, batches, status.failure if again else None, asked))
        if again or status.state in GONE:
            kind = status.failure.kind if status.failure else status.state
            close_attempt(run, kind, status.job)
    return wanted


def want(
    row: PlanRow, ask: Ask, batches: Sequence[Batch], failure: Failure | None, asked: bool
) -> Wanted:
    """A run as its next attempt should be after its failures; asked for, it counts as no retry."""
    run = row.planned.id
    kinds = [batch.why[run] for batch in batches if batch.state != "void" and run in batch.why]
    kinds += [failure.kind] if failure else []
    return Wanted(
        run=run,
        spec=change_spec(row.planned.spec, kinds),
        ask=change_ask(ask, kinds, failure.node if failure else ""),
        why=failure.kind if failure and not asked else "",
    )
