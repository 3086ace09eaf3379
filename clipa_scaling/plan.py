"""RunSpecs + disk -> what is done, what is left, what it costs."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipa_scaling import schema
from clipa_scaling.cost import DEVICES, Cost, at_measured_rate, price
from clipa_scaling.evaluation_cost import SetSizes, price_evaluation
from clipa_scaling.grid import Excluded, Planned
from clipa_scaling.models import load_model
from clipa_scaling.rundir import RunDir, RunState, read_state
from clipa_scaling.spec import RunSpec
from clipa_scaling.speed import Rate, load_rates, speed_key
from clipa_scaling.sweepfile import Sweep
from clipa_scaling.yamlfile import SweepError

PLANNED = RunState("planned")


@dataclass(frozen=True)
class PlanRow:
    """One run with its price and what its folder says."""

    planned: Planned
    cost: Cost
    state: RunState

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing more to do: a short run that diverged has told what it can."""
        return self.state.name == "done" or (
            self.state.name == "diverged" and bool(self.planned.trial)
        )


@dataclass(frozen=True)
class Plan:
    """Every run and excluded cell of a sweep, and what to know before it runs."""

    sweep: Sweep
    rows: tuple[PlanRow, ...]
    warnings: tuple[str, ...]

    @property
    def excluded(self) -> tuple[Excluded, ...]:
        return self.sweep.grid.excluded

    @property
    def left(self) -> list[PlanRow]:
        """The runs that are not over."""
        return [row for row in self.rows if not row.is_settled]

    def total(self, name: str, rows: Iterable[PlanRow] | None = None) -> float:
        """The sum of one cost over rows, by default all; NaN if one is unknown."""
        chosen = self.rows if rows is None else rows
        return math.fsum(getattr(row.cost, name) for row in chosen)

    @property
    def priced_by(self) -> Counter[str]:
        """How many runs each way of pricing priced."""
        return Counter(row.cost.priced_by for row in self.rows)


def make_plan(sweep: Sweep, runs: Path) -> Plan:
    """Price every run and look its folder up; reads the disk, changes nothing."""
    present = set(os.listdir(runs)) if runs.is_dir() else set()
    rates = load_rates(runs, sweep.resources.device)
    states: dict[str, RunState] = {}
    sizes = SetSizes(sweep.packs)
    rows = []
    for planned in sweep.grid.runs:
        state = read_state(RunDir(runs / planned.id)) if planned.id in present else PLANNED
        parent = planned.spec.parent
        if parent and parent not in states:  # one that is evaluated alone
            states[parent] = read_state(RunDir(runs / parent))
        if planned.waits:
            reason = f"waits for tuning of {', '.join(planned.waits)}"
            state = RunState("blocked", reason=reason)
        elif state.name == "planned" and parent and states[parent].name != "done":
            state = RunState("blocked", reason=f"waits for {parent}")
        states[planned.id] = state
        cost = price_run(planned.spec, sweep, rates)
        if planned.spec.kind == "evaluate":
            cost = price_evaluation(planned.spec, cost, sizes)
        rows.append(PlanRow(planned, cost, state))
    return Plan(sweep, tuple(rows), tuple(find_warnings(sweep, rows)))


def price_run(spec: RunSpec, sweep: Sweep, rates: Mapping[str, Rate] | None = None) -> Cost:
    """The closed-form cost of a run on the sweep's device, its hours by a measured rate if any.

    rates: by speed key. SweepError where the run cannot be priced.
    """
    resources = sweep.resources
    try:
        cost = price(
            load_model(spec.model),
            image_tokens=spec.image_tokens,
            position_tokens=spec.position_tokens,
            text_tokens=spec.text_tokens,
            vocab_size=spec.vocab_size,
            samples=spec.trained_samples,
            micro_batch=spec.micro_batch,
            batch_size=spec.batch_size,
            ln_pre=spec.ln_pre,
            learned_position=spec.image_position == "learned",
            logit_bias=spec.objective == "siglip",
            texts_per_sample=spec.texts_per_sample,
            precision=spec.precision,
            grad_checkpointing=spec.grad_checkpointing,
            device=resources.device,
            gpus=spec.gpus,
            utilisation=resources.utilisation,
            dollars_per_gpu_hour=resources.dollars_per_gpu_hour,
        )
    except ValueError as error:
        said = str(error).removeprefix("price: ")
        raise SweepError(f"{sweep.path}: resources: {said}") from None
    rate = rates.get(speed_key(spec, resources.device)) if rates else None
    if rate is None or spec.kind == "evaluate":  # which takes no such steps
        return cost
    hours = rate.device_hours(spec.trained_samples, spec.gpus)
    return at_measured_rate(cost, hours, resources.dollars_per_gpu_hour, rate.cores, rate.doubt)


def find_warnings(sweep: Sweep, rows: list[PlanRow]) -> list[str]:
    """What does not stop a launch and yet can spoil a study."""
    warnings = [f"data missing: {sweep.missing}"] if sweep.missing else []
    warnings += sweep.grid.warnings
    warnings += [f"{sweep.path}: resources.gpu is not set; priced on {sweep.resources.device}"] * (
        not sweep.resources.is_chosen
    )
    asked = {(row.planned.asked.get("samples"), row.planned.spec.samples) for row in rows}
    whole = sorted(pair for pair in asked if isinstance(pair[0], int) and pair[0] != pair[1])
    warnings += [f"samples={old:,} is rounded up to {new:,}, whole steps" for old, new in whole]
    longest = max((row.planned.spec.image_tokens for row in rows), default=0)
    for cell in sweep.grid.excluded:
        tokens = cell.values.get("image_tokens")
        if isinstance(tokens, int) and tokens >= longest:
            model = cell.values.get("model")
            warnings.append(
                f"{model} at image_tokens={tokens} is excluded: the cell others are compared with"
            )
    device = DEVICES[sweep.resources.device]
    large = [row for row in rows if row.cost.memory_bytes > device.memory_bytes]
    if large:
        worst = max(large, key=lambda row: row.cost.memory_bytes)
        warnings.append(
            f"{len(large)} runs may not fit {device.name}: {worst.planned.id} needs about "
            f"{worst.cost.memory_bytes / 1e9:.0f} GB a device; raise gpus or set grad_checkpointing"
        )
    small = {
        (row.planned.spec.store_px, row.planned.spec.image_size)
        for row in rows
        if row.planned.spec.store_px
        < math.floor(row.planned.spec.image_size / math.sqrt(row.planned.spec.crop_min_area))
    }
    if small:
        store_px, image_size = max(small, key=lambda pair: pair[1])
        warnings.append(
            f"store_px={store_px} is small for image_size={image_size}: some crops are enlarged"
        )
    full = {(row.planned.spec.store_px, row.planned.spec.full_px) for row in rows
            if "full" in row.planned.spec.measured_sizes}  # fmt: skip
    warnings += [
        f"full_px={full_px} is above store_px={store_px}: evaluation at full size enlarges pictures"
        for store_px, full_px in sorted(full)
        if full_px > store_px
    ]
    return warnings


def over_budget(plan: Plan) -> str | None:
    """Why the runs that are left may not be launched, with the numbers; None within the budget."""
    budget = plan.sweep.budget
    for name, limit in (("gpu_hours", budget.gpu_hours), ("dollars", budget.dollars)):
        # What shards hold is unknown until they are packed; their evaluation is no training.
        known = [row for row in plan.left if not is_unpacked_evaluation(row)]
        needed = plan.total(name, known)
        if math.isnan(needed) and limit < math.inf:
            return (
                f"{plan.sweep.path}: budget: what the runs left need is unknown, since "
                "data.labelled has no classes; add them, or take budget out"
            )
        if needed > limit:
            return (
                f"{plan.sweep.path}: budget: the runs left, {len(plan.left)}, need {needed:.4g} "
                f"{name}, allowed: {limit:.4g}; raise budget.{name}, or plan fewer or smaller runs"
            )
    return None


def is_unpacked_evaluation(row: PlanRow) -> bool:
    return row.planned.spec.kind == "evaluate" and math.isnan(row.cost.gpu_hours)


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Every cell with spec, cost and state, excluded ones with their reason, and the totals."""
    cells = [
        {
            "run": row.planned.id,
            "state": row.state.name,
            "reason": row.state.reason,
            "samples_done": row.state.samples,
            "asked": dict(row.planned.asked),
            "spec": {
                name: None if name in row.planned.unknown else getattr(row.planned.spec, name)
                for name in ("stage", *schema.SPEC, "tuned")
            },
            "cost": {name: finite(value) for name, value in asdict(row.cost).items()},
        }
        for row in plan.rows
    ]
    excluded = [
        {"stage": cell.stage, "asked": dict(cell.values), "reason": cell.reason}
        for cell in plan.excluded
    ]
    names = ("train_flops", "gpu_hours", "dollars")
    return {
        "sweep": plan.sweep.name,
        "device": plan.sweep.resources.device,
        "priced_by": dict(plan.priced_by),
        "cells": cells,
        "excluded": excluded,
        "totals": {name: finite(plan.total(name)) for name in names},
        "left": {name: finite(plan.total(name, plan.left)) for name in names},
        "warnings": list(plan.warnings),
    }


def finite(value: Any) -> Any:
    """The value, an unknown number as null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
