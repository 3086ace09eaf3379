"""The papers' numbers, from results/published, in this package's words and units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clipa_scaling.cost import DEVICES
from clipa_scaling.counts import count_model
from clipa_scaling.models import load_model
from clipa_scaling.schema import TableError

FOLDER = Path(__file__).resolve().parents[1] / "results" / "published"
# What the token embedding holds changes no FLOPs.
VOCABULARY = 49_408
# The papers' FLOPs are multiply-adds of one forward, two of this package's; their compute is such
# GFLOPs times samples, in 1e11 or 1e12. `h`: hours of an A100.
UNITS = {"1e12": 2e9 * 1e12, "1e11": 2e9 * 1e11, "G": 2e9}
NEAR = 0.01  # relative: what rounding inside the papers may do beside the last digit printed


def has_earlier(folder: Path = FOLDER) -> bool:
    """Whether this is a clone with its published tables."""
    return (folder / "earlier_models.csv").exists()


def load_earlier(folder: Path = FOLDER) -> pd.DataFrame:
    """Published CLIP models: `model`, `train_flops`, `a100_hours`, `imagenet1k`, `source`.

    train_flops is this package's, in closed form at the printed samples and sizes, over both
    stages: 3 x samples x one forward, two per multiply-add. Assumed where the papers print nothing:
    77 text tokens for OpenAI's and OpenCLIP's models; CLIPA's finetuning at 32; CLIPA-v2 L/14's
    mask in finetuning as H/14's. Left out: OpenCLIP's G/14, another architecture than Table 4's G;
    FLIP; CLIPA-G, whose printed compute is not that of its printed size. Hours are as printed.
    """
    path = folder / "earlier_models.csv"
    if not path.exists():
        raise TableError(f"{path}: no such table; it comes with a clone of the repository")
    stages = pd.read_csv(path)
    columns = ("architecture", "image_size", "text_tokens", "kept_share")
    forward = [
        forward_flops(*values)
        for values in zip(*(stages[name].tolist() for name in columns), strict=True)
    ]
    stages["train_flops"] = 3 * stages["samples"] * forward
    models = stages.groupby("model", sort=False)
    flops = models["train_flops"].sum()
    first = models[["a100_hours", "imagenet1k", "source"]].first()
    return first.assign(train_flops=flops).reset_index()


def forward_flops(architecture: str, image_size: int, text_tokens: int, kept_share: float) -> float:
    """One forward of both towers at a picture size, of whose patches a share is kept."""
    model = load_model(architecture)
    patches = (image_size // model.patch) ** 2
    kept = int(patches * kept_share)
    return count_model(model, kept, patches, text_tokens, VOCABULARY).flops_per_sample


@dataclass(frozen=True)
class PrintedRow:
    """A printed number, as printed, and one forward's FLOPs times samples, summed over stages."""

    where: str
    name: str
    unit: str
    printed: str
    forward: float
    why: str

    @property
    def ours(self) -> float:
        """In the printed unit."""
        return self.forward / UNITS[self.unit]

    @property
    def ratio(self) -> float:
        return self.ours / float(self.printed)

    @property
    def reproduces(self) -> bool:
        """To the last digit printed, or nearly."""
        digits = len(self.printed.partition(".")[2])
        last = abs(self.ours - float(self.printed)) <= 0.5 * 10**-digits
        return last or math.isclose(self.ratio, 1, abs_tol=NEAR)

    @property
    def share(self) -> float:
        """Of the A100's peak, three forwards counted, at the printed hours."""
        seconds = float(self.printed) * 3600
        return 3 * self.forward / (seconds * DEVICES["a100-80gb"].peak_flops)


def load_printed(folder: Path = FOLDER) -> list[PrintedRow]:
    """What the papers print of compute and hours: printed_compute.csv, in its order."""
    stages = pd.read_csv(folder / "printed_compute.csv", dtype={"printed": "string"}).fillna(
        {"why": ""}
    )
    columns = ("architecture", "image_size", "text_tokens", "kept_share")
    each = zip(*(stages[name].tolist() for name in columns), strict=True)
    stages["forward"] = stages["samples"] * [forward_flops(*values) for values in each]
    rows = []
    for (where, name), own in stages.groupby(["where", "row"], sort=False):
        first = own.iloc[0]
        flops = float(own["forward"].sum())
        rows.append(
            PrintedRow(
                str(where), str(name), first["unit"], str(first["printed"]), flops, first["why"]
            )
        )
    return rows
