"""How fast runs train: what that depends on, and the rates measured, kept beside the runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipa_scaling.rundir import read_json
from clipa_scaling.spec import RunSpec

# A field in which two runs may differ and be equally fast is left out: seed, samples, rates, data.
SPEED_FIELDS = (
    "model", "image_tokens", "image_size", "image_reduction", "image_position", "image_pool",
    "text_tokens", "text_reduction", "text_causal", "text_pad", "vocab_size", "objective",
    "classes", "batch_size", "gpus", "micro_batch", "precision", "grad_checkpointing", "compile",
    "grad_clip", "store_px", "crop_min_area", "color_jitter", "color_jitter_share",
    "grayscale_share",
)  # fmt: skip
# What torch calls the devices of cost.py, without NVIDIA's own name before it.
TORCH_NAMES: Mapping[str, str] = {
    "a100-40gb": r"A100-(SXM4|PCIE)-40GB",
    "a100-80gb": r"A100-SXM4-80GB|A100 80GB PCIe|A100-SXM-80GB",
    "h100-80gb": r"H100 80GB HBM3|H100 PCIe",
    "h200-141gb": r"H200( NVL)?",
    "v100-32gb": r"V100S?-(SXM[23]|PCIE|DGXS)-32GB(-LS)?",
    "l40s-48gb": r"L40S",
    "rtx4090-24gb": r"GeForce RTX 4090",
    "cpu-core": r"cpu",
}

STEADY = 0.03  # half the 95 % interval of the median rate, over that rate, at which timing ends
DRAWN, ON_DRAWN = "generated", "on drawn data"  # of a record's data; in words


@dataclass(frozen=True)
class Rate:
    """How fast one device kind trains runs of one speed.

    samples_per_second: of the whole run, the median over windows of steps. startup_seconds: from a
    process's start to its first step at that rate. cores: a process's threads on a CPU, of which
    each takes a core-hour an hour; 1 on a GPU. measured_on: torch's name of the device. steady:
    whether the median rate was known well enough before the minutes ran out. drawn: on data drawn
    in the run's shapes, as its own was not packed.
    """

    samples_per_second: float
    startup_seconds: float
    cores: int
    measured_on: str
    steady: bool = True
    drawn: bool = False

    @property
    def doubt(self) -> str:
        """Why it should be measured again, or nothing."""
        return " and ".join(["not steady"] * (not self.steady) + [ON_DRAWN] * self.drawn)

    def device_hours(self, samples: int, gpus: int) -> float:
        """GPU-hours of a run, core-hours on CPUs: start and steps, no evaluation."""
        seconds = self.startup_seconds + samples / self.samples_per_second
        return gpus * self.cores * seconds / 3600


def is_device(name: str, measured_on: str) -> bool:
    """Whether torch's name of a device is that of a device in cost.py."""
    return re.fullmatch(rf"(NVIDIA |Tesla )?({TORCH_NAMES[name]})", measured_on) is not None


def speed_key(spec: RunSpec, device: str) -> str:
    """16 hex digits that runs of one speed share on a device of cost.py."""
    fields = {name: getattr(spec, name) for name in SPEED_FIELDS}
    text = json.dumps({"device": device, **fields}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_calibration(runs: Path) -> Path:
    """Records are shared by the sweeps of one runs folder, so they lie beside the runs."""
    return runs / ".calibration"


def record_path(runs: Path, key: str) -> Path:
    return find_calibration(runs) / f"{key}.json"


def request_path(runs: Path, key: str) -> Path:
    """What is to be measured: a run of that speed, and for how long."""
    return find_calibration(runs) / f"{key}.request.json"


def failure_path(runs: Path, key: str) -> Path:
    """Why the last try to measure failed; gone once one succeeds."""
    return find_calibration(runs) / f"{key}.failed.json"


def load_rates(runs: Path, device: str) -> dict[str, Rate]:
    """By key, what was measured on this device; records made on another are not taken."""
    folder = find_calibration(runs)
    paths = folder.glob("*.json") if folder.is_dir() else ()
    found = {path.stem: read_json(path) for path in paths if re.fullmatch(r"\w{16}", path.stem)}
    return {
        key: rate_from_json(value)
        for key, value in found.items()
        if value is not None and is_device(device, value["measured_on"])
    }


def rate_from_json(value: Mapping[str, Any]) -> Rate:
    names = ("samples_per_second", "startup_seconds", "cores", "measured_on")
    steady = value.get("steady", value["half_width"] is not None and value["half_width"] < STEADY)
    return Rate(
        **{name: value[name] for name in names}, steady=steady, drawn=value["data"] == DRAWN
    )
