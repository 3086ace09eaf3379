"""Pipelines beside each other: values after each stage, the papers' drops, summed costs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from clipa_scaling import schema
from clipa_scaling.collect import load_tables, make_table, save_tables
from clipa_scaling.exclusions import Exclusion, mark_left_out
from clipa_scaling.outcome import print_outcome
from clipa_scaling.pipelines import has_stages, make_pipelines

# After pretraining and finetuning, arXiv:2305.07017, Table 11, resize; tokens without the CLS.
TABLE_11 = {
    ("S/16", 196): (None, 0.567), ("S/16", 49): (0.501, 0.547), ("S/16", 16): (0.407, 0.505),
    ("B/16", 196): (None, 0.642), ("B/16", 49): (0.590, 0.629), ("B/16", 16): (0.510, 0.599),
    ("L/16", 196): (None, 0.692), ("L/16", 49): (0.651, 0.689), ("L/16", 16): (0.583, 0.662),
}  # fmt: skip
# Its section 4.1: "6.2%, 4.3%, 3.0%" at 16 tokens.
DROPS = {("S/16", 16): 6.2, ("B/16", 16): 4.3, ("L/16", 16): 3.0, ("S/16", 49): 2.0,
         ("B/16", 49): 1.3, ("L/16", 49): 0.3}  # fmt: skip


def evaluated(run: str, samples: int, value: float | None, **more: Any) -> dict[str, Any]:
    row = {"run": run, "samples": samples, "set": "imagenet1k", "protocol": "common", "n": 50_000}
    return {**row, "name": "accuracy", "value": value, "fingerprint": "f", **more}


def make_study(seeds: tuple[int, ...] = (0,), **tuned: Any) -> dict[str, pd.DataFrame]:
    """The table's runs with invented costs; a seed adds 1 point to every value."""
    runs, evals = [], []
    for (model, tokens), values in TABLE_11.items():
        size = 1 + "SBL".index(model[0])
        for seed in seeds:
            name = f"{model}-{tokens}-{seed}"
            run: dict[str, Any] = {"state": "done", "model": model, "seed": seed, "text_tokens": 32}
            run |= {"image_reduction": "resize", "text_reduction": "truncate", "total_params": 1}
            first: dict[str, Any] = {"run": name, "stage": "pretrain", "kind": "pretrain"}
            first |= {"image_tokens": tokens, "samples": 2560, "train_flops": 10.0 * tokens * size}
            first |= {"gpu_hours": 4.0, "gpu_hours_used": 5.0, "dollars": 6.0, "parent": ""}
            first |= {"image_size": int(tokens**0.5) * 16, "lr": 1e-3}
            second: dict[str, Any] = {"run": f"{name}-ft", "stage": "finetune", "parent": name}
            second |= {
                "kind": "finetune",
                "image_tokens": 196,
                "samples": 128,
                "train_flops": 196.0,
            }
            second |= {"image_size": 224, "dollars": 0.5, "gpu_hours": 1.0, "lr": 1e-4}
            second |= {"image_position_change": "interpolate"}
            second |= {"text_position_change": "interpolate"}
            runs += [run | first, run | second | tuned]
            done = [None if value is None else value + 0.01 * seed for value in values]
            evals += [evaluated(name, 1280, 0.1), evaluated(name, 2560, done[0])]
            evals += [evaluated(f"{name}-ft", 128, done[1])]
            evals += [evaluated(f"{name}-ft", 128, 0.9, protocol="paper")]
            for way, value in (("extend", 0.2), ("interpolate", 0.3)):
                said = f"image {way}, text interpolate"
                evals.append(evaluated(f"{name}-ft", 0, value, positions=said))
    return {"runs": make_table(runs, schema.RUNS), "evals": make_table(evals, schema.EVALS),
            "curves": make_table([], schema.CURVES)}  # fmt: skip


def by_cell(pipelines: pd.DataFrame) -> dict[tuple[str, int], dict[str, Any]]:
    names = [str(name) for name in pipelines]
    columns = [pipelines[name].tolist() for name in names]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return {(row["model"], row["pretrain_image_tokens"]): row for row in rows}


def test_drops_are_those_that_the_paper_prints() -> None:
    pipelines = make_pipelines(make_study())
    assert len(pipelines) == 9 and (pipelines["stages"] == "pretrain > finetune").all()
    assert pipelines["finetune_before"].unique().tolist() == [0.3], "of the treatment trained from"
    assert "pretrain_before" not in pipelines
    cells = by_cell(pipelines)
    for cell, drop in DROPS.items():
        assert cells[cell]["drop"] == pytest.approx(drop, abs=0.001)
        assert cells[cell]["full"] == f"{cell[0]}-196-0-ft"
    for cell, (first, second) in TABLE_11.items():
        assert cells[cell]["finetune_accuracy"] == second
        told = cells[cell]["pretrain_accuracy"]
        assert pd.isna(told) if first is None else told == first


def test_costs_are_summed_over_all_stages_and_unknown_where_one_is() -> None:
    found = by_cell(make_pipelines(make_study()))["B/16", 16]
    assert found["pipeline_flops"] == 2 * 160 + 196
    assert (found["pipeline_hours"], found["pipeline_dollars"]) == (5.0, 6.5)
    assert pd.isna(found["pipeline_hours_used"]), "the finetune's are not known"


def test_a_drop_is_within_a_seed_and_needs_equal_settings() -> None:
    tables = make_study(seeds=(0, 3))
    pipelines = make_pipelines(tables)
    for (model, tokens), drop in DROPS.items():
        cell = (pipelines["model"] == model) & (pipelines["pretrain_image_tokens"] == tokens)
        assert pipelines.loc[cell, "drop"].tolist() == pytest.approx([drop] * 2, abs=0.001)
    runs = tables["runs"]
    changed = (runs["image_tokens"] == 16) & (runs["seed"] == 3)
    other = {**tables, "runs": runs.assign(lr=runs["lr"].mask(changed, 2e-3))}
    missing = make_pipelines(other)["drop"].isna()
    assert missing.sum() == 3, "another learning rate is no shorter twin"
    tuned = {**other, "runs": other["runs"].assign(tuned="lr").astype(runs.dtypes)}
    assert not make_pipelines(tuned)["drop"].isna().any(), "but one that tuning chose is"


def test_without_a_longest_pipeline_there_is_no_drop() -> None:
    tables = make_study()
    runs = tables["runs"]
    # As in a grid whose corner of most image and text tokens is missing.
    short = (runs["image_tokens"] == 196) & (runs["stage"] == "pretrain")
    cut = {**tables, "runs": runs.assign(text_tokens=runs["text_tokens"].mask(short, 8))}
    assert make_pipelines(cut)["drop"].isna().all()
    full = runs["run"].str.contains("-196-")
    reason = Exclusion(tuple(runs.loc[full, "run"]), "no (me, 2026-01-01)")
    marked = {**tables, "runs": mark_left_out(runs, [reason])}
    assert make_pipelines(marked)["drop"].isna().all(), "nor from one that is left out"


def test_evaluations_of_a_run_are_no_stage_of_it() -> None:
    tables = make_study()
    judge = {"run": "judge", "kind": "evaluate", "stage": "new", "parent": "S/16-16-0-ft"}
    runs = pd.concat([tables["runs"], make_table([judge], schema.RUNS)], ignore_index=True)
    pd.testing.assert_frame_equal(
        make_pipelines({**tables, "runs": runs}), make_pipelines(tables)
    )  # fmt: skip


def test_chains_have_columns_for_every_stage() -> None:
    tables = make_study()
    parents = tables["runs"][tables["runs"]["stage"] == "finetune"]
    third = parents.assign(run=parents["run"] + "336", parent=parents["run"], stage="ft336")
    runs = pd.concat([tables["runs"], third], ignore_index=True)
    pipelines = make_pipelines({**tables, "runs": runs})
    assert (pipelines["stages"] == "pretrain > finetune > ft336").all()
    columns = schema.pipeline_columns(["pretrain", "finetune", "ft336"], "accuracy")
    assert list(pipelines) == list(columns)
    assert pipelines["ft336_accuracy"].isna().all() and pipelines["drop"].isna().all()
    assert columns["ft336_image_tokens"].label == "Ft336: image tokens"


def test_the_table_is_saved_read_and_removed_with_its_stages(tmp_path: Path) -> None:
    tables = make_study()
    assert has_stages(tables)
    save_tables({**tables, "pipelines": make_pipelines(tables)}, tmp_path)
    read = load_tables(tmp_path)["pipelines"]
    pd.testing.assert_frame_equal(read, make_pipelines(tables))
    text = (tmp_path / "pipelines.csv").read_text()
    assert text.startswith("pipeline,model,seed,stages,state,left_out,set,full,drop,pipeline_flops")
    first = tables["runs"][tables["runs"]["stage"] == "pretrain"]
    assert not has_stages({"runs": first})
    assert save_tables({**tables, "runs": first}, tmp_path)
    assert "pipelines" not in load_tables(tmp_path)


def test_the_terminal_shows_them_side_by_side() -> None:
    tables = make_study()
    buffer = io.StringIO()
    console = Console(file=buffer, width=130, color_system=None)
    print_outcome(console, {**tables, "pipelines": make_pipelines(tables)})
    lines = buffer.getvalue().split("after pretrain / finetune")[1].splitlines()
    rows = [" ".join(line.split()) for line in lines if "→" in line or line.startswith(" 196")]
    assert rows == [
        "196 - / 56.7 0.0 2.16 k - / 64.2 0.0 4.12 k - / 69.2 0.0 6.08 k",
        "49 → 196 50.1 / 54.7 2.0 686 59.0 / 62.9 1.3 1.18 k 65.1 / 68.9 0.3 1.67 k",
        "16 → 196 40.7 / 50.5 6.2 356 51.0 / 59.9 4.3 516 58.3 / 66.2 3.0 676",
    ]
