"""The papers' cost tables again: accuracy beside hours, dollars and compute, printed and counted.

python -m clipa_scaling.cost_tables [RESULTS_DIR…] prints them, with own pipelines on the same axes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clipa_scaling.cost import DEVICES
from clipa_scaling.exclusions import load_study
from clipa_scaling.pipelines import sum_ancestors, sum_pipelines
from clipa_scaling.published import FOLDER, load_published
from clipa_scaling.schema import TableError

TABLES = ("v1 Table 1", "v1 Table 2", "v1 Table 8", "v2 Table 4", "README")
DEVICE = "a100-80gb"  # the papers' hours are of A100s
# A multiply-add is two FLOPs, a training step three forwards; four where activations are computed
# again, as in all of CLIPA's runs (gradient checkpointing).
PER_FORWARD, RECOMPUTING = 3.0, 4.0
LEAST_WIDTH = 132  # of the terminal's table: narrower, a stage would not fit its line
COLUMNS = [
    "table", "trainer", "model", "data", "schedule", "accuracy", "accuracy_set", "gpu_hours",
    "dollars", "printed_compute", "train_flops", "utilisation", "utilisation_recomputing",
    "source", "note",
]  # fmt: skip


def cost_table(results: Sequence[Path] = (), folder: Path = FOLDER) -> pd.DataFrame:
    """A row for each published pipeline with a printed cost, then one for each own pipeline.

    gpu_hours and dollars: as printed, A100s; of own ones as used, else as planned, on their own
    device. printed_compute: multiply-adds of a forward times samples, as the papers count.
    train_flops: this package's closed form over all stages, 3 x two per multiply-add; missing where
    the architecture is unknown. utilisation: of the A100's bf16 peak in the printed hours, by three
    forwards, and by four. accuracy: ImageNet-1k's; of own pipelines accuracy_set's. v1 Table 3 and
    v2 Table 1 repeat compute that is here, and v2 Figure 1 prints no cost.
    """
    return pd.concat(
        [published_costs(folder), *(own_costs(path) for path in results)], ignore_index=True
    )


def published_costs(folder: Path = FOLDER) -> pd.DataFrame:
    tables = load_published(folder)
    runs, evals = tables["runs"], tables["evals"]
    top = evals[(evals["set"] == "imagenet1k") & (evals["name"] == "accuracy")]
    accuracy = top.drop_duplicates("run").set_index("run")["value"]
    has_cost = runs["gpu_hours"].notna() | runs["compute"].notna()
    rows = runs[runs["table"].isin(TABLES) & has_cost].reset_index(drop=True)
    rows["accuracy"] = rows["run"].map(accuracy)
    by_run = runs.set_index("run")
    flops = pd.Series(sum_ancestors(by_run, rows["run"], "train_flops"), rows.index)
    seconds = 3600 * rows["gpu_hours"].astype(float)
    share = flops / (seconds * DEVICES[DEVICE].peak_flops)
    rows["train_flops"] = flops
    rows["printed_compute"] = rows["compute"].astype(float)
    rows["utilisation"] = share
    checkpointed = rows["trainer"].str.startswith("CLIPA").fillna(False).astype(bool)
    rows["utilisation_recomputing"] = (share * RECOMPUTING / PER_FORWARD).where(checkpointed)
    rows["schedule"] = [describe_stages(by_run, run) for run in rows["run"]]
    rows["accuracy_set"] = "imagenet1k"
    return rows.reindex(columns=COLUMNS)


def describe_stages(runs: pd.DataFrame, run: str) -> str:
    """`12.8B at 84 px, 36/8 + 524M at 224 px, 179/32`: samples, pictures, image and text tokens.

    A decay's samples are all those since its parent's start.
    """
    told: list[str] = []
    while run:
        row = runs.loc[run].to_dict()
        count = count_samples(float(row["samples"]))
        told.insert(
            0, f"{count} at {row['image_size']} px, {row['image_tokens']}/{row['text_tokens']}"
        )
        is_first = pd.isna(row["parent"]) or row["kind"] == "decay"
        run = "" if is_first else str(row["parent"])
    return " + ".join(told)


def count_samples(samples: float) -> str:
    """`12.8B`, `131M`, `10.8K`."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if samples >= unit:
            return f"{samples / unit:.3g}{name}"
    return f"{samples:.0f}"


def own_costs(results: Path) -> pd.DataFrame:
    """The pipelines of a study that are done, in the same columns."""
    tables = load_study(results)
    by_run = tables["runs"].drop_duplicates("run").set_index("run")
    pipelines = sum_pipelines(tables)
    done = pipelines[pipelines["accuracy"].notna() & pipelines["left_out"].isna()]
    used = done["pipeline_hours_used"].astype(float)
    rows = pd.DataFrame(
        {
            "table": results.resolve().name,
            "trainer": "own",
            "model": done["model"],
            "data": done["data_fingerprint"],
            "schedule": [describe_stages(by_run, str(run)) for run in done["run"]],
            "accuracy": done["accuracy"],
            "accuracy_set": done["accuracy_set"],
            "gpu_hours": used.fillna(done["pipeline_hours"].astype(float)),
            "dollars": done["pipeline_dollars"].astype(float),
            "train_flops": done["pipeline_flops"].astype(float),
            "source": done["run"],
        }
    )
    return rows.reindex(columns=COLUMNS)


def print_costs(console: Console, costs: pd.DataFrame) -> None:
    """A table in the terminal, in the order of the papers'."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="Cost and accuracy", title_justify="left")
    for name in ("table", "who", "model"):
        table.add_column(name, no_wrap=True)
    table.add_column("samples@px image/text tokens")
    heads = ("accuracy", "GPU-hours", "$", "printed", "counted", "used × 3", "× 4")
    for name in heads:
        table.add_column(name, justify="right", no_wrap=True)
    for row in costs.to_dict("records"):
        counted = float(row["train_flops"]) / 2 / PER_FORWARD
        stages = str(row["schedule"]).replace(" at ", "@").replace(" px, ", " ")
        table.add_row(
            str(row["table"]), str(row["trainer"]), str(row["model"]), stages.replace("+ ", "+\n"),
            show(row["accuracy"], "{:.1%}"), show_amount(row["gpu_hours"]),
            show_amount(row["dollars"]), show(row["printed_compute"], "{:.3g}"),
            show(counted, "{:.2e}"), show(row["utilisation"], "{:.0%}"),
            show(row["utilisation_recomputing"], "{:.0%}"),
        )  # fmt: skip
    console.print(table)
    console.print(
        "printed, counted: multiply-adds of a forward × samples. used × 3: share of an A100's bf16 "
        "peak in the printed hours, three forwards a sample; × 4: four, by the gradient "
        "checkpointing of CLIPA's runs. GPU-hours: A100s', but own ones. Empty: not printed.",
        soft_wrap=True,
    )


def show(value: object, form: str) -> str:
    return "" if pd.isna(value) else form.format(value)  # type: ignore[call-overload]


def show_amount(value: object) -> str:
    """Whole hours or dollars; two digits of what rounds to none."""
    told = show(value, "{:,.0f}")
    return show(value, "{:.2g}") if told == "0" else told


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 where a folder has no tables."""
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.cost_tables",
        description="Accuracy against cost, as published",
    )
    parser.add_argument("results", type=Path, nargs="*", help="own studies, such as results/NAME")
    parser.add_argument("--csv", type=Path, help="also write the table, every column")
    given = parser.parse_args(arguments)
    try:
        costs = cost_table(given.results)
    except (FileNotFoundError, TableError) as error:
        print(error, file=sys.stderr)
        return 1
    print_costs(Console(width=max(LEAST_WIDTH, Console().width)), costs)
    if given.csv:
        costs.to_csv(given.csv, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
