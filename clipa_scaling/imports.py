"""Results of other programs as rows of our tables, marked `imported`.

python -m clipa_scaling.imports FILE… --results results/NAME [--map column=ours] [--set model=B/16]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipa_scaling.collect import TABLES, load_tables, make_table, save_tables
from clipa_scaling.counts import count_model
from clipa_scaling.exclusions import mark_left_out, read_exclusions
from clipa_scaling.foreign import Foreign, read_foreign
from clipa_scaling.models import load_model
from clipa_scaling.pipelines import has_stages, make_pipelines
from clipa_scaling.schema import RUNS, Column, TableError
from clipa_scaling.spec import nearest
from clipa_scaling.yamlfile import SweepError

# What every row gets where its file does not say, and --set does not.
USUAL = {"state": "done", "stage": "imported", "kind": "pretrain", "parent": ""}
# Of evaluations; no columns of `runs`.
OF_EVALS = {"set": "string", "n": "Int64", "protocol": "string", "fingerprint": "string"}
PAPERS_PROMPTS = ("imagenet1k", "imagenetv2")  # both programs use CLIP's 80 templates there
RETRIEVED = re.compile(r"_r\d+$|^loss$")
FILLED = ("image_params", "text_params", "total_params", "nonembedding_params", "flops_per_sample")


def import_files(
    paths: Sequence[Path],
    names: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
    percent: bool = False,
) -> dict[str, pd.DataFrame]:
    """The tables of other programs' files; what they do not say is missing.

    names: columns of a CSV and ours; values: ours for every row, as text. percent: fractions are
    printed in percent. Ids come from the rows' content. Raises TableError.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for path in paths:
        for number, run in enumerate(read_foreign(path, names or {}), 1):
            add_run(rows, run, f"{path}: run {number}", name_source(path), values or {}, percent)
    return {name: make_table(unique(rows[name]), columns) for name, columns in TABLES.items()}


def name_source(path: Path) -> str:
    """What `imported` says: a file's name; of open_clip_train its run's, as all files are alike."""
    whole = path.resolve()
    return whole.parent.parent.name if path.name == "results.jsonl" else whole.name


def add_run(
    rows: dict[str, list[dict[str, Any]]],
    run: Foreign,
    where: str,
    source: str,
    values: Mapping[str, str],
    percent: bool,
) -> None:
    """One run's rows in all tables."""
    given = {**USUAL, **run.fields, **values}
    typed = {
        name: as_typed(where, name, value) for name, value in given.items() if value is not None
    }
    of_evals = {name: typed.pop(name) for name in OF_EVALS if name in typed}
    fields = fill_costs(typed)
    content = json.dumps([source, fields, run.evals], sort_keys=True, default=str)
    digits = hashlib.sha256(content.encode()).hexdigest()[:10]
    model = str(fields.get("model", "unknown")).replace("/", "-")
    name = f"imported-{model}-{digits}"
    evals = []
    for item in run.evals:
        row = {"samples": fields.get("samples"), **of_evals, **drop_none(item), "run": name}
        row["value"] = as_fraction(where, row["name"], float(row["value"]), percent)
        eval_set = row.setdefault("set", "imported")
        is_papers = eval_set in PAPERS_PROMPTS and not RETRIEVED.search(row["name"])
        row.setdefault("protocol", "paper" if is_papers else "common")
        # No benchmark of our own, whatever its name, unless --set fingerprint says it is that.
        row.setdefault("fingerprint", f"imported {eval_set} {row['protocol']}")
        evals.append(row)
    ends = [
        row
        for row in evals
        if row["name"] == "accuracy" and row["samples"] == fields.get("samples")
    ]
    if ends:
        fields |= {"accuracy": ends[0]["value"], "accuracy_set": ends[0]["set"]}
        fields |= {"accuracy_n": ends[0].get("n")}
    if run.curves:
        fields["loss"] = run.curves[-1]["loss"]
    rows["runs"].append({**fields, "run": name, "imported": source})
    rows["evals"] += evals
    rows["curves"] += [{**row, "run": name} for row in run.curves]


def drop_none(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def as_typed(where: str, name: str, value: Any) -> Any:
    """A value as its column holds it; TableError for an unknown column or another type."""
    dtype = OF_EVALS.get(name) or (RUNS[name].dtype if name in RUNS else "")
    if not dtype:
        raise TableError(
            f"{where}: {name} is no column of runs; {nearest(name, [*RUNS, *OF_EVALS])}"
        )
    kind = {"Int64": int, "Float64": float, "string": str, "boolean": bool}[dtype]
    try:
        if kind is int and not float(value).is_integer():
            raise ValueError
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        return kind(float(value)) if kind in (int, float) else str(value)
    except (ValueError, KeyError):
        raise TableError(f"{where}: {name}={value!r}; allowed: {kind.__name__}") from None


def as_fraction(where: str, name: str, value: float, percent: bool) -> float:
    """A measure's value as a fraction; TableError for percent without --percent, or none at all."""
    if name == "loss":
        return value
    value = round(value / 100, 12) if percent else value  # 0.548, not 0.5479999999999999
    if not 0 <= value <= 1:
        way_out = "allowed: 0 to 100" if percent else "a fraction is at most 1: --percent if it is"
        raise TableError(f"{where}: {name}={100 * value if percent else value:g}; {way_out}")
    return value


def fill_costs(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with parameters and FLOPs where the model is ours and both lengths are known."""
    try:
        model = load_model(str(fields.get("model")))
        tokens, texts = fields["image_tokens"], fields["text_tokens"]
    except (ValueError, KeyError):
        return fields
    size = fields.get("image_size")
    positions = tokens if size is None else (size // model.patch) ** 2
    vocabulary = fields.get("vocab_size")
    try:
        counts = count_model(model, tokens, max(positions, tokens), texts, vocabulary or 1)
    except ValueError:
        return fields
    known = FILLED if vocabulary else ("image_params", "flops_per_sample")  # no text table unknown
    found = {name: getattr(counts, name) for name in known}
    if "samples" in fields:
        found["train_flops"] = 3.0 * fields["samples"] * counts.flops_per_sample
    return found | fields


def unique(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row once: files may hold, or be given, the same twice."""
    return list({json.dumps(row, sort_keys=True, default=str): row for row in rows}.values())


def merge(
    before: Mapping[str, pd.DataFrame] | None, imported: dict[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Imported rows after the others; those of the same ids or files before are replaced."""
    if before is None:
        before = {name: make_table([], columns) for name, columns in TABLES.items()}
    runs = before["runs"]
    sources = imported["runs"]["imported"].dropna().unique()
    gone = runs["run"].isin(imported["runs"]["run"]) | runs["imported"].isin(sources)
    replaced = runs.loc[gone, "run"].dropna()
    both = join(runs[~gone], imported["runs"], TABLES["runs"])
    # By file, whatever the order in which they were imported: the same again changes nothing.
    both = both.sort_values("imported", na_position="first", kind="stable", ignore_index=True)
    places = {run: place for place, run in enumerate(both["run"])}
    merged = {"runs": both}
    for name in ("evals", "curves"):
        kept = before[name][~before[name]["run"].isin(replaced)]
        rows = join(kept, imported[name], TABLES[name])
        order = rows["run"].map(places).sort_values(kind="stable").index
        merged[name] = rows.loc[order].reset_index(drop=True)
    return merged


def join(first: pd.DataFrame, second: pd.DataFrame, columns: Mapping[str, Column]) -> pd.DataFrame:
    parts = [table for table in (first, second) if len(table)]
    whole = pd.concat(parts, ignore_index=True) if parts else first
    return whole.astype({name: column.dtype for name, column in columns.items()})


def keep_imported(tables: dict[str, pd.DataFrame], folder: Path) -> dict[str, pd.DataFrame]:
    """Collected tables with the imported rows that the folder's tables hold."""
    if not (folder / "runs.parquet").exists():
        return tables
    before = load_tables(folder)
    imported = before["runs"][before["runs"]["imported"].fillna("") != ""]
    if imported.empty:
        return tables
    rows = {name: before[name][before[name]["run"].isin(imported["run"])] for name in TABLES}
    return merge(tables, rows)


def read_pairs(told: Sequence[str], option: str) -> dict[str, str]:
    pairs = {}
    for text in told:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise TableError(f"{option} {text}: allowed: {option} name=value")
        pairs[name] = value
    return pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 with one line on stderr for a file that cannot be read as results."""
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.imports",
        description="Add other programs' results to the tables in a results folder: folders or "
        "results.jsonl of open_clip_train, JSON of CLIP_benchmark, any CSV (a row a run).",
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--results", type=Path, required=True, help="the folder, e.g. results/mine")
    parser.add_argument("--map", nargs="+", default=[], metavar="COLUMN=OURS", action="extend")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="OURS=VALUE",
        action="extend",
        help="of all rows: fields of runs, set, n, protocol, fingerprint (that of "
        "a sweep's own set in evals.csv, where it is known to be the same)",
    )
    parser.add_argument("--percent", action="store_true", help="accuracies are in percent")
    options = parser.parse_args(arguments)
    folder: Path = options.results
    try:
        names, values = read_pairs(options.map, "--map"), read_pairs(options.set, "--set")
        imported = import_files(options.files, names, values, options.percent)
        before = load_tables(folder) if (folder / "runs.parquet").exists() else None
        tables = merge(before, imported)
        left_out = read_exclusions(folder, tables["runs"]["run"].dropna())
        tables["runs"] = mark_left_out(tables["runs"], left_out)
        if has_stages(tables):
            tables["pipelines"] = make_pipelines(tables)
        changed = save_tables(tables, folder)
    except (FileNotFoundError, SweepError, TableError) as error:
        print(error, file=sys.stderr)
        return 2
    count = len(imported["runs"])
    unknown = [name for name in ("samples", "train_flops") if imported["runs"][name].isna().any()]
    print(
        f"{folder}: {count} run{'s' * (count != 1)} imported" + ", nothing changed" * (not changed)
    )
    if unknown:
        print(f"unknown for some: {', '.join(unknown)}; --set says what a file does not")
    return 0


if __name__ == "__main__":
    sys.exit(main())
