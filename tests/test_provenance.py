"""One curve of two origins is told, field by field; curves that differ from each other are not."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from clipa_scaling import schema
from clipa_scaling.collect import make_table
from clipa_scaling.provenance import OF_EVALS, OF_RUNS, find_mixed


def make_study(changed: str = "", value: object = None, where: str = "A-4-0") -> Any:
    """Two models at three lengths, two seeds; one run, or model, differs in one column."""
    runs, evals = [], []
    for model in "AB":
        for tokens in (16, 9, 4):
            for seed in (0, 1):
                name = f"{model}-{tokens}-{seed}"
                run = {"run": name, "state": "done", "stage": "pretrain", "kind": "pretrain"}
                run |= {"model": model, "parent": "", "data_fingerprint": "d", "precision": "bf16"}
                run |= {"revision": "r", "device": "cpu", "schedule": "cosine", "tuned": ""}
                numbers = {"image_tokens": tokens, "seed": seed, "samples": 64, "lr": 1e-3}
                row = {"run": name, "set": "s", "fingerprint": "f", "protocol": "common"}
                row |= {"name": "accuracy", "evaluation": "e", "size": "training"}
                if name.startswith(where) and changed in schema.RUNS:
                    run[changed] = value  # type: ignore[assignment]
                if name.startswith(where) and changed in schema.EVALS:
                    row[changed] = value  # type: ignore[assignment]
                runs.append({**run, **numbers})
                early = {"samples": 32, "value": 0.1, "protocol": "paper"}
                evals += [{**row, "samples": 64, "value": 0.5}, {**row, **early}]
    return {"runs": make_table(runs, schema.RUNS), "evals": make_table(evals, schema.EVALS)}


VALUES = {"tuned": ("none", "lr"), "imported": ("own", "imported"), "revision": ("r", "q"),
          "schedule": ("cosine", "constant"), "device": ("cpu", "H100"),
          "precision": ("bf16", "fp32"), "data_fingerprint": ("d", "c"), "fingerprint": ("f", "g"),
          "evaluation": ("e", "h")}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_a_curve_of_two_origins_is_told_with_values_and_runs(name: str) -> None:
    usual, other = VALUES[name]
    value = "x.csv" if name == "imported" else other
    [line] = find_mixed(make_study(name, value))
    assert line.startswith(f"A: one curve mixes {name}, ") and "\n" not in line
    assert f"{usual} (A-16-0, A-16-1 and 3 more); {other} (A-4-0)" in line
    assert find_mixed(make_study(name, value, where="A")) == [], "another curve may differ"
    assert find_mixed(make_study()) == []


def test_all_columns_exist() -> None:
    assert set(OF_RUNS) <= set(schema.RUNS) and set(OF_EVALS) <= set(schema.EVALS)


def test_a_protocol_that_is_not_the_curves_is_told() -> None:
    tables = make_study()
    alone = tables["evals"]["protocol"].mask(tables["evals"]["run"] == "A-4-0", "own")
    evals = tables["evals"].assign(protocol=alone.replace("common", "mine"))
    [line] = find_mixed({**tables, "evals": evals})
    assert "mixes protocol" in line and "own (A-4-0)" in line


def test_what_was_not_recorded_is_no_value_and_left_out_runs_do_not_count() -> None:
    assert find_mixed(make_study("device", None)) == []
    tables = make_study("device", "H100")
    gone = tables["runs"]["run"] == "A-4-0"
    reason = pd.Series("no", tables["runs"].index, "string").where(gone)
    assert find_mixed({**tables, "runs": tables["runs"].assign(left_out=reason)}) == []


def test_cells_whose_rate_tuning_chose_are_one_curve() -> None:
    tables = make_study("revision", "q", where="A-4")
    rates = tables["runs"]["image_tokens"].astype(float) * 1e-4
    tuned = {**tables, "runs": tables["runs"].assign(lr=rates)}
    assert find_mixed(tuned) == [], "a length of other revision with a rate of its own: a line"
    runs = tuned["runs"].assign(tuned=pd.Series("lr", tuned["runs"].index, "string"))
    assert len(find_mixed({**tables, "runs": runs})) == 1


def test_curves_that_mix_the_same_are_told_in_one_line() -> None:
    tables = make_study()
    rows = tables["runs"]["image_tokens"] == 4
    device = tables["runs"]["device"].mask(rows, "H100")
    [line] = find_mixed({**tables, "runs": tables["runs"].assign(device=device)})
    assert line.startswith("A, B: one curve mixes device") and "H100 (A-4-0, A-4-1 and 2" in line
