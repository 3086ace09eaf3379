"""Before the first step: each treatment of positions measured, starts as planned, streams apart."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from single_run import outcome_of, pack_scenes, plan_run, weights_of
from small_sweep import SMALL, run_sweep, write_small

from clipa_scaling.cells import summarise_cells
from clipa_scaling.collect import load_tables
from clipa_scaling.plan import make_plan
from clipa_scaling.rundir import DONE, FAILED, STOPPED, RunDir, read_json, read_jsonl, read_state
from clipa_scaling.spec import spec_from_json
from clipa_scaling.sweepfile import load_sweep
from clipa_scaling.train.begin import find_origin, stream_key
from clipa_scaling.train.evaluate import Evaluator
from clipa_scaling.train.loop import work
from clipa_scaling.train.positions import IMAGE_TABLE, TEXT_TABLE
from clipa_scaling.train.stopping import StopFlag
from clipa_scaling.train.trainer import Trainer
from clipa_scaling.train.world import World

CHILD: dict[str, Any] = {"kind": "finetune", "parent": "parent", "samples": 64, "lr": 1e-4}
LONGER: dict[str, Any] = {"image_tokens": 9, "text_tokens": 12}
SINCOS = {"image_position": "sincos", "image_position_change": "recompute"}

Plan = Callable[..., RunDir]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Plans a run by name, beside its parent, with an evaluation set."""
    folder = tmp_path_factory.mktemp("runs")
    train, test = pack_scenes(folder / "pack", 300, 0), pack_scenes(folder / "test", 64, 1)
    return lambda name, **changes: plan_run(folder / name, train, test, **changes)


@pytest.fixture(scope="module")
def parent(plan: Plan) -> RunDir:
    return finish(plan("parent", samples=256))


def finish(run: RunDir) -> RunDir:
    assert work(run) == (DONE, None), read_state(run).reason
    return run


def positions_of(run: RunDir) -> list[str]:
    """The treatments in the table, each once, all their rows at sample 0 and complete."""
    values = read_json(run.evals)
    assert values is not None
    rows = [row for row in values["rows"] if row.get("positions")]
    assert all(row["samples"] == 0 for row in rows)
    treated = [row["positions"] for row in rows]
    measures = {row["name"] for row in values["rows"]}
    assert len(set(zip(treated, (row["name"] for row in rows), strict=True))) == len(rows)
    assert len(rows) == len(measures) * len(set(treated))
    return list(dict.fromkeys(treated))


def test_every_treatment_of_learned_positions_is_measured(plan: Plan, parent: RunDir) -> None:
    both = plan("both", **CHILD | LONGER)
    assert positions_of(finish(both)) == [
        f"image {image}, text {text}"
        for image in ("interpolate", "extend")
        for text in ("interpolate", "extend")
    ]
    image = plan("image", **CHILD, image_tokens=9)
    assert positions_of(finish(image)) == [
        "image interpolate, text interpolate", "image extend, text interpolate",
    ]  # fmt: skip
    assert positions_of(finish(plan("same", **CHILD))) == []


def test_fixed_codes_are_interpolated_or_those_of_the_new_grid(plan: Plan) -> None:
    finish(plan("codes", samples=64, **SINCOS))
    child = CHILD | SINCOS | {"parent": "codes", "image_tokens": 9}
    assert positions_of(finish(plan("recoded", **child))) == [
        "image interpolate, text interpolate", "image recompute, text interpolate",
    ]  # fmt: skip


@pytest.mark.parametrize("at", [1, 3])
def test_a_stop_amid_the_treatments_leaves_the_chosen_weights(
    at: int, plan: Plan, parent: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped under another treatment than the chosen one; nothing is written twice."""
    chosen = CHILD | LONGER | {"image_position_change": "extend"}
    whole, stopped = finish(plan(f"whole{at}", **chosen)), plan(f"stopped{at}", **chosen)
    calls = []

    def evaluate_and_signal(self: Evaluator, *given: Any) -> Any:
        calls.append(given)
        if len(calls) == at:
            signal.raise_signal(signal.SIGUSR2)
        return evaluate(self, *given)

    evaluate = Evaluator.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "evaluate", evaluate_and_signal)
        assert work(stopped) == (STOPPED, signal.SIGUSR2)
    assert len(calls) == at and read_state(stopped).samples == 0
    begun, theirs = weights_of(stopped), weights_of(parent)
    assert torch.equal(begun[TEXT_TABLE], trained_from(whole)[TEXT_TABLE])
    assert torch.equal(begun[IMAGE_TABLE], trained_from(whole)[IMAGE_TABLE])
    assert torch.equal(begun[IMAGE_TABLE][0], theirs[IMAGE_TABLE][0])
    assert len(positions_of(finish(stopped))) == 4
    assert outcome_of(stopped) == outcome_of(whole)


def trained_from(run: RunDir) -> dict[str, torch.Tensor]:
    """The weights that a run's first step starts from, when no treatment is measured."""
    spec = spec_from_json(read_json(run.spec))
    begun = Trainer(spec, run, 1, StopFlag(), World(torch.device("cpu")))
    begun.origin = find_origin(spec, run, begun.model)
    assert begun.origin is not None
    begun.origin.load(begun.model)
    return dict(begun.model.state_dict())


def test_a_child_sees_another_stream_than_its_parent(plan: Plan, parent: RunDir) -> None:
    child = plan("other", **CHILD)
    firsts = []
    for run in (parent, child):
        spec = spec_from_json(read_json(run.spec))
        stepper = Trainer(spec, run, 1, StopFlag(), World(torch.device("cpu"))).stepper
        assert stepper.seed == stream_key(spec, run)
        firsts.append(stepper.batches.at(0).text_BT)
    first, other = ({tuple(text) for text in batch.tolist()} for batch in firsts)
    assert first != other, "other pictures, not the same in another order"


def test_a_changed_file_of_first_weights_is_refused_with_both_fingerprints(
    plan: Plan, parent: RunDir, tmp_path: Path
) -> None:
    from clipa_scaling.weights import fingerprint_starts, fingerprint_weights

    save_file(weights_of(parent), tmp_path / "first.safetensors")
    start = str(tmp_path / "first.safetensors")
    planned = fingerprint_weights(start)
    starts = {"image_start": start, "text_start": start, "kind": "finetune"}
    prints = {"start_fingerprint": fingerprint_starts(start, start)}
    good = plan("good", samples=64, **starts, **prints)
    assert positions_of(finish(good)) == ["as they were"], "a release's own answers"
    first, fresh = read_jsonl(good.metrics)[0]["loss"], read_jsonl(parent.metrics)[0]["loss"]
    assert first < fresh - 0.02, "not the loss of fresh weights"

    weights = load_file(start)
    weights[TEXT_TABLE][0, 0] += 1
    save_file(weights, start)
    now = fingerprint_weights(start)
    bad = plan("bad", samples=64, **starts, **prints)
    assert work(bad) == (FAILED, None)
    reason = read_state(bad).reason
    assert planned in reason and now in reason and "\n" not in reason


FIRST = SMALL.replace("fixed:\n", "fixed:\n  image_start: {0}\n  text_start: {0}\n")


def ids_of(folder: Path, start: str) -> tuple[list[str], set[str], list[str]]:
    sweep = write_small(folder, FIRST.replace("{0}", start))
    rows = make_plan(load_sweep(sweep, folder / "packs"), folder / "runs")
    runs = [row.planned for row in rows.rows]
    return [run.id for run in runs], {run.spec.kind for run in runs}, list(rows.warnings)


def test_a_runs_id_depends_on_its_first_weights_not_on_where_they_lie(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "one.safetensors")
    shutil.copy(tmp_path / "one.safetensors", tmp_path / "two.safetensors")
    first = ids_of(tmp_path / "here", "../one.safetensors")
    again = ids_of(tmp_path / "there", str(tmp_path / "two.safetensors"))
    assert first == again and first[1] == {"finetune"}
    save_file({"a": torch.ones(3)}, tmp_path / "one.safetensors")
    assert not {*ids_of(tmp_path / "here", "../one.safetensors")[0]} & {*first[0]}


def test_first_weights_that_are_absent_can_be_planned_and_not_launched(tmp_path: Path) -> None:
    _, _, warnings = ids_of(tmp_path, "none.safetensors")
    [said] = [line for line in warnings if line.startswith("data missing: ")]
    assert "small.yaml:" in said and "none.safetensors: no such file" in said
    done = run_sweep(tmp_path / "small.yaml", seconds=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "none.safetensors: no such file; allowed: " in done.stderr


CHAIN = """\
name: chain
data:
  train: scenes
  pairs: 1_000
  store_px: 48
  evals:
    held_out: {path: scenes, task: retrieve, pairs: 64, seed: 2}
fixed:
  model: T32/8
  image_tokens: 4
  samples: 256
  batch_size: 64
  lr: 2e-3
  text_tokens: 8
  crop_min_area: 1.0
  precision: fp32
  log_every_samples: 64
stages:
  mid:
    kind: finetune
    parent: pretrain
    set: {image_tokens: 16, samples: 192, lr: 5e-4}
  late:
    kind: finetune
    parent: mid
    set: {image_tokens: 36, samples: 64, lr: 5e-4}
resources: {gpu: cpu-core}
"""


@pytest.mark.slow
def test_a_chain_of_lengths_runs_and_its_cells_leave_out_the_treatments(tmp_path: Path) -> None:
    sweep = write_small(tmp_path, CHAIN)
    done = run_sweep(sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    tables = load_tables(tmp_path / "results/chain")
    runs = tables["runs"].set_index("stage")
    assert runs.loc[["pretrain", "mid", "late"], "image_size"].tolist() == [16, 32, 48]
    before = tables["evals"][tables["evals"]["positions"].notna()]
    assert set(before["run"]) == {runs.loc["mid", "run"], runs.loc["late", "run"]}
    cells = summarise_cells(tables)
    assert len(cells) == 3 and (cells["evaluated_at"] > 0).all()
