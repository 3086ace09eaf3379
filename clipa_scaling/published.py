"""The papers' numbers, from results/published, in this package's words and units."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from clipa_scaling.counts import count_model
from clipa_scaling.models import load_model
from clipa_scaling.schema import TableError

FOLDER = Path(__file__).resolve().parents[1] / "results" / "published"
# What the token embedding holds changes no FLOPs.
VOCABULARY = 49_408


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
