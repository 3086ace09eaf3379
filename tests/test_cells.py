"""Means and intervals of cells, against numbers worked out beside them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clipa_scaling import schema
from clipa_scaling.cells import CELL, at_the_end, name_lines, summarise_cells
from clipa_scaling.collect import make_table
from clipa_scaling.pipelines import sum_pipelines

N = 400


def make_tables(values: dict[tuple[str, int, int], float], **more: Any) -> dict[str, pd.DataFrame]:
    """Tables of runs at (model, image_tokens, seed) with these accuracies."""
    runs, evals = [], []
    for (model, tokens, seed), value in values.items():
        run = f"{model}-{tokens}-{seed}"
        spec = {"model": model, "image_tokens": tokens, "seed": seed, "samples": 64}
        runs.append({"run": run, "state": "done", **spec, "image_params": 1, **more})
        common = {
            "run": run,
            "set": "s",
            "protocol": "common",
            "name": "accuracy",
            "n": N,
            "fingerprint": "f",
        }
        evals.append({**common, "samples": 64, "value": value})
        evals.append({**common, "samples": 64, "value": 0.99, "protocol": "paper"})
        evals.append({**common, "samples": 64, "value": 0.98, "set": "another"})
    return {"runs": make_table(runs, schema.RUNS), "evals": make_table(evals, schema.EVALS)}


def test_half_widths_add_pooled_seed_noise_and_the_sampling_of_the_evaluation_set() -> None:
    values = {("A", 4, 0): 0.2, ("A", 4, 1): 0.3, ("A", 9, 0): 0.5, ("A", 9, 1): 0.52}
    cells = summarise_cells(make_tables(values)).set_index("image_tokens")
    assert cells["mean"].to_dict() == {4: pytest.approx(0.25), 9: pytest.approx(0.51)}
    seeds = (0.05**2 * 2 + 0.01**2 * 2) / 2 / 2  # pooled over two cells, over two seeds each
    examples = 0.25 * 0.75 / N
    degrees = (seeds + examples) ** 2 * 2 / seeds**2
    wanted = stats.t.ppf(0.975, degrees) * math.sqrt(seeds + examples)
    assert cells.loc[4, "half_width"] == pytest.approx(wanted, rel=1e-12)


def test_pooling_stays_within_a_model() -> None:
    quiet = {("A", 4, 0): 0.2, ("A", 4, 1): 0.2}
    noisy = {("B", 4, 0): 0.2, ("B", 4, 1): 0.8}
    alone = summarise_cells(make_tables(quiet))["half_width"]
    both = summarise_cells(make_tables(quiet | noisy)).set_index("model")["half_width"]
    assert both["A"] == alone[0] < both["B"]


def test_seeds_that_agree_leave_the_sampling_of_the_evaluation_set() -> None:
    cells = summarise_cells(make_tables({("A", 4, 0): 0.2, ("A", 4, 1): 0.2}))
    wanted = stats.norm.ppf(0.975) * math.sqrt(0.2 * 0.8 / N)
    assert cells["half_width"][0] == pytest.approx(wanted, rel=1e-6)


def test_one_seed_everywhere_has_no_interval() -> None:
    cells = summarise_cells(make_tables({("A", 4, 0): 0.2, ("A", 9, 0): 0.4}))
    assert cells["seeds"].tolist() == [1, 1]
    assert cells["half_width"].isna().all()


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Seeds differ, examples are shared: 95 % within four standard errors of 1,000 studies."""
    rng = np.random.default_rng(0)
    studies, truth = 1000, 0.4
    # Each study is a model of its own, since pooling stays within a model.
    values = {
        (f"m{study}", tokens, seed): drawn + float(rng.normal(0, 0.03))
        for study in range(studies)
        for tokens in (4, 9, 16)
        for drawn in [float(rng.binomial(N, truth)) / N]
        for seed in (0, 1)
    }
    cells = summarise_cells(make_tables(values))
    cells = cells[cells["image_tokens"] == 4]
    hits = float(((cells["mean"] - truth).abs() <= cells["half_width"]).mean())
    assert abs(hits - 0.95) < 4 * math.sqrt(0.95 * 0.05 / studies)


def test_the_first_set_and_the_common_protocol_are_taken_unless_told_otherwise() -> None:
    tables = make_tables({("A", 4, 0): 0.2, ("A", 4, 1): 0.3})
    assert summarise_cells(tables)["mean"].tolist() == [pytest.approx(0.25)]
    assert summarise_cells(tables, eval_set="another")["mean"].tolist() == [pytest.approx(0.98)]


def test_the_paper_protocol_serves_where_it_is_alone_and_missing_values_are_no_seeds() -> None:
    tables = make_tables({("A", 4, 0): 0.2, ("A", 4, 1): 0.3})
    evals = tables["evals"]
    only = evals[evals["protocol"] == "paper"]
    assert summarise_cells({**tables, "evals": only})["mean"].tolist() == [pytest.approx(0.99)]
    evals.loc[(evals["run"] == "A-4-1"), "value"] = pd.NA
    assert summarise_cells(tables)["seeds"].tolist() == [1]


def test_runs_that_are_not_done_are_left_out() -> None:
    tables = make_tables({("A", 4, 0): 0.2}, state="stopped")
    cells = summarise_cells(tables)
    assert cells.empty and "half_width" in cells


def test_the_end_is_where_all_samples_are_seen() -> None:
    tables = make_tables({("A", 4, 0): 0.2})
    early = tables["evals"].assign(samples=32, value=0.1).astype(tables["evals"].dtypes)
    tables["evals"] = pd.concat([early, tables["evals"]], ignore_index=True)
    cells = summarise_cells(tables)
    assert cells["evaluated_at"].tolist() == [32, 64]
    assert at_the_end(cells)["mean"].tolist() == [pytest.approx(0.2)]


def make_evaluated(*evaluations: str | None, **more: Any) -> dict[str, pd.DataFrame]:
    """Two seeds of a cell, their evaluations named."""
    tables = make_tables({("A", 4, seed): 0.2 for seed in range(len(evaluations))}, **more)
    named = [name for name in evaluations for _ in range(3)]  # three rows a run
    tables["evals"]["evaluation"] = pd.Series(named, dtype="string")
    return tables


def test_a_change_of_texts_is_refused_and_older_tables_compare_by_fingerprint() -> None:
    assert summarise_cells(make_evaluated(None, None))["seeds"].tolist() == [2]
    with pytest.raises(schema.TableError, match=r"in 2 ways \(evaluation a, b\): its texts, token"):
        summarise_cells(make_evaluated("a", "b"))
    tables = make_evaluated("a", "b")
    tables["runs"]["tokenizer"] = pd.Series(["clip", "wordpiece"], dtype="string")
    assert summarise_cells(tables)["tokenizer"].tolist() == ["clip", "wordpiece"]


def test_what_an_older_version_measured_is_measured_anew_before_it_counts_beside_others() -> None:
    tables = make_evaluated("a", None, "a")
    with pytest.raises(schema.TableError, match=r"kept no evaluation in 1 of 3 runs.*--evaluate"):
        summarise_cells(tables)
    known = tables["evals"]
    again = known[known["evaluation"].isna()].assign(evaluation="a", value=0.5)
    tables["evals"] = pd.concat([known, again.astype(known.dtypes)], ignore_index=True)
    cells = summarise_cells(tables)
    assert cells["seeds"].tolist() == [3]
    assert cells["mean"].tolist() == [pytest.approx((0.2 + 0.5 + 0.2) / 3)]


def test_imported_rows_whose_benchmark_is_said_to_be_ours_stand_beside_our_own() -> None:
    tables = make_evaluated("a", None)
    tables["runs"]["imported"] = pd.Series([None, "t.csv"], dtype="string")
    assert summarise_cells(tables)["seeds"].sum() == 2


def test_one_set_measured_in_two_ways_is_refused() -> None:
    tables = make_tables({("A", 4, 0): 0.2, ("A", 4, 1): 0.3})
    tables["evals"].loc[0, "fingerprint"] = "other"
    with pytest.raises(schema.TableError) as caught:
        summarise_cells(tables)
    assert str(caught.value) == (
        "evals: set=s was measured in 2 ways (fingerprint other, f): its pictures or prompts "
        "changed between runs; give the changed set another name in the sweep file"
    )


def make_stages(**changes: Any) -> pd.DataFrame:
    """Cells of a pretrain stage and its finetune, of two models."""
    values: dict[str, list[object]] = {name: [None] * 4 for name in CELL}
    values |= {
        "model": ["A", "B", "A", "B"],
        "stage": ["pretrain", "pretrain", "finetune", "finetune"],
        "image_tokens": [16, 16, 4, 4],
        "image_reduction": ["random"] * 4,
        "lr": [1.0, 1.0, 0.1, 0.1],
        "before": ["", "", "pretrain", "pretrain"],
        "evaluated_at": [1] * 4,
        **changes,
    }
    return pd.DataFrame(values)


def test_lines_of_several_stages_name_the_stage_and_not_what_follows_from_it() -> None:
    assert name_lines(make_stages()).tolist() == [
        "A, pretrain", "B, pretrain", "A, finetune", "B, finetune",
    ]  # fmt: skip
    named = name_lines(make_stages(text_tokens=[8, 8, 8, 4])).tolist()
    assert named[2:] == ["A, finetune, text_tokens=8", "B, finetune, text_tokens=4"]


def test_where_many_fields_differ_only_the_unusual_ones_are_named() -> None:
    differ = ("weight_decay", "beta1", "beta2", "epsilon", "grad_clip")
    cells = make_stages(
        stage=["pretrain"] * 4, lr=[1.0] * 4, **{name: [1, 1, 1, 2] for name in differ}
    )
    assert name_lines(cells).tolist()[:3] == ["A", "B", "A"]
    assert name_lines(cells).tolist()[3].count("=2") == 5


def test_a_pipeline_costs_its_whole_ancestry() -> None:
    runs = pd.DataFrame(
        {
            "run": ["a", "b", "c", "d", None],
            "parent": ["", "a", "b", "gone", ""],
            "stage": ["pretrain", "first", "second", "first", "pretrain"],
            "train_flops": [1.0, 2.0, 4.0, 8.0, 16.0],
            "gpu_hours": [10.0, 20.0, 40.0, 80.0, 160.0],
            "gpu_hours_used": [0.5, 0.25, 0.125, 1.0, 1.0],
            "dollars": [1.0, 1.0, math.nan, 1.0, 1.0],
            "kind": ["pretrain", "finetune", "finetune", "finetune", "pretrain"],
            "samples": [10] * 5,
            "decay_samples": [0] * 5,
        }
    )
    pipelines = sum_pipelines({"runs": runs}).set_index("run")
    assert pipelines.index.tolist() == ["c", "d"], "leaves alone"
    assert (pipelines.at["c", "pipeline_flops"], pipelines.at["c", "pipeline_hours"]) == (7, 70)
    assert pipelines.at["c", "pipeline_hours_used"] == 0.875
    assert pipelines["pipeline_dollars"].isna().all(), "of one stage unknown"
    assert pipelines["pipeline_flops"].isna().tolist() == [False, True], (
        "an ancestor is not in the table"
    )
    tried = runs.assign(stage=["pretrain", "first", "tune", "first", "pretrain"])
    left = sum_pipelines({"runs": tried})["run"].tolist()
    assert left == ["d"], "a run that tunes a field is nobody's pipeline"
    branch = runs[:2].assign(kind="decay", samples=[40, 20], decay_samples=[0, 4])
    of_trunk = sum_pipelines({"runs": branch})["pipeline_flops"].tolist()
    assert of_trunk == [2 + 16 / 40], "of its trunk, what was before the branch"


def test_children_of_different_parents_are_no_seeds_of_one_cell() -> None:
    tables = make_tables({("A", 4, 0): 0.2, ("A", 9, 0): 0.4})
    parents = tables["runs"].assign(stage="pretrain", parent="")
    children = parents.assign(
        run="child of " + parents["run"], parent=parents["run"], stage="finetune", image_tokens=16
    )
    evals = tables["evals"].assign(run="child of " + tables["evals"]["run"])
    both = {
        "runs": pd.concat([parents, children], ignore_index=True),
        "evals": pd.concat([tables["evals"], evals], ignore_index=True),
    }
    cells = summarise_cells(both)
    tuned = cells[cells["stage"] == "finetune"]
    assert tuned["mean"].tolist() == [pytest.approx(0.2), pytest.approx(0.4)]
    assert tuned["seeds"].tolist() == [1, 1]
    assert name_lines(cells).tolist()[2:] == [
        "A, finetune after pretrain image_tokens=4",
        "A, finetune after pretrain image_tokens=9",
    ]
