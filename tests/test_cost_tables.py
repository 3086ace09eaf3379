"""The papers' cost tables, against what they print and what this package counts elsewhere."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from make_data import ROOT

from clipa_scaling.cost_tables import cost_table, main
from clipa_scaling.published import load_printed


@pytest.fixture(scope="module")
def costs() -> pd.DataFrame:
    return cost_table([ROOT / "results" / "tiny_law"])


def row(costs: pd.DataFrame, **values: object) -> dict[str, object]:
    chosen = costs
    for name, value in values.items():
        chosen = chosen[chosen[name] == value]
    [found] = chosen.to_dict("records")
    return {str(name): value for name, value in found.items()}


def test_increments_in_print_are_sums_here(costs: pd.DataFrame) -> None:
    """arXiv:2306.15658, Table 4: L/14 4,008 h and $6,318, then +512 and +$806 for 336 px."""
    found = row(costs, table="v2 Table 4", model="L/14", accuracy=0.803)
    assert (found["gpu_hours"], found["dollars"]) == (4520, 7124)


def test_hours_imply_what_compute_md_says(costs: pd.DataFrame) -> None:
    """Both count from the same stages, each with its own rows: every printed hour, to 1 %."""
    printed = {item.printed: item.share for item in load_printed() if item.unit == "h"}
    timed = costs[costs["gpu_hours"].notna() & (costs["trainer"] != "own")]
    assert {f"{hours:.0f}" for hours in timed["gpu_hours"]} == set(printed)
    for hours, share in zip(timed["gpu_hours"], timed["utilisation"], strict=True):
        assert share == pytest.approx(printed[f"{hours:.0f}"], rel=0.01), hours


def test_prices_are_those_that_the_paper_states_or_not(costs: pd.DataFrame) -> None:
    """arXiv:2306.15658, Table 4: $1.575 an hour in its footnote, to the $8 that it is off."""
    priced = costs[(costs["table"] == "v2 Table 4") & costs["dollars"].notna()]
    off = (priced["dollars"] - 1.575 * priced["gpu_hours"]).abs().astype(float)
    other = (priced["dollars"] / priced["gpu_hours"]).astype(float)[off > 8]
    assert len(priced) == 9 and other.tolist() == pytest.approx([1.14375] * 2, abs=2e-5)


def test_counted_compute_is_near_what_reproduces_in_print(costs: pd.DataFrame) -> None:
    """arXiv:2305.07017, Table 2: 2.4e12 GFLOPs x samples for FLIP-H/14, to two digits."""
    found = row(costs, table="v1 Table 2", trainer="FLIP")
    counted = float(str(found["train_flops"])) / 6
    assert found["printed_compute"] == pytest.approx(2.4e21)
    assert counted == pytest.approx(2.4e21, rel=0.01)


def test_what_is_unknown_stays_so(costs: pd.DataFrame) -> None:
    assert costs["train_flops"].notna().all(), "lengths of all these are known"
    assert costs.loc[costs["trainer"] == "OpenAI", "utilisation_recomputing"].isna().all()
    assert costs.loc[costs["table"] == "v1 Table 2", ["gpu_hours", "dollars"]].isna().all(axis=None)


def test_own_pipelines_stand_on_the_same_axes(costs: pd.DataFrame) -> None:
    own = costs[costs["trainer"] == "own"]
    assert set(own["table"]) == {"tiny_law"} and len(own) > 50
    assert own[["train_flops", "gpu_hours", "accuracy"]].notna().all(axis=None)
    assert own["schedule"].str.fullmatch(r"\d[\d.]*K at \d+ px, \d+/16").all(), "a trunk's once"
    assert own["utilisation"].isna().all(), "an A100's peak says nothing of other devices"


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--csv", str(tmp_path / "costs.csv")]) == 0
    said = capsys.readouterr().out
    assert "366,105" in said and "multiply-adds" in said
    assert len(pd.read_csv(tmp_path / "costs.csv")) == 9 + 9 + 4 + 9 + 9
    assert main([str(tmp_path)]) == 1
    assert "make it with" in capsys.readouterr().err
