"""Evaluation at full size: the model of that size with the same weights, and no trace left."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import pytest
import torch
from eval_sets import REAL, real_set
from small_sweep import SMALL, run_sweep, write_small

from clipa_scaling import schema
from clipa_scaling.benchmark_json import main as write_benchmark
from clipa_scaling.cells import summarise_cells
from clipa_scaling.collect import collect, evaluated_otherwise, load_tables
from clipa_scaling.models import load_model
from clipa_scaling.plan import make_plan
from clipa_scaling.resolve import resolve
from clipa_scaling.rundir import read_json, write_json
from clipa_scaling.spec import EvalSet, EvalSize, SpecError
from clipa_scaling.sweepfile import load_sweep
from clipa_scaling.train.evaluate import Evaluator
from clipa_scaling.train.features import StopRequested, encode_images, setting_of
from clipa_scaling.train.fit_weights import fit_weights
from clipa_scaling.train.full_size import FullSize, full_size_of
from clipa_scaling.train.model import Build, make_model
from clipa_scaling.train.packed import Pack
from clipa_scaling.yamlfile import SweepError

SMALL_PX, FULL_PX = 16, 40
SINCOS = Build(image_position="sincos", image_pool="mean")
BOTH: tuple[EvalSize, ...] = ("training", "full")


def make(px: int, build: Build, seed: int, name: str = "T32/8") -> open_clip.CLIP:
    return make_model(load_model(name), px, REAL.text_tokens, 49_408, seed, build).eval()


def measure(
    model: open_clip.CLIP, item: EvalSet, **setting: Any
) -> dict[str, list[dict[str, Any]]]:
    """The rows of a set by their size, without what says so."""
    rows = Evaluator((item,), replace(REAL, **setting)).evaluate(model, 64)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row.pop("size"), []).append(row)
    return found


def as_built(model: open_clip.CLIP, build: Build, change: str, seed: int) -> open_clip.CLIP:
    """A model built at full size, with this one's weights as a child would take them."""
    full = make(FULL_PX, build, seed)
    fit_weights(full, model.state_dict(), "small", image_change=change)
    return full


@pytest.mark.parametrize(
    ("build", "change"),
    [
        (SINCOS, "recompute"),
        (Build(), "interpolate"),
        (Build(image_pool="mean_with_cls"), "interpolate"),
        (Build(), "extend"),
    ],
)
@pytest.mark.parametrize("task", ["classify", "retrieve"])
def test_full_size_is_the_model_built_at_that_size(
    tmp_path: Path, build: Build, change: str, task: Any
) -> None:
    model, item = make(SMALL_PX, build, seed=3), real_set(tmp_path, task)
    full = as_built(model, build, change, seed=5)
    if change == "recompute":  # the codes are those of the grid, whatever the loading did
        assert torch.equal(
            full.visual.positional_embedding, make(FULL_PX, build, 7).visual.positional_embedding
        )
    fresh = partial(lambda: make(FULL_PX, build, 5).visual.positional_embedding.detach())
    both = measure(model, item, sizes=BOTH, full=FullSize(FULL_PX, change, fresh))
    assert both["full"] == measure(full, item, image_size=FULL_PX)["training"]
    assert both["training"] == measure(model, item)["training"]
    assert {row["eval_image_tokens"] for row in both["training"]} == {4}
    assert {row["eval_image_tokens"] for row in both["full"]} == {25}
    assert {row["evaluation"] for rows in both.values() for row in rows} == {
        both["full"][0]["evaluation"]
    }
    pack, setting = Pack.open(Path(item.pack)), replace(REAL, full=FullSize(FULL_PX, change, fresh))
    with torch.no_grad():
        got, _ = encode_images(model, pack, setting, "full")
        want, _ = encode_images(full, pack, replace(REAL, image_size=FULL_PX))
    assert torch.equal(got, want) and not torch.equal(got[0], got[1])


def test_a_convnext_has_no_table_and_sees_larger_pictures(tmp_path: Path) -> None:
    model, full = (make(px, Build(), 3, "ConvNeXt-A/16") for px in (32, 64))
    full.load_state_dict(model.state_dict())
    item = real_set(tmp_path, "retrieve")
    both = measure(model, item, image_size=32, sizes=BOTH, full=FullSize(64))
    assert both["full"] == measure(full, item, image_size=64)["training"]
    assert [both[size][0]["eval_image_tokens"] for size in BOTH] == [4, 16]


@pytest.mark.parametrize("stop", [False, True])
def test_the_model_stays_what_it_was(tmp_path: Path, stop: bool) -> None:
    model, item = make(SMALL_PX, Build(), seed=3).train(), real_set(tmp_path, "retrieve")
    before, same = copy.deepcopy(model.state_dict()), dict(model.named_parameters())
    looks = iter([False] * 5 + [stop] + [False] * 1_000)  # the sixth is at full size
    setting = replace(REAL, sizes=BOTH, full=FullSize(FULL_PX), should_stop=lambda: next(looks))
    try:
        Evaluator((item,), setting).evaluate(model, 0)
        assert not stop
    except StopRequested:
        assert stop
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    now = dict(model.named_parameters())
    assert now.keys() == same.keys() and all(now[name] is same[name] for name in same)
    assert model.training and all(value.grad is None for value in same.values())
    assert not model.visual._forward_pre_hooks and model.visual.image_size == (16, 16)


def spec_of(**changes: Any) -> Any:
    values = {"model": "T32/8", "image_tokens": 4, "samples": 64, "batch_size": 32, "lr": 1e-3}
    values |= {"data_fingerprint": "f", "store_px": 40, "eval_sizes": BOTH, "full_px": 40}
    return resolve(values | changes)


def test_a_specs_full_size() -> None:
    assert (spec_of().measured_sizes, spec_of().full_image_tokens) == (BOTH, 25)
    masked = {"image_reduction": "random", "image_size": 40, "image_tokens": 5}
    assert spec_of(**masked).measured_sizes == ("training",)
    assert spec_of(**masked, eval_sizes=("full",)).measured_sizes == ("full",)
    assert spec_of(**{**masked, "image_size": 32}).measured_sizes == BOTH
    never: Callable[[], bool] = lambda: False  # noqa: E731
    setting = setting_of(spec_of(), torch.device("cpu"), never)
    assert (setting.sizes, setting.image_size) == (BOTH, 16)
    assert setting.full is not None and (setting.full.px, setting.full.change) == (
        40,
        "interpolate",
    )
    assert full_size_of(spec_of(image_position="sincos")).change == "recompute"
    child = {"parent": "p", "kind": "finetune", "image_position_change": "extend"}
    assert full_size_of(spec_of(**child)).change == "extend"
    fresh = full_size_of(spec_of(**child, seed=5)).fresh
    want = make_model(load_model("T32/8"), 40, 32, 49_408, 5).visual.positional_embedding
    assert fresh is not None and torch.equal(fresh(), want) and fresh() is fresh()
    with pytest.raises(SpecError, match="full_px=36 is no multiple of patch 8 of T32/8; nearest"):
        spec_of(full_px=36)
    assert spec_of(full_px=36, eval_sizes=("training",)).full_px == 36
    convnext = {"model": "ConvNeXt-A/16", "image_tokens": 4}
    with pytest.raises(SpecError, match="full_px=16 is a grid that ConvNeXt-A/16 cannot halve; ne"):
        spec_of(**convnext, full_px=16)
    assert spec_of(**convnext, full_px=32).full_image_tokens == 4


# From a sweep file to the tables

STUDY = (
    SMALL.replace("samples: 1_024", "samples: 128")
    .replace("pairs: 5_000", "pairs: 200")
    .replace("pairs: 400", "pairs: 40")
    .replace("pairs: 150", "pairs: 40")
    .replace("eval_every_samples: 512", "eval_every_samples: 0")
    + "evaluate: {size: [training, full], full_px: 32}\n"
)


def test_a_patch_that_does_not_divide_and_enlarged_pictures_are_said(tmp_path: Path) -> None:
    sweep = write_small(tmp_path, STUDY.replace("full_px: 32", "full_px: 33"))
    with pytest.raises(SweepError, match=r"small.yaml:\d+: evaluate.full_px: full_px=33 is no mul"):
        load_sweep(sweep, tmp_path)
    plan = make_plan(load_sweep(write_small(tmp_path, STUDY), tmp_path), tmp_path)
    enlarged = "full_px=32 is above store_px=16: evaluation at full size enlarges pictures"
    assert [said for said in plan.warnings if "full_px" in said] == [enlarged]
    for name in ("a/b", "a b", '""'):
        sweep = write_small(tmp_path, STUDY.replace("    scenes:", f"    {name}:"))
        with pytest.raises(SweepError, match="is no name of a set; allowed: letters, digits, _"):
            load_sweep(sweep, tmp_path)
    plain = make_plan(load_sweep(write_small(tmp_path, SMALL), tmp_path), tmp_path)
    assert not any("full_px" in said for said in plain.warnings)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sweep = write_small(tmp_path_factory.mktemp("sizes"), STUDY)
    done = run_sweep(sweep, "--cluster", "inline")
    assert done.returncode == 0, done.stdout + done.stderr
    return sweep


def test_rows_of_both_sizes_reach_the_tables(study: Path) -> None:
    tables = load_tables(study.parent / "results" / "small")
    evals = tables["evals"].merge(tables["runs"][["run", "image_reduction"]])
    found = evals.groupby(["image_reduction", "size"])["eval_image_tokens"].unique()
    assert {key: list(tokens) for key, tokens in found.items()} == {
        ("resize", "training"): [4],
        ("resize", "full"): [16],
        ("random", "training"): [16],
    }
    runs = tables["runs"].set_index("image_reduction")
    assert runs["eval_image_tokens"].to_dict() == {"resize": 4, "random": 16}
    assert (evals.groupby("set")["evaluation"].nunique() == 1).all()


def test_a_summary_is_of_one_size(study: Path) -> None:
    tables = load_tables(study.parent / "results" / "small")
    values = tables["evals"][tables["evals"]["name"] == "accuracy"].set_index(["run", "size"])
    run_of = tables["runs"].set_index("image_reduction")["run"]
    for size in BOTH:
        cells = summarise_cells(tables, "accuracy", size=size).set_index("image_reduction")
        assert cells["seeds"].tolist() == [1, 1]
        assert cells.loc["resize", "mean"] == values.loc[(run_of["resize"], size), "value"]
        assert cells.loc["random", "mean"] == values.loc[(run_of["random"], "training"), "value"]
    pd.testing.assert_frame_equal(
        summarise_cells(tables, "accuracy"), summarise_cells(tables, "accuracy", size="training")
    )
    other = tables["evals"]["eval_image_tokens"].mask(tables["evals"]["size"] == "full", 25)
    mixed = pd.concat(
        [tables["evals"], tables["evals"].assign(eval_image_tokens=other)], ignore_index=True
    )
    with pytest.raises(schema.TableError, match="full sizes of 32, 40 px, which no curve can mix"):
        summarise_cells({**tables, "evals": mixed}, "accuracy", size="full")


def test_tokens_other_than_declared_are_refused_at_either_size(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study.parent, tmp_path / "copy")
    runs = tmp_path / "copy" / "runs"
    plan = make_plan(load_sweep(tmp_path / "copy" / study.name, runs / ".packs"), runs)
    run = next(row.planned for row in plan.rows if row.planned.spec.image_reduction == "resize")
    path = runs / run.id / "evals.json"
    rows = read_json(path)["rows"]
    assert evaluated_otherwise(plan, collect(plan, runs)) == 0
    for size, said in (("training", "remove it"), ("full", "set evaluate.full_px as it was")):
        spoilt = [row | {"eval_image_tokens": 9} if row["size"] == size else row for row in rows]
        write_json(path, {"rows": spoilt})
        with pytest.raises(schema.TableError, match=said):
            collect(plan, runs)
    write_json(path, {"rows": rows})
    (tmp_path / "copy" / study.name).write_text(STUDY.replace("full_px: 32", "full_px: 40"))
    changed = make_plan(load_sweep(tmp_path / "copy" / study.name, runs / ".packs"), runs)
    assert [row.state.name for row in changed.rows] == ["done", "done"]
    assert evaluated_otherwise(changed, collect(changed, runs)) == 2


def test_the_benchmarks_shape(study: Path, tmp_path: Path) -> None:
    folder = study.parent / "results" / "small"
    assert write_benchmark([str(folder), str(tmp_path / "out")]) == 0
    tables = load_tables(folder)
    run = str(tables["runs"].set_index("image_reduction")["run"]["resize"])
    values = tables["evals"][tables["evals"]["run"] == run]
    assert len(list((tmp_path / "out").iterdir())) == 2 * 3
    for name, size in (("scenes", "training"), ("scenes", "full"), ("held_out", "full")):
        found = read_json(tmp_path / "out" / f"{run}_{name}_common_{size}.json")
        chosen = values[(values["set"] == name) & (values["size"] == size)]
        of = chosen.set_index("name")["value"]
        metrics = {"acc1": "accuracy", "acc5": "accuracy_top5"}
        metrics |= {"mean_per_class_recall": "accuracy_per_class"}
        if name == "held_out":  # which is found: images by a text
            metrics = {f"image_retrieval_recall@{k}": f"text_to_image_r{k}" for k in (1, 5, 10)}
            metrics |= {f"text_retrieval_recall@{k}": f"image_to_text_r{k}" for k in (1, 5, 10)}
        task = "classification" if name == "scenes" else "retrieval"
        assert found == {
            "dataset": name,
            "model": "T32/8",
            "pretrained": run if size == "training" else f"{run} full",
            "task": f"zeroshot_{task}",
            "metrics": {theirs: of[ours] for theirs, ours in metrics.items()},
            "language": "en",
        }
    assert write_benchmark([str(tmp_path / "none"), str(tmp_path / "out")]) == 2
