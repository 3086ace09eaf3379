"""Plans: states from the folders, totals, warnings, and no finished run redone unawares."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from small_sweep import SMALL, run_sweep, write_small

from clipa_scaling import sweep as command_line
from clipa_scaling.keptplan import is_saved, save_plan
from clipa_scaling.plan import Plan, make_plan, over_budget, plan_to_json
from clipa_scaling.refuse import refuse
from clipa_scaling.show import print_plan
from clipa_scaling.spec import RunSpec
from clipa_scaling.sweepfile import load_sweep
from clipa_scaling.yamlfile import SweepError


def plan_of(sweep: Path) -> Plan:
    runs = sweep.parent / "runs"
    return make_plan(load_sweep(sweep, runs / ".packs"), runs)


STAGES = """\
stages:
  longer:
    kind: finetune
    parent: pretrain
    axes: {image_tokens: [{parent: 2.25}]}
    set: {image_reduction: resize, samples: 128, warmup_samples: 0}
"""


def test_totals_are_sums_over_all_and_over_what_is_left(small_study: Path) -> None:
    plan = plan_of(small_study)
    assert [row.state.name for row in plan.rows] == ["done", "done"]
    assert plan.left == []
    hours = [row.cost.gpu_hours for row in plan.rows]
    assert plan.total("gpu_hours") == pytest.approx(sum(hours))
    assert plan.total("gpu_hours", plan.left) == 0
    assert math.isnan(plan.total("dollars")), "no price, no dollars"


def test_children_wait_for_their_parent(tmp_path: Path) -> None:
    plan = plan_of(write_small(tmp_path, SMALL + STAGES))
    states = [(row.planned.spec.stage, row.state.name) for row in plan.rows]
    assert states == [("pretrain", "planned")] * 2 + [("longer", "blocked")] * 2
    parents = [row.planned.spec.parent for row in plan.rows[2:]]
    assert parents == [row.planned.id for row in plan.rows[:2]]
    assert [row.planned.spec.image_tokens for row in plan.rows[2:]] == [9, 9]


def test_excluding_the_full_length_warns(tmp_path: Path) -> None:
    text = SMALL + 'exclude: [{when: {image_reduction: random}, because: "too dear"}]\n'
    [warning] = [w for w in plan_of(write_small(tmp_path, text)).warnings if "compared" in w]
    assert warning == ("T32/8 at image_tokens=5 is excluded: the cell others are compared with")


def test_a_rule_that_never_holds_warns_with_its_line(tmp_path: Path) -> None:
    text = SMALL + 'exclude: [{when: {image_tokens: 6}, because: "a slip of the pen"}]\n'
    sweep = write_small(tmp_path, text)
    assert f"{sweep}:27: exclude.0: holds for no cell" in plan_of(sweep).warnings


def test_what_the_file_may_not_have_meant_warns(tmp_path: Path) -> None:
    text = SMALL.replace("samples: 1_024", "samples: 1_000").replace("gpu: cpu-core", "")
    text = text.replace("axes:\n", "axes:\n  lr: [1e-3, 2e-3]\n")
    sweep = write_small(tmp_path, text)
    warnings = plan_of(sweep).warnings
    assert f"{sweep}:14: fixed.lr: is overridden by axes.lr" in warnings
    assert f"{sweep}: resources.gpu is not set; priced on a100-80gb" in warnings
    assert "samples=1,000 is rounded up to 1,024, whole steps" in warnings


def test_crops_that_must_be_enlarged_and_runs_that_may_not_fit_warn(tmp_path: Path) -> None:
    text = SMALL.replace("model: T32/8", "model: G/8").replace("gpu: cpu-core", "gpu: rtx4090-24gb")
    said = " | ".join(plan_of(write_small(tmp_path, text)).warnings)
    assert (
        "2 runs may not fit rtx4090-24gb" in said and "raise gpus or set grad_checkpointing" in said
    )
    assert "store_px=16 is small for image_size=32: some crops are enlarged" in said


def test_json_has_every_cell_with_spec_cost_and_state(small_study: Path) -> None:
    value = json.loads(json.dumps(plan_to_json(plan_of(small_study)), allow_nan=False))
    [first, _] = value["cells"]
    assert first["state"] == "done" and first["samples_done"] == 1_024
    assert first["spec"]["image_tokens"] == 4 and first["cost"]["dollars"] is None
    names = {item.name for item in fields(RunSpec) if item.metadata.get("identity", True)}
    assert names <= set(first["spec"])


def test_a_budget_counts_only_what_is_left(small_study: Path, tmp_path: Path) -> None:
    shutil.copytree(small_study.parent, tmp_path / "copy")
    sweep = write_small(tmp_path / "copy", SMALL + "budget: {gpu_hours: 1e-9}\n")
    assert over_budget(plan_of(sweep)) is None
    sweep = write_small(tmp_path / "copy", SMALL + "budget: {gpu_hours: 1e-9}\nseeds: [0, 1]\n")
    excess = over_budget(plan_of(sweep))
    assert excess is not None and "the runs left, 2, need" in excess


def test_finished_runs_are_not_redone_because_of_a_changed_default(
    small_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default changes underneath: the file asks the same, the ids are new."""
    shutil.copytree(small_study.parent, tmp_path / "copy")
    sweep = tmp_path / "copy" / small_study.name
    old = plan_of(sweep)
    assert is_saved(plan_of(small_study), small_study.parent / "runs")
    monkeypatch.setattr(RunSpec.__init__, "__kwdefaults__", changed_defaults(weight_decay=0.1))
    new = plan_of(sweep)
    assert [row.state.name for row in new.rows] == ["planned", "planned"]
    assert not is_saved(new, sweep.parent / "runs")
    places = ["--runs", str(sweep.parent / "runs"), "--results", str(sweep.parent / "results")]
    with pytest.raises(SweepError) as caught:
        refuse(new, sweep.parent / "runs", accept_changed=False)
    assert str(caught.value) == (
        f"{sweep}: {new.rows[0].planned.id} would redo the finished {old.rows[0].planned.id}, "
        "though the file asks the same; changed: weight_decay: 0.2 -> 0.1; set the old value, or "
        "pass --accept-changed"
    )
    assert command_line.main([str(sweep), *places]) == 2
    refuse(new, sweep.parent / "runs", accept_changed=True)


def changed_defaults(**changes: object) -> dict[str, object]:
    """RunSpec's defaults, some of them changed."""
    return {**(RunSpec.__init__.__kwdefaults__ or {}), **changes}


def test_new_data_in_the_file_is_no_changed_default(small_study: Path, tmp_path: Path) -> None:
    shutil.copytree(small_study.parent, tmp_path / "copy")
    text = SMALL.replace("pairs: 5_000", "pairs: 5_001")
    sweep = write_small(tmp_path / "copy", text)
    plan = plan_of(sweep)
    assert [row.state.name for row in plan.rows] == ["planned", "planned"]
    refuse(plan, sweep.parent / "runs", accept_changed=False)


def test_a_saved_plan_is_known_again(tmp_path: Path) -> None:
    plan = plan_of(write_small(tmp_path, SMALL + STAGES))
    save_plan(plan, tmp_path / "runs")
    assert is_saved(plan, tmp_path / "runs")
    other = plan_of(write_small(tmp_path, SMALL))
    assert not is_saved(other, tmp_path / "runs")


def test_the_printed_plan_shows_cells_totals_reasons_and_assumptions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    text = SMALL + 'exclude: [{when: {seed: 1}, because: "one is enough"}]\nseeds: [0, 1]\n'
    print_plan(Console(width=130), plan_of(write_small(tmp_path, text)))
    said = capsys.readouterr().out
    for words in (
        "small: 2 runs",
        "pretrain-T32-8-i4-t8-1.02K-s0-",
        "total: 2 runs",
        "left to do: 2 runs",
        "image_reduction=resize, seed=1: one is enough",
        "GPU-hours on cpu-core at 50% utilisation (assumed)",
        "Checkpoints kept at the end (weights): ",
    ):
        assert words in said, words


def test_a_failed_run_is_run_again_only_when_asked(tmp_path: Path) -> None:
    """The rate is so high that the loss is no number before long."""
    text = SMALL.replace("lr: 1e-3", "lr: 1e30").replace("[resize, random]", "[resize]")
    sweep = write_small(tmp_path, text)
    first = run_sweep(sweep)
    assert first.returncode == 1
    assert "diverged pretrain-" in first.stdout and "lower lr, or lengthen" in first.stdout
    again = run_sweep(sweep)
    assert again.returncode == 1 and again.stdout.startswith("nothing to do: 1 diverged.")
    assert "To run failed runs again: --retry failed" in again.stdout
    retried = run_sweep(sweep, "--retry", "failed")
    assert retried.returncode == 1
    [run] = (tmp_path / "runs").glob("pretrain-*")
    assert {path.name for path in (run / "attempts").iterdir()} == {"1", "2"}
