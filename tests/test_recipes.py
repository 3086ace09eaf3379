"""Objectives and reductions of the papers, each through a sweep file, from its data to its rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from small_sweep import run_sweep, write_small

from clipa_scaling import sweep as command_line
from clipa_scaling.cells import at_the_end, summarise_cells
from clipa_scaling.collect import load_tables
from clipa_scaling.pipelines import sum_pipelines
from clipa_scaling.rundir import read_json, read_jsonl
from clipa_scaling.sweepfile import load_sweep

HEAD = """\
name: small
data:
  train: scenes
  pairs: 1_000
  store_px: 32
  labelled: {path: scenes, pairs: 1_000, seed: 3, prompts: ["a {}"]}
  evals:
    scenes: {path: scenes, task: classify, pairs: 64, seed: 1, prompts: ["a {}"]}
fixed:
  model: T32/8
  image_tokens: 16
  samples: 320
  batch_size: 64
  lr: 2e-3
  text_tokens: 12
  crop_min_area: 1.0
  precision: fp32
  log_every_samples: 64
resources: {gpu: cpu-core}
"""
CLASSIFY = """\
stages:
  labels:
    kind: finetune
    parent: pretrain
    set: {objective: classify, image_tokens: 4, text_tokens: 6, schedule: constant}
"""
OF_RESIZED = """\
    exclude: [{when: {image_reduction: [grid, block]}, because: labels for the resized alone}]
"""
MASKS = """\
axes:
  image_reduction: [grid, block]
  text_reduction: [syntax, block]
zip: [[image_reduction, text_reduction]]
rules:
  - {when: {image_reduction: [grid, block]}, set: {image_size: 32, image_tokens: 4}}
  - {when: {text_reduction: syntax}, set: {objective: siglip, text_tokens: 8}}
include: [{image_reduction: resize}]
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one sweep of four runs: two masked, one resized and then taught labels."""
    folder = tmp_path_factory.mktemp("study")
    sweep = write_small(folder, HEAD + MASKS + CLASSIFY + OF_RESIZED)
    done = run_sweep(sweep, "--cluster", "inline")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_classification_follows_contrastive_training(study: Path, tmp_path: Path) -> None:
    runs = load_tables(study / "results/small")["runs"]
    runs = runs[(runs["state"] == "done") & (runs["image_reduction"] == "resize")]
    runs = runs.set_index("stage")
    assert runs["objective"].to_dict() == {"pretrain": "contrastive", "labels": "classify"}
    assert runs["schedule"].to_dict() == {"pretrain": "cosine", "labels": "constant"}
    prompts = runs.loc["labels", "class_prompts"]
    assert "a {}" in str(prompts) and "a {}" not in str(runs.loc["pretrain", "class_prompts"])
    folder = study / "runs" / str(runs.loc["labels", "run"])
    spec = read_json(folder / "spec.json")
    assert spec is not None and spec["classes"] == 256 and spec["pack"].endswith("-labels")
    losses = [row["loss"] for row in read_jsonl(folder / "metrics.jsonl")]
    assert losses[-1] < losses[0] and losses[0] < 6.5, "chance is log 256 = 5.5"
    seen = {
        (row["image_tokens_seen"], row["text_tokens_seen"])
        for row in read_jsonl(folder / "metrics.jsonl")
    }
    assert seen == {(4, 6)}
    # Of 4 texts a picture the price is more than that of one, at the same lengths.
    sweep = write_small(tmp_path, HEAD + CLASSIFY)
    plain = write_small(tmp_path / "plain", HEAD + CLASSIFY.replace("objective: classify, ", ""))
    both = [plan_cost(path)[1] for path in (sweep, plain)]
    assert both[0] > 1.5 * both[1]
    planned = load_sweep(sweep, tmp_path / "packs").grid.runs[1].spec
    assert planned.texts_per_sample == 256 / 64


def plan_cost(sweep: Path) -> list[float]:
    """Training FLOPs of each run."""
    from clipa_scaling.plan import price_run

    read = load_sweep(sweep, sweep.parent / "packs")
    return [price_run(run.spec, read).train_flops for run in read.grid.runs]


def test_masks_of_both_kinds_and_siglip_train_on_the_tokens_declared(study: Path) -> None:
    runs = sorted((study / "runs").glob("pretrain-*"))
    found = {}
    for run in runs:
        spec = read_json(run / "spec.json")
        assert spec is not None
        key = tuple(spec[name] for name in ("objective", "image_reduction", "text_reduction"))
        [found[key]] = {
            (row["image_tokens_seen"], row["text_tokens_seen"])
            for row in read_jsonl(run / "metrics.jsonl")
        }
    assert found == {
        ("siglip", "grid", "syntax"): (4, 8),
        ("contrastive", "block", "block"): (4, 12),
        ("contrastive", "resize", "truncate"): (16, 12),
    }


def test_a_folder_tells_its_classes(tmp_path: Path) -> None:
    make_folder(tmp_path / "pictures", 3)
    text = HEAD.replace("path: scenes, pairs: 1_000, seed: 3", "path: pictures")
    sweep = load_sweep(write_small(tmp_path, text + CLASSIFY), tmp_path / "packs")
    assert [run.spec.classes for run in sweep.grid.runs] == [0, 3]
    assert {pack.needs for pack in sweep.packs} == {"captions", "labels"}


def make_folder(folder: Path, classes: int) -> None:
    for number in range(classes):
        (folder / f"class{number}").mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(folder / f"class{number}/a.png")


LABELLED = '  labelled: {path: scenes, pairs: 1_000, seed: 3, prompts: ["a {}"]}\n'
WRONG = {
    "no labels": (LABELLED, "", "stages.labels.set.objective: objective=classify needs labelled"),
    "masks of captions": (
        "set: {objective",
        "set: {text_reduction: syntax, objective",
        "stages.labels.set.text_reduction: text_reduction=syntax is for captions",
    ),
    "another count": (
        "path: scenes, pairs: 1_000, seed: 3",
        "path: pictures, classes: 4",
        "data.labelled.classes: 4 is not the 3 that the data has",
    ),
    "another count of scenes": (
        "pairs: 1_000, seed: 3",
        "pairs: 1_000, seed: 3, classes: 10",
        "data.labelled.classes: 10 is not the 256 that the data has",
    ),
    "an evaluation of trained scenes": (
        "pairs: 64, seed: 1",
        "pairs: 64, seed: 3",
        "data.evals.scenes.seed: 3 is the training pictures'",
    ),
    "an evaluation of trained pictures": (
        LABELLED + "  evals:\n    scenes: {path: scenes, task: classify, pairs: 64, seed: 1,",
        "  labelled: {path: pictures}\n  evals:\n    scenes: {path: pictures, task: classify,",
        "data.evals.scenes.path: are the training pictures",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_recipe_is_one_line_with_its_place(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, words = WRONG[mistake]
    make_folder(tmp_path / "pictures", 3)
    assert (HEAD + CLASSIFY).count(old) == 1
    sweep = write_small(tmp_path, (HEAD + CLASSIFY).replace(old, new))
    assert command_line.main([str(sweep), "--plan", "--runs", str(tmp_path / "runs")]) == 2
    out, said = capsys.readouterr()
    assert out == "" and said.count("\n") == 1
    line = said.removeprefix(f"{sweep}:").partition(": ")
    assert line[0].isdigit() and line[2].startswith(words), said


@pytest.mark.slow
def test_decay_branches_are_launched_from_a_sweep_file(tmp_path: Path) -> None:
    """The README's way to a data axis, and what its cells cost."""
    text = HEAD.replace("fixed:\n", "fixed:\n  schedule: constant\n")
    text = text.replace("samples: 320", "samples: 1_024")
    text += "stages:\n  decay:\n    kind: decay\n    parent: pretrain\n"
    text += "    axes: {samples: [{parent: 0.5}, {parent: 1.0}]}\n    set: {decay_samples: 128}\n"
    sweep = write_small(tmp_path, text)
    done = run_sweep(sweep, "--cluster", "inline")
    assert done.returncode == 0, done.stdout + done.stderr
    tables = load_tables(tmp_path / "results/small")
    runs = tables["runs"].set_index("stage")
    assert (runs["state"] == "done").all() and len(runs) == 3
    decays = runs[runs.index == "decay"]
    assert decays["samples"].tolist() == [512, 1_024]
    each = float(runs["flops_per_sample"].iloc[0])
    assert decays["train_flops"].tolist() == [3 * each * 128] * 2
    cells = at_the_end(summarise_cells(tables)).set_index(["stage", "samples"])
    assert cells.loc[("decay", 512), "train_flops"] == 3 * each * 512, "its model has seen so many"
    pipelines = sum_pipelines(tables).set_index("samples")
    assert pipelines.loc[512, "pipeline_flops"] == pytest.approx(3 * each * 512)
    later = tmp_path / "later"
    again = write_small(later, text.replace("{parent: 0.5}", "{parent: 0.25}"))
    refused = run_sweep(again, "--runs", str(tmp_path / "runs"))
    assert refused.returncode == 2
    assert "is done and kept no state at sample 128 or before (kept: 384, 896)" in refused.stderr
