"""How much of a budget goes to finetuning, where a study varied it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from clipa_scaling.cells import main_measure
from clipa_scaling.compared import choose_evals, find_starts
from clipa_scaling.multiplier import Floats
from clipa_scaling.resample import logits

LEAST_LEVELS = 3  # of finetune samples after one and the same pretrain


@dataclass(frozen=True)
class Split:
    """The finetune stage: its samples F and lengths, and how the error falls with F.

    log odds of the error fall by slope log(F / samples); draws: slopes of bootstrapped pretrains.
    because: why the slope is not identified, empty where it is. stage: empty without finetunes.
    """

    stage: str = ""
    samples: int = 0
    image_tokens: int = 0
    text_tokens: int = 0
    slope: float = 0.0
    draws: Floats = field(default_factory=lambda: np.zeros(1))
    low: int = 0  # the fewest and the most F that were tried
    high: int = 0
    because: str = "the study has no finetunes"

    def gain(self, samples: Floats, slope: Floats) -> Floats:
        """What is taken off the log odds of the error at F samples, 0 at the study's own."""
        return slope * np.log(np.maximum(samples, 1) / max(self.samples, 1))


def find_split(
    tables: dict[str, pd.DataFrame], measure: str | None = None, draws: int = 200
) -> Split:
    """The last finetunes of a study; "not identified" where F has too few levels."""
    runs = tables["runs"]
    done = runs[(runs["state"] == "done") & runs["left_out"].isna()]
    parents = set(runs.loc[runs["kind"] == "finetune", "parent"].dropna())
    tuned = done[(done["kind"] == "finetune") & ~done["run"].isin(parents)]
    if tuned.empty:
        return Split()
    stage = str(tuned["stage"].value_counts().index[0])
    tuned = tuned[tuned["stage"] == stage].drop_duplicates("run")
    measure = measure or main_measure(tables)
    joined = tuned.merge(choose_evals(tables["evals"], tuned, measure, None), on=["run", "samples"])
    counts = joined["samples"].astype(int)
    start = pd.Series([each for each, _ in find_starts(runs, joined["run"])], index=joined.index)
    levels = counts.groupby(start).nunique()
    split = Split(
        stage,
        int(counts.mode().iloc[0]),
        int(joined["image_tokens"].mode().iloc[0]),
        int(joined["text_tokens"].mode().iloc[0]),
        low=int(counts.min()),
        high=int(counts.max()),
        because=f"{stage} has {int(levels.max())} sample counts after one pretrain; needed: "
        f"{LEAST_LEVELS}",
    )
    able = levels.index[levels >= LEAST_LEVELS]
    if len(able) == 0:
        return split
    rows = pd.DataFrame({"start": start, "x": np.log(counts.astype(float))})
    rows["y"] = logits(joined["value"].to_numpy(float), joined["n"].to_numpy(float))
    rows = rows[rows["start"].isin(able)]
    products = centred_products(rows)
    picks = np.random.default_rng(0).integers(len(products), size=(draws, len(products)))
    drawn = products[picks].sum(axis=1)
    total = products.sum(axis=0)
    slopes = drawn[:, 0] / drawn[:, 1]
    return Split(
        **{**vars(split), "slope": float(total[0] / total[1]), "draws": slopes, "because": ""}
    )


def centred_products(rows: pd.DataFrame) -> Floats:
    """Of each pretrain, (pretrains, 2): sums of x y and x x about its own means."""
    found = []
    for _, group in rows.groupby("start"):
        x, y = (group[name].to_numpy(float) - group[name].mean() for name in ("x", "y"))
        found.append([(x * y).sum(), (x * x).sum()])
    return np.array(found)
