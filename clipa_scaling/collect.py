"""Run directories -> the tables `runs`, `evals`, `curves`; a pure function of plan and folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clipa_scaling import schema
from clipa_scaling.children import find_children, join_rows
from clipa_scaling.evaluation import asked_of, name_row
from clipa_scaling.hours import used_hours
from clipa_scaling.plan import Plan, PlanRow
from clipa_scaling.rundir import RunDir, read_json, read_jsonl, write_bytes
from clipa_scaling.spec import RunSpec, legacy_values

TABLES = {"runs": schema.RUNS, "evals": schema.EVALS, "curves": schema.CURVES}
DERIVED = ("pipelines", "tuned")  # where a study has stages, or tunes; their columns name those


def collect(plan: Plan, runs: Path) -> dict[str, pd.DataFrame]:
    """The three tables of a sweep; missing is NA, never 0.

    Raises TableError where a run's declared token counts differ from those its tensors had.
    """
    rows, evals, curves = [], [], []
    children = find_children(runs, (row.planned.id for row in plan.rows))
    for row in plan.rows:
        run = RunDir(runs / row.planned.id)
        run_curves = read_jsonl(run.metrics)
        found = read_json(run.evals)
        # What an evaluation run measured stands under the run that it measured.
        own = found["rows"] if found and row.planned.spec.kind != "evaluate" else []
        run_evals = join_rows(own, children.get(row.planned.id, ()))
        check_tokens(row, run, run_curves, run_evals)
        curves += [{"run": row.planned.id, **item} for item in run_curves]
        evals += [{"run": row.planned.id, **item} for item in run_evals]
        rows.append(run_row(row, run, run_curves, run_evals))
    rows += [
        {"stage": cell.stage, "state": "excluded", "reason": cell.reason, **known(cell.values)}
        for cell in plan.excluded
    ]
    return {
        "runs": make_table(rows, schema.RUNS),
        "evals": make_table(evals, schema.EVALS),
        "curves": make_table(curves, schema.CURVES),
    }


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    """An excluded cell's fields, less those that a budget or a parent would have decided."""
    return {name: value for name, value in values.items() if not isinstance(value, dict)}


def evaluated_otherwise(plan: Plan, tables: dict[str, pd.DataFrame]) -> int:
    """How many done runs lack an evaluation at their end that the sweep file asks for."""
    done = {row.planned.id: row.planned.spec for row in plan.rows if row.state.name == "done"}
    evals = tables["evals"][tables["evals"]["positions"].isna()]
    names = (
        "run", "samples", "fingerprint", "protocol", "size", "evaluator", "evaluation",
        "eval_image_tokens",
    )  # fmt: skip
    found: dict[str, set[str]] = {}
    for values in evals[list(names)].drop_duplicates().itertuples(index=False):
        row = {name: None if pd.isna(v) else v for name, v in zip(names, values, strict=True)}
        spec = done.get(str(row["run"]))
        if spec is not None and row["samples"] == spec.samples:
            found.setdefault(str(row["run"]), set()).add(name_row(row, spec, spec.full_px))
    return sum(
        bool(asked_of(spec).evaluations().keys() - found.get(run, set()))
        for run, spec in done.items()
        if spec.kind != "evaluate" and spec.stage not in schema.TRIAL_STAGES
    )


def eval_tokens(spec: RunSpec) -> dict[str, int]:
    """The image tokens of each size that a run is evaluated at."""
    tokens = {"training": spec.eval_image_tokens, "full": spec.full_image_tokens}
    return {size: tokens[size] for size in spec.measured_sizes}


def check_tokens(
    row: PlanRow, run: RunDir, curves: list[dict[str, Any]], evals: list[dict[str, Any]]
) -> None:
    """TableError where tensors had other token counts than declared.

    At full size they may have those of the folder's spec, too: what the file asks for beside the
    weights can change while done runs stay.
    """
    spec = row.planned.spec
    before = replace(spec, full_px=(read_json(run.spec) or {}).get("full_px", spec.full_px))
    full = {spec.full_image_tokens, before.full_image_tokens}
    declared = {
        "image_tokens_seen": spec.image_tokens,
        "text_tokens_seen": spec.text_tokens,
        "eval_image_tokens": spec.eval_image_tokens,
    }
    for item in [*curves, *evals]:
        if item.get("size") == "full":
            if item["eval_image_tokens"] not in full:
                raise schema.TableError(
                    f"{row.planned.id}: {item['eval_image_tokens']} image tokens in evaluation at "
                    f"sample {item['samples']} are not those of full_px={spec.full_px}, "
                    f"{spec.full_image_tokens}; set evaluate.full_px as it was, or remove the run"
                )
            continue
        for name, value in declared.items():
            if item.get(name, value) != value:
                raise schema.TableError(
                    f"{row.planned.id}: {name}={item[name]} at sample {item['samples']} differs "
                    f"from the declared {value}; the run is not what it says: remove it"
                )


def run_row(
    row: PlanRow, run: RunDir, curves: list[dict[str, Any]], evals: list[dict[str, Any]]
) -> dict[str, Any]:
    """One run's row: state, spec, cost, and outcome where it is done."""
    spec = row.planned.spec
    values: dict[str, Any] = {
        "run": row.planned.id,
        "stage": spec.stage,
        "state": row.state.name,
        "reason": row.state.reason,
        **{name: plain(getattr(spec, name)) for name in (*schema.SPEC, "tuned")},
        **dict.fromkeys(row.planned.unknown),  # not known before they are tuned
        **asdict(row.cost),
    }
    attempt = run.last_attempt()
    if attempt is not None:
        record = read_json(attempt / "env.json")
        values |= {name: record[name] for name in ("revision", "host_cpu", "device")}
        values["attempts"] = int(attempt.name)
        values["gpu_hours_used"] = used_hours(run, spec.gpus)
    if curves:
        last = curves[-1]
        for name in ("loss", "image_tokens_seen", "text_tokens_seen", "text_tokens_real"):
            values[name] = last[name]
        values |= {name: last[name] for name in ("text_truncated", "upsampled_crops")}
        rates = [item["samples_per_second"] for item in curves]
        values["samples_per_second"] = float(np.median(rates))
    if row.state.name == "done":
        values["seconds"] = (row.state.progress or {}).get("seconds")
        finals = [e for e in evals if e["samples"] == spec.samples and e["name"] == "accuracy"]
        # As the figures do.
        finals.sort(key=main_first)
        if finals:
            first = finals[0]
            values |= {"accuracy": first["value"], "accuracy_n": first["n"]}
            values |= {"accuracy_set": first["set"]}
            values |= {"eval_image_tokens": first["eval_image_tokens"]}
    return values


def main_first(row: Mapping[str, Any]) -> tuple[bool, ...]:
    """Orders a run's evaluations: at the training size, by the file's prompts, its texts known."""
    return row.get("size") == "full", row["protocol"] != "common", not row.get("evaluation")


def plain(value: Any) -> Any:
    """A field's value as a table holds it: lists in one string."""
    return " | ".join(value) if isinstance(value, tuple) else value


def make_table(rows: list[dict[str, Any]], columns: dict[str, schema.Column]) -> pd.DataFrame:
    """Rows as a table with exactly the schema's columns and dtypes."""
    data = {
        name: pd.Series([row.get(name) for row in rows], dtype=column.dtype)
        for name, column in columns.items()
    }
    return pd.DataFrame(data)


def save_tables(tables: dict[str, pd.DataFrame], folder: Path) -> bool:
    """CSV for people, Parquet for programs; whether any file changed. Equal tables, equal bytes.

    Files of a derived table that is not given are of an earlier sweep file, and removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    changed = False
    for name, table in tables.items():
        text = table.to_csv(index=False, lineterminator="\n").encode()
        parquet = folder / f"{name}.parquet"
        path = folder / f"{name}.csv"
        if path.exists() and path.read_bytes() == text and parquet.exists():
            continue
        changed = True
        temporary = parquet.with_name(f".{parquet.name}.{os.getpid()}.tmp")
        table.to_parquet(temporary, index=False)
        os.replace(temporary, parquet)
        write_bytes(path, text)
    for stale in (folder / f"{name}.{kind}" for name in DERIVED for kind in ("csv", "parquet")):
        if stale.stem not in tables and stale.exists():
            stale.unlink()
            changed = True
    return changed


def load_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables `save_tables` wrote; FileNotFoundError says how to make them."""
    tables = {}
    for name, columns in TABLES.items():
        path = folder / f"{name}.parquet"
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: no such table; make it with python -m clipa_scaling.sweep on the sweep"
            )
        tables[name] = fill_columns(pd.read_parquet(path), columns)
    for name in DERIVED:
        path = folder / f"{name}.parquet"
        if path.exists():
            tables[name] = pd.read_parquet(path)
    return tables


def fill_columns(table: pd.DataFrame, columns: Mapping[str, schema.Column]) -> pd.DataFrame:
    """An older table with today's columns: a field added since had its legacy value, others NA."""
    legacy = legacy_values()
    added = {
        name: pd.Series(
            [plain(legacy[name]) if name in legacy else None] * len(table), dtype=column.dtype
        )
        for name, column in columns.items()
        if name not in table
    }
    return table.assign(**added)[list(columns)]
