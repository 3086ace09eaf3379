"""The papers' numbers, from results/published, in this package's words and units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from clipa_scaling.cost import DEVICES
from clipa_scaling.counts import count_model
from clipa_scaling.models import SIZES, load_model
from clipa_scaling.schema import EVALS, RUNS, Column, TableError

FOLDER = Path(__file__).resolve().parents[1] / "results" / "published"
# What the token embedding holds changes no FLOPs.
VOCABULARY = 49_408
# The papers' FLOPs are multiply-adds of one forward, two of this package's; their compute is such
# GFLOPs times samples, in 1e11 or 1e12. `h`: hours of an A100.
UNITS = {"1e12": 2e9 * 1e12, "1e11": 2e9 * 1e11, "G": 2e9}
NEAR = 0.01  # relative: what rounding inside the papers may do beside the last digit printed


# Beside the columns of our own tables.
PRINTED = {
    "table": "string", "trainer": "string", "data": "string", "compute": "Float64",
    "gmacs_per_sample": "Float64", "source": "string", "note": "string",
}  # fmt: skip


def load_published(folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """What both papers, their READMEs and open_clip print, as the tables `runs` and `evals`.

    Beside our own columns: `table` (`v1 Table 11`, `v2 Figure 2`, README, open_clip), `trainer`,
    `data`, `source`, `note` (also what is wrong in print), `compute` (multiply-adds of one forward
    times samples, as printed: half of `flops_per_sample` times samples) and `gmacs_per_sample`.
    Hours and dollars are as printed, of whole pipelines; parameters and FLOPs are this package's,
    missing where lengths are not printed. Every value is a fraction; but `drop`, and MEASURE_drop,
    in points, positive where worse, where only these are printed (v2 Figure 2, v1 Figure 5). A
    number that cannot be is missing, with a note; other errors in print stand, with a note.
    """
    return {name: table.copy() for name, table in read_published(folder).items()}


@cache
def read_published(folder: Path) -> dict[str, pd.DataFrame]:
    """As `load_published`, once for each folder; not to be changed."""
    runs = read_typed(folder / "runs.csv", RUNS)
    evals = read_typed(folder / "evals.csv", EVALS)
    for name, values in count_towers(runs).items():
        runs[name] = pd.Series(values, runs.index, "Float64")
    runs["train_flops"] = 3.0 * runs["samples"] * runs["flops_per_sample"]
    runs["state"] = pd.Series("done", runs.index, "string")
    runs["imported"] = runs["source"]
    evals["samples"] = evals["run"].map(runs.set_index("run")["samples"]).astype("Int64")
    evals["protocol"] = pd.Series("paper", evals.index, "string")
    return {"runs": runs, "evals": evals}


def read_typed(path: Path, columns: dict[str, Column]) -> pd.DataFrame:
    """A table in its types; columns that the file lacks are missing throughout."""
    if not path.exists():
        raise TableError(f"{path}: no such table; it comes with a clone of the repository")
    kinds = {name: column.dtype for name, column in columns.items()} | PRINTED
    table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    names = [*columns, *(name for name in PRINTED if name in table)]
    return table.reindex(columns=names).astype({name: kinds[name] for name in names})


def count_towers(runs: pd.DataFrame) -> dict[str, list[float | None]]:
    """Parameters and FLOPs of each run; None where the architecture or a length is unknown."""
    names = ("image_params", "text_params", "total_params", "flops_per_sample")
    found: dict[str, list[float | None]] = {name: [] for name in names}
    fields = runs[["model", "image_tokens", "text_tokens", "image_size"]].astype(object)
    for model, tokens, texts, pixels in fields.where(fields.notna(), None).to_numpy():
        counts = None
        known = str(model).split("/")[0] in SIZES
        if known and None not in (tokens, texts, pixels):
            size = load_model(model)
            patches = (pixels // size.patch) ** 2
            counts = count_model(size, tokens, patches, texts, VOCABULARY)
        for name in names:
            found[name].append(None if counts is None else float(getattr(counts, name)))
    return found


def select(table: str, folder: Path = FOLDER) -> pd.DataFrame:
    """The evaluations of one printed table, each with its run's columns, and those of its parent.

    Columns of the run that a finetune started from begin with `start_`; of a run from scratch they
    are its own; `note_run` is the run's note. TableError for a table that is not there.
    """
    tables = read_published(folder)
    runs = tables["runs"]
    evals = tables["evals"][tables["evals"]["table"] == table]
    if evals.empty:
        known = ", ".join(dict.fromkeys(tables["evals"]["table"]))
        raise TableError(f"table={table!r} is not published here; there are: {known}")
    runs = runs.drop(columns=["samples", "imported", "source", "table", "accuracy", "loss"])
    own = evals.merge(runs, on="run", how="left", validate="many_to_one", suffixes=("", "_run"))
    start = own["parent"].fillna("").mask(own["parent"].fillna("") == "", own["run"])
    by_run = tables["runs"].set_index("run")
    for name in ("run", "model", "image_tokens", "text_tokens", "image_reduction",
                 "text_reduction", "image_size", "samples"):  # fmt: skip
        own[f"start_{name}"] = start if name == "run" else start.map(by_run[name])
    return own


def has_earlier(folder: Path = FOLDER) -> bool:
    """Whether this is a clone with its published tables."""
    return (folder / "earlier_models.csv").exists()


def load_earlier(folder: Path = FOLDER) -> pd.DataFrame:
    """Published CLIP models: `model`, `train_flops`, `a100_hours`, `imagenet1k`, `source`.

    train_flops is this package's, in closed form at the printed samples and sizes, over both
    stages: 3 x samples x one forward, two per multiply-add. Assumed where the papers print nothing:
    77 text tokens for OpenAI's and OpenCLIP's models; CLIPA's finetuning at 32; CLIPA-v2 L/14's
    mask in finetuning as H/14's. Left out: OpenCLIP's G/14, of which it is not printed what part
    was masked; FLIP; CLIPA-G, whose printed compute is not its printed size's. Hours as printed.
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
