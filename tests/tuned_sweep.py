"""A study that tunes a field, and the folders that its runs would leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from small_sweep import write_small

from clipa_scaling.grid import Planned
from clipa_scaling.plan import Plan, make_plan
from clipa_scaling.rundir import write_json
from clipa_scaling.sweepfile import load_sweep

HEAD = """\
name: tuned
data:
  train: scenes
  pairs: 1_000
  store_px: 16
  evals:
    scenes: {path: scenes, task: classify, pairs: 200, seed: 1, prompts: ["a large {}"]}
    held_out: {path: scenes, task: retrieve, pairs: 150, seed: 2}
fixed: {model: T32/8, samples: 1_024, batch_size: 64, warmup_samples: 256, text_tokens: 8}
axes: {image_tokens: [1, 4]}
resources: {gpu: cpu-core}
"""
TUNE = "tune: {{lr: {{over: [1e-3, 2e-3, 4e-3], at_samples: 250, per: [image_tokens]{more}}}}}\n"
Loss = Callable[[Planned], float]


def tuned_text(more: str = "", rest: str = "") -> str:
    return HEAD + TUNE.format(more=f", {more}" if more else "") + rest


def load(folder: Path, text: str) -> Plan:
    return make_plan(load_sweep(write_small(folder, text), folder / "runs/.packs"), folder / "runs")


def of(plan: Plan, stage: str) -> list[Planned]:
    return [row.planned for row in plan.rows if row.planned.spec.stage == stage]


def rates(plan: Plan, stage: str) -> list[tuple[int, float]]:
    return [(run.spec.image_tokens, run.spec.lr) for run in of(plan, stage)]


def end_run(runs: Path, run: Planned, value: float, measure: str = "loss") -> None:
    """Leave what a run leaves that ends with a value of a measure; infinity: it diverged."""
    folder = runs / run.id
    folder.mkdir(parents=True)
    if math.isinf(value):
        state = {"state": "diverged", "samples": 64, "reason": "spiked", "attempt": 1}
        return write_json(folder / "state.json", state)
    [item] = [item for item in run.spec.evals if (item.task == "retrieve") == (measure == "loss")]
    row = {"samples": run.spec.samples, "set": item.name, "fingerprint": item.benchmark}
    row |= {"protocol": "common", "name": measure, "value": value, "n": 150}
    write_json(folder / "evals.json", {"rows": [row]})
    write_json(folder / "done.json", {"samples": run.spec.samples, "attempt": 1, "loss": 1.0})


def end_all(folder: Path, text: str, stage: str, loss: Loss, measure: str = "loss") -> Plan:
    """End the runs of a stage that are not over; the plan after."""
    for run in of(load(folder, text), stage):
        if not (folder / "runs" / run.id).exists() and not run.waits:
            end_run(folder / "runs", run, loss(run), measure)
    return load(folder, text)


def bowl(lowest: float, curvature: float = 0.1) -> Loss:
    return lambda run: 3 + curvature * math.log(run.spec.lr / lowest) ** 2
