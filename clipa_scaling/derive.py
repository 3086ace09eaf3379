"""Values of a cell that follow from its parent's or from a budget of FLOPs."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from clipa_scaling.counts import count_model
from clipa_scaling.models import load_model
from clipa_scaling.resolve import resolve
from clipa_scaling.spec import LARGEST, RunSpec, SpecError
from clipa_scaling.stage import Cell


def make_relative(cell: Cell, parent: RunSpec) -> None:
    """`{parent: 0.5}` becomes a number, rounded to what the field can be."""
    for name, value in cell.values.items():
        if not (isinstance(value, dict) and "parent" in value):
            continue
        whole = getattr(parent, name)
        exact = min(value["parent"] * whole, float(LARGEST))
        # No samples stay none: 0 can mean "at the end only".
        least = min(1, whole)
        cell.values[name] = max(least, round(exact)) if isinstance(whole, int) else exact
        if name == "image_tokens" and cell.values.get("image_reduction", "resize") == "resize":
            side = isqrt(int(exact))
            squares = [max(1, side) ** 2, (side + 1) ** 2]
            cell.values[name] = min(squares, key=lambda square: abs(square - exact))


def equal_compute(values: Mapping[str, Any]) -> int:
    """The samples that spend a budget of training FLOPs at this cell's model and lengths."""
    shortest = {"samples": values.get("batch_size", 1), "warmup_samples": 0}
    probe = resolve({**values, **shortest, "schedule": "cosine", "decay_samples": 0})
    flops = flops_per_sample(probe)
    if not flops > 0:
        message = "samples by train_flops need the number of classes; set data.labelled.classes"
        raise SpecError("samples", message)
    budget: float = values["samples"]["train_flops"]
    return max(1, round(budget / (3 * flops)))


def flops_per_sample(spec: RunSpec) -> float:
    """One forward of both towers of a run; NaN where it is unknown how many classes it learns."""
    counts = count_model(
        load_model(spec.model),
        spec.image_tokens,
        spec.position_tokens,
        spec.text_tokens,
        spec.vocab_size,
        texts_per_sample=spec.texts_per_sample,
    )
    return counts.flops_per_sample
