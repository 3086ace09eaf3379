"""Tables for the terminal: the plan, the runs at work, the outcome."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clipa_scaling.grid import Planned
from clipa_scaling.plan import Plan, PlanRow
from clipa_scaling.rundir import RunState
from clipa_scaling.spec import RunSpec, short_count

MOST_ROWS = 40  # a plan longer than a screen or two is read by a program: --json
COLOURS = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "diverged": "red",
    "lost": "yellow",
    "stopped": "yellow",
    "excluded": "dim",
}


def coloured(state: str) -> str:
    colour = COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else state


def si(value: float, unit: str = "") -> str:
    """Three digits and a prefix: 12.6 G; a dash for what is unknown."""
    if not math.isfinite(value):
        return "-"
    for prefix, size in (
        ("Z", 1e21),
        ("E", 1e18),
        ("P", 1e15),
        ("T", 1e12),
        ("G", 1e9),
        ("M", 1e6),
        ("k", 1e3),
    ):
        if abs(value) >= 0.9995 * size:  # what three digits would round to the prefix
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def hours(value: float) -> str:
    """Hours in three digits, thousands apart."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def dollars(value: float) -> str:
    return f"${value:,.0f}" if math.isfinite(value) and value >= 100 else (
        f"${value:.2f}" if math.isfinite(value) else "-"
    )  # fmt: skip


def plan_table(plan: Plan) -> Table:
    """Every cell up to MOST_ROWS: size, price and state; then totals."""
    # No lines between columns, so that 80 characters are enough.
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(f"{plan.sweep.name}: {len(plan.rows)} runs", overflow="fold", min_width=18)
    headings = (
        "\nparams",
        "FLOPs/\nsample",
        "train\nFLOPs",
        "\nmemory",
        "GPU-\nhours",
        "\ndollars",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("\nstate", no_wrap=True)
    for row in plan.rows[:MOST_ROWS]:
        table.add_row(*plan_cells(row))
    if len(plan.rows) > MOST_ROWS:
        table.add_row(f"… {len(plan.rows) - MOST_ROWS} more (--json has every cell)")
    table.add_section()
    for name, rows in (("total", list(plan.rows)), ("left to do", plan.left)):
        table.add_row(
            f"{name}: {len(rows)} runs",
            "",
            "",
            si(plan.total("train_flops", rows)),
            "",
            hours(plan.total("gpu_hours", rows)),
            dollars(plan.total("dollars", rows)),
            "",
        )
    return table


def plan_cells(row: PlanRow) -> Sequence[str]:
    cost, state = row.cost, row.state
    name = state.name
    if name not in ("done", "planned", "blocked") and row.planned.spec.samples:
        name = f"{name} {state.samples / row.planned.spec.samples:.0%}"
    return (
        f"{row.planned.id}{tried_value(row.planned)}",
        si(cost.total_params),
        si(cost.flops_per_sample),
        si(cost.train_flops),
        si(cost.memory_bytes, "B"),
        hours(cost.gpu_hours),
        dollars(cost.dollars),
        coloured(state.name).replace(state.name, name),
    )


def tried_value(planned: Planned) -> str:
    """Which value of which field a short run tries, in brackets; empty for other runs."""
    if not planned.trial or planned.trial in planned.unknown:
        return ""
    value = getattr(planned.spec, planned.trial)
    return f" ({planned.spec.stage}: {planned.trial}={value:g})"


def print_plan(console: Console, plan: Plan) -> None:
    """The table, the excluded cells with their reason, what was assumed, and warnings."""
    console.print(plan_table(plan))
    shown = plan.excluded[:MOST_ROWS]
    for cell in shown:
        values = ", ".join(f"{name}={value}" for name, value in cell.values.items())
        console.print(f"excluded ({cell.stage}): {escape(values)}: {escape(cell.reason)}")
    if len(plan.excluded) > len(shown):
        console.print(f"… {len(plan.excluded) - len(shown)} more excluded cells (--json)")
    if plan.rows:
        console.print(say_pricing(plan))
        kept = sum(row.cost.checkpoint_bytes // 3 for row in plan.rows)
        trunks = sum(
            len(row.planned.spec.keep_samples) * row.cost.checkpoint_bytes for row in plan.rows
        )
        branches = f"; states that decay stages branch off from: {si(trunks, 'B')}"
        console.print(
            f"Checkpoints kept at the end (weights): {si(kept, 'B')}{branches if trunks else ''}."
        )
    for warning in plan.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")


def say_pricing(plan: Plan) -> str:
    """What the GPU-hours rest on: measured rates, and for runs without one a utilisation."""
    counts, device = plan.priced_by, plan.sweep.resources.device
    measured, rest = counts["measured"], [r for r in plan.rows if r.cost.priced_by != "measured"]
    doubts = Counter(row.cost.doubt for row in plan.rows if row.cost.doubt)
    doubted = "".join(f"; {count} {doubt}" for doubt, count in sorted(doubts.items()))
    parts = [f"by measured rates ({measured} of {len(plan.rows)} runs{doubted})"] * (measured > 0)
    if rest:
        cost = rest[0].cost
        kind = cost.priced_by.partition(" ")[0]
        parts.append(f"at {cost.utilisation:.0%} utilisation ({kind})")
    started = "training and its start" if measured else "training"
    return (
        f"GPU-hours on {device} {', the others '.join(parts)}; {started} only, evaluation not "
        "counted."
    )


def count_states(states: Iterable[str]) -> str:
    """`9 done, 3 planned`."""
    counts = Counter(states)
    return ", ".join(f"{count} {state}" for state, count in counts.most_common())


def live_table(title: str, rows: Sequence[tuple[str, RunSpec, RunState]], most: int) -> Table:
    """The runs at work, then what waits, then what is over; at most `most` rows."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="ellipsis", no_wrap=True, ratio=1)
    for name in ("state", "samples", "loss", "samples/s", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    rank = {"running": 0, "failed": 1, "diverged": 1, "planned": 3, "done": 4}
    ordered = sorted(rows, key=lambda row: rank.get(row[2].name, 2))
    for identity, spec, state in ordered[:most]:
        table.add_row(identity, *live_cells(spec, state))
    if len(ordered) > most:
        table.add_row(f"… {len(ordered) - most} more", "", "", "", "", "")
    return table


def live_cells(spec: RunSpec, state: RunState) -> Sequence[str]:
    """State, share of samples, loss, rate and time left, a dash for what is not known yet."""
    progress = state.progress or {}
    loss, rate = progress.get("loss"), progress.get("samples_per_second")
    left = "-"
    if state.name == "running" and rate:
        left = clock((spec.samples - state.samples) / rate)
    return (
        coloured(state.name),
        f"{state.samples / spec.samples:.0%}",
        "-" if loss is None else f"{loss:.3f}",
        "-" if not rate else short_count(round(rate)),
        left,
    )


def clock(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def plain_line(title: str, rows: Sequence[tuple[str, RunSpec, RunState]]) -> str:
    """One line of progress, for logs and pipes."""
    total = sum(spec.samples for _, spec, _ in rows)
    seen = sum(state.samples for _, _, state in rows)
    stamp = time.strftime("%H:%M:%S")
    return (
        f"{stamp} {title}: {seen / total:.1%} of samples; {count_states(s.name for *_, s in rows)}"
    )
