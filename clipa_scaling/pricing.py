"""What a sample costs on a study's settings: in FLOPs, or in GPU-hours of a device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipa_scaling.cost import DEVICES, find_speed, price
from clipa_scaling.models import load_model
from clipa_scaling.schema import TableError
from clipa_scaling.spec import nearest

MILLION = 1_000_000  # samples: hours are linear in them


@dataclass(frozen=True)
class Budget:
    """What may be spent: `amount` FLOPs, or GPU-hours at a price (NaN where none was given)."""

    amount: float
    unit: str  # FLOPs or GPU-hours
    dollars_per_gpu_hour: float = math.nan


@dataclass(frozen=True)
class Pricing:
    """The settings that a sample's cost depends on, but for model and lengths.

    utilisation: of the device's peak. source: where it is from, in words.
    """

    unit: str
    device: str
    utilisation: float
    source: str
    vocab_size: int
    ln_pre: bool
    learned_position: bool
    is_masked: bool
    precision: str
    grad_checkpointing: bool

    def per_sample(self, model: str, image_tokens: int, text_tokens: int, full: int) -> float:
        """FLOPs or GPU-hours of training on one more sample; both towers, not 6 N D.

        full: patches in the position table where masks drop some.
        """
        cost = price(
            load_model(model),
            image_tokens=image_tokens,
            position_tokens=max(full, image_tokens) if self.is_masked else image_tokens,
            text_tokens=text_tokens,
            vocab_size=self.vocab_size,
            samples=MILLION,
            micro_batch=1,
            batch_size=1,
            ln_pre=self.ln_pre,
            learned_position=self.learned_position,
            precision=self.precision,
            grad_checkpointing=self.grad_checkpointing,
            device=self.device,
            gpus=1,
            utilisation=self.utilisation,
        )
        return (cost.train_flops if self.unit == "FLOPs" else cost.gpu_hours) / MILLION


def read_pricing(
    runs: pd.DataFrame, unit: str, device: str | None = None, utilisation: float | None = None
) -> Pricing:
    """The settings of a study's runs from scratch. TableError for a device that is unknown.

    device: by default a100-80gb, or cpu-core where runs were priced on one. utilisation: by default
    what runs of measured speed amount to, else the device's assumption.
    """
    first = runs[runs["kind"].isin(["pretrain", "decay"])]
    row = first.iloc[0]
    device = device or ("cpu-core" if usual(first, "device") == "cpu" else "a100-80gb")
    if device not in DEVICES:
        raise TableError(f"device {device!r} is unknown; {nearest(device, DEVICES)}")
    flops = first["train_flops"].astype(float) + first["recompute_flops"].astype(float).fillna(0)
    precision = str(row["precision"])
    try:
        peak = find_speed(device, precision, 1.0)[0]
    except ValueError as error:
        raise TableError(str(error).removeprefix("price: ")) from None
    measured = first["priced_by"] == "measured"
    source = "given"
    if utilisation is None and measured.any():
        hours = first["gpu_hours"].astype(float)
        utilisation = float((flops / (3600 * hours * peak))[measured].median())
        source = f"measured in {int(measured.sum())} runs"
    elif utilisation is None:
        utilisation, source = DEVICES[device].utilisation, "assumed"
    if not 0 < utilisation <= 1:
        raise TableError(f"utilisation={utilisation:g} of {device}; allowed: above 0, at most 1")
    recomputed = (first["recompute_flops"] / first["train_flops"]).astype(float)
    return Pricing(
        unit=unit,
        device=device,
        utilisation=utilisation,
        source=source,
        vocab_size=int(row["vocab_size"]),
        ln_pre=bool(row["ln_pre"]),
        learned_position=row["image_position"] != "sincos",
        is_masked=bool((first["image_reduction"] != "resize").all()),
        precision=precision,
        grad_checkpointing=bool(np.nanmedian(recomputed) > 0.3),
    )


def usual(runs: pd.DataFrame, name: str) -> object:
    found = runs[name].dropna()
    return found.iloc[0] if len(found) else None
