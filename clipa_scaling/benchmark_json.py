"""Evaluations as CLIP_benchmark writes them, for what reads its result files.

    python -m clipa_scaling.benchmark_json results/NAME OUT_FOLDER

A file for each finished run, set, protocol and size: the evaluation at the run's end. Shape and
names are those of LAION-AI/CLIP_benchmark, clip_benchmark/cli.py and clip_benchmark/metrics.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from clipa_scaling.collect import load_tables
from clipa_scaling.rundir import write_json
from clipa_scaling.schema import TableError

# CLIP_benchmark names a direction of retrieval by what is found: images by a text, or texts.
RECALLS = {"text_to_image": "image_retrieval_recall", "image_to_text": "text_retrieval_recall"}
METRICS = {
    "zeroshot_classification": {
        "accuracy": "acc1",
        "accuracy_top5": "acc5",
        "accuracy_per_class": "mean_per_class_recall",
    },
    "zeroshot_retrieval": {
        f"{ours}_r{k}": f"{theirs}@{k}" for ours, theirs in RECALLS.items() for k in (1, 5, 10)
    },
}
USUAL = ("common", "training")  # of protocols and sizes: not named beside the run


def make_results(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """The content of each file by its name; a value that is unknown is null.

    `pretrained` is the run's id, with `paper` or `full` behind it where the evaluation is. The
    held-out loss has no name there and stays out. TableError where a measure has two values.
    """
    runs = tables["runs"][tables["runs"]["state"] == "done"]
    evals = tables["evals"][tables["evals"]["positions"].isna()]
    ends = runs[["run", "model", "samples"]].drop_duplicates("run")
    last = evals.merge(ends, on=["run", "samples"])
    last["size"] = last["size"].fillna("training")
    # Of what an older version measured and a later one again, the later.
    last = last.sort_values("evaluation", kind="stable", key=pd.Series.isna)
    last = last.drop_duplicates(["run", "set", "fingerprint", "protocol", "size", "name"])
    results = {}
    for key, rows in last.groupby(["run", "set", "protocol", "size"], sort=False):
        run, name, protocol, size = map(str, key)
        if rows["name"].duplicated().any():
            twice = rows.loc[rows["name"].duplicated(), "name"].iloc[0]
            raise TableError(
                f"evals: {run} has {twice} of set={name}, protocol={protocol}, size={size} twice; "
                "give one of the sets another name in the sweep file"
            )
        values = rows.set_index("name")["value"]
        for task, metrics in METRICS.items():
            found = {theirs: values[ours] for ours, theirs in metrics.items() if ours in values}
            if found:
                results["_".join((run, name, protocol, size)) + ".json"] = {
                    "dataset": name,
                    "model": str(rows["model"].iloc[0]),
                    "pretrained": " ".join([run, *(w for w in (protocol, size) if w not in USUAL)]),
                    "task": task,
                    "metrics": {n: None if pd.isna(v) else float(v) for n, v in found.items()},
                    "language": "en",
                }
    return results


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 there is nothing to write from; in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.benchmark_json",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, help="a folder of tables, results/NAME")
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER")
    options = parser.parse_args(arguments)
    try:
        results = make_results(load_tables(options.results))
        options.out.mkdir(parents=True, exist_ok=True)
        for name, content in results.items():
            write_json(options.out / name, content)
    except (OSError, TableError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(results)} evaluations in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
