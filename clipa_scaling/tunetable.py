"""What tuning found as a table: on disk for studies, in the terminal for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clipa_scaling import schema
from clipa_scaling.show import MOST_ROWS
from clipa_scaling.tuneblock import Tuned


def make_tuned(found: Sequence[Tuned]) -> pd.DataFrame:
    """One row per combination: its `per` fields in the file's order, then schema.TUNED's columns.

    A field's value is missing where a combination of another tuning does not name the field.
    """
    names = list(dict.fromkeys(name for item in found for name in item.per))
    columns = {name: schema.SPEC[name] for name in names if name in schema.SPEC} | schema.TUNED
    rows = [{**item.per, **tuned_row(item)} for item in found]
    return pd.DataFrame(
        {
            name: pd.Series([row.get(name) for row in rows], dtype=column.dtype)
            for name, column in columns.items()
        }
    )


def tuned_row(item: Tuned) -> dict[str, Any]:
    """The columns of schema.TUNED; None for what is unknown or not checked."""
    row: dict[str, Any] = {
        "field": item.tuning.field,
        "value": known(item.value),
        "measure": item.measured[0],
        "set": item.measured[1],
        "at_samples": item.at_samples,
        "ladder": " | ".join(f"{value:g}" for value in item.over),
        "flag": item.waits,
    }
    if item.optimum is not None:
        row |= {"low": known(item.optimum.low), "high": known(item.optimum.high)}
        row |= {"points": item.optimum.points or None, "flag": item.optimum.flag}
        row |= {"interval": item.optimum.note}
    if item.transfer is not None:
        row["transfer_samples"] = item.transfer.samples
        ratio, optimum = item.transfer.ratio, item.transfer.optimum
        row |= {"transfer_ratio": known(ratio.value), "transfer_low": known(ratio.low)}
        row["transfer_high"] = known(ratio.high)
        row["transfer_flag"] = optimum.flag or optimum.note if optimum else "waits for its runs"
    return row


def known(value: float) -> float | None:
    return None if math.isnan(value) else value


def print_tuned(console: Console, found: Sequence[Tuned]) -> None:
    """The values that cells took, how sure they are, and what to know before trusting them."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("tuned", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 %", justify="right", no_wrap=True)
    table.add_column("remark", overflow="fold")
    for item in found[:MOST_ROWS]:
        table.add_row(item.name, *tuned_cells(item))
    if len(found) > MOST_ROWS:
        table.add_row(f"… {len(found) - MOST_ROWS} more (tuned.csv has all)")
    console.print(table)
    for warning in (said for item in found for said in item.warnings()):
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)


def tuned_cells(item: Tuned) -> Sequence[str]:
    if item.optimum is None:
        return "-", "-", item.waits
    optimum = item.optimum
    interval = f"{optimum.low:.2g} to {optimum.high:.2g}" if math.isfinite(optimum.high) else "-"
    remarks = [optimum.flag or optimum.note]
    if item.transfer is not None and item.transfer.optimum is not None:
        ratio, at = item.transfer.ratio, item.transfer.samples
        span = "" if math.isnan(ratio.low) else f" ({ratio.low:.2g} to {ratio.high:.2g})"
        remarks.append(f"at {at:,} samples {ratio.value:.2g} times as large{span}")
    value = f"{item.value:g}" if math.isfinite(item.value) else "-"
    return value, interval, "; ".join(filter(None, remarks))
