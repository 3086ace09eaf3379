"""Other programs' files become rows of our tables: what they say, and nothing that they do not."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clipa_scaling import figures
from clipa_scaling.cells import at_the_end, name_lines, summarise_cells
from clipa_scaling.collect import load_tables
from clipa_scaling.imports import keep_imported, main
from clipa_scaling.provenance import find_mixed
from clipa_scaling.published import forward_flops
from clipa_scaling.schema import TableError

PARAMS = """\
accum_freq: 1
batch_size: 256
beta1: 0.9
epochs: 2
force_context_length: 16
force_image_size: 112
force_patch_dropout: None
grad_clip_norm: None
lr: 0.0005
lr_scheduler: cosine
model: ViT-B-16
precision: amp_bf16
seed: 3
train_num_samples: 9999
warmup: 10
wd: 0.2
world_size: 2
"""
TOP1 = "imagenet-zeroshot-val-top1"
LOG = """\
2026-01-01,00:00:00 | INFO | Train Epoch: 0 [  512/10240 (5%)] Data (t): 0.5 Batch (t): 0.2, \
2400.50/s, 1200.25/s/gpu LR: 0.000050 Logit Scale: 14.286 Contrastive_loss: 6.1 (6.2) Loss: 6.1000 (6.2)
2026-01-01,00:00:01 | INFO | Eval Epoch: 1 [256 / 1000]\tClip Loss: 5.000000\t
2026-01-01,00:00:02 | INFO | Eval Epoch: 1 imagenet-zeroshot-val-top1: 0.1000
2026-01-01,00:00:03 | INFO | Train Epoch: 1 [10240/10240 (100%)] Data (t): 0.5 Batch (t): 0.2, \
1.2e+06/s, 6.0e+05/s/gpu LR: 0.000000 Logit Scale: 20.000 Contrastive_loss: 2.5 (2.5) Loss: 2.5000 (2.5)
2026-01-01,00:00:04 | INFO | Eval Epoch: 2 imagenet-zeroshot-val-top1: 0.2000
"""  # noqa: E501


def write_open_clip(
    folder: Path, rows: list[dict[str, Any]], log: str = "", **changes: str
) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "checkpoints" / "results.jsonl").write_text(text)
    lines = dict(line.split(": ") for line in PARAMS.splitlines()) | changes
    (folder / "params.txt").write_text("".join(f"{k}: {v}\n" for k, v in lines.items()))
    if log:
        (folder / "out.log").write_text(log)
    return folder


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_run_of_open_clip_train(tmp_path: Path) -> None:
    folder = write_open_clip(tmp_path / "vitb", [{TOP1: 0.1}, {TOP1: 0.2}], LOG)
    assert run(folder, "--results", tmp_path / "out") == 0
    tables = load_tables(tmp_path / "out")
    [row] = tables["runs"].to_dict("records")
    wanted = {
        "model": "B/16", "image_tokens": 49, "text_tokens": 16, "samples": 20_480, "seed": 3,
        "batch_size": 512, "warmup_samples": 5_120, "lr": 5e-4, "schedule": "cosine",
        "weight_decay": 0.2, "state": "done", "imported": "vitb", "accuracy": 0.2, "loss": 2.5,
    }  # fmt: skip
    assert {name: row[name] for name in wanted} == wanted
    flops = forward_flops("B/16", 112, 16, 1.0)
    assert (row["flops_per_sample"], row["train_flops"]) == (flops, 3 * 20_480 * flops)
    for name in ("beta2", "grad_clip", "seconds", "data_fingerprint", "dollars"):
        assert pd.isna(row[name]), name
    evals = tables["evals"]
    assert evals["samples"].tolist() == [10_240, 20_480], "epochs of out.log, samples of its steps"
    assert set(evals["protocol"]) == {"paper"} and set(evals["set"]) == {"imagenet1k"}
    curves = tables["curves"]
    assert curves["samples"].tolist() == [512, 20_480]
    assert curves["loss"].tolist() == [6.1, 2.5]
    assert curves["temperature"].tolist() == pytest.approx([1 / 14.286, 1 / 20])
    assert curves["samples_per_second"].tolist() == [2400.5, 1.2e6]


def test_masks_and_unfinished_runs_of_open_clip_train(tmp_path: Path) -> None:
    rows = [{TOP1: 0.1, "image_to_text_R@1": 0.3, "clip_val_loss": 2.0, "epoch": 1,
             "num_samples": 500}]  # fmt: skip
    folder = write_open_clip(
        tmp_path / "masked", rows, force_patch_dropout="0.5", force_image_size="224", epochs="3"
    )
    assert run(folder / "checkpoints" / "results.jsonl", "--results", tmp_path / "out") == 0
    tables = load_tables(tmp_path / "out")
    [row] = tables["runs"].to_dict("records")
    assert (row["image_tokens"], row["image_reduction"], row["imported"]) == (
        98,
        "random",
        "masked",
    )
    assert (row["state"], row["reason"], row["samples"]) == ("stopped", "at epoch 1 of 3", 29_997)
    val = tables["evals"][tables["evals"]["set"] == "val"].set_index("name")
    assert val["value"].to_dict() == {"image_to_text_r1": 0.3, "loss": 2.0}
    assert (val["n"] == 500).all() and (val["samples"] == 9_999).all()


def test_rows_without_an_epoch_need_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_open_clip(tmp_path / "vitb", [{TOP1: 0.1}, {TOP1: 0.2}])
    assert run(folder, "--results", tmp_path / "out") == 2
    assert "rows name no epoch, and" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_installed_open_clip_train_writes_such_lines() -> None:
    spec = find_spec("open_clip_train")
    assert spec is not None and spec.origin is not None
    source = (Path(spec.origin).parent / "train.py").read_text()
    for part in (
        'f"Train Epoch: {epoch} [{num_samples:>{sample_digits}}/{samples_per_epoch} (',
        "{samples_per_second:#g}/s, {samples_per_second_per_gpu:#g}/s/gpu ",
        "LR: {optimizer.param_groups[0]['lr']:5f} ",
        'f"Logit Scale: {logit_scale_scalar:.3f} "',
        'f"Eval Epoch: {epoch} "',
        '"clip_val_loss": loss.item(), "epoch": epoch, "num_samples": num_samples',
    ):
        assert part in source, part
    assert TOP1 in (Path(spec.origin).parent / "zero_shot.py").read_text()


def test_json_of_clip_benchmark(tmp_path: Path) -> None:
    base = {"model": "ViT-B-16", "pretrained": "tag", "language": "en"}
    accuracy = {"acc1": 0.5, "acc5": 0.7, "mean_per_class_recall": 0.49}
    recall = {"image_retrieval_recall@5": 0.6, "text_retrieval_recall@5": 0.8}
    found: list[dict[str, Any]] = [
        {**base, "dataset": "imagenet1k", "task": "zeroshot_classification"},
             {**base, "dataset": "mscoco_captions", "task": "zeroshot_retrieval"}]  # fmt: skip
    found = [{**found[0], "metrics": accuracy}, {**found[1], "metrics": recall}]
    (tmp_path / "cb.json").write_text(json.dumps(found))
    assert run(tmp_path / "cb.json", "--results", tmp_path / "out") == 0
    tables = load_tables(tmp_path / "out")
    assert tables["runs"]["model"].tolist() == ["B/16"] and tables["runs"]["samples"].isna().all()
    values = tables["evals"].set_index(["set", "name"])["value"].to_dict()
    assert values == {
        ("imagenet1k", "accuracy"): 0.5, ("imagenet1k", "accuracy_top5"): 0.7,
        ("imagenet1k", "mean_per_class_recall"): 0.49,
        ("mscoco_captions", "text_to_image_r5"): 0.6, ("mscoco_captions", "image_to_text_r5"): 0.8,
    }  # fmt: skip
    assert at_the_end(summarise_cells(tables))["mean"].tolist() == [0.5], "when is not known"
    assert figures.save_figures(tables, "x", tmp_path / "figures") == [], "no length is known"


CSV = "arch,imgs,top1,junk\nS/16,49,54.7,a\nB/16,49,62.9,b\nodd-net,49,10.5,c\n"
MAP = ("--map", "arch=model", "imgs=image_tokens", "top1=accuracy")
SET = ("--set", "set=imagenet1k", "samples=2560000000", "text_tokens=32", "n=50000")


def test_any_csv_and_the_tables_it_makes(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    out = tmp_path / "out"
    assert run(tmp_path / "t.csv", "--results", out, *MAP, *SET) == 2
    assert "run 1: accuracy=54.7; a fraction is at most 1: --percent if it is" in (
        capsys.readouterr().err
    )  # fmt: skip
    assert run(tmp_path / "t.csv", "--results", out, *MAP, *SET, "--percent") == 0
    tables = load_tables(out)
    runs = tables["runs"].set_index("model")
    assert runs["accuracy"].to_dict() == pytest.approx(
        {"S/16": 0.547, "B/16": 0.629, "odd-net": 0.105}
    )
    assert runs.loc["B/16", "flops_per_sample"] == forward_flops("B/16", 112, 32, 1.0)
    assert runs["flops_per_sample"].isna().to_dict()["odd-net"]
    assert runs["text_params"].isna().all(), "the vocabulary is not known"
    cells = at_the_end(summarise_cells(tables))
    assert len(cells) == 3 and (cells["n"] == 50_000).all()
    assert len(figures.save_figures(tables, "x", tmp_path / "figures")) == 1


def test_importing_again_changes_nothing_and_a_corrected_file_replaces_its_rows(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    (tmp_path / "u.csv").write_text(CSV.replace("49", "100"))
    out = tmp_path / "out"

    def load(name: str) -> dict[str, bytes]:
        assert run(tmp_path / name, "--results", out, *MAP, *SET, "--percent") == 0
        return {path.name: path.read_bytes() for path in out.iterdir()}

    load("t.csv")
    both = load("u.csv")
    assert load("t.csv") == both == load("u.csv")
    (tmp_path / "t.csv").write_text(CSV.replace("54.7", "54.8"))
    assert load("t.csv") != both
    runs = load_tables(out)["runs"]
    assert len(runs) == 6 and 0.548 in runs["accuracy"].tolist()
    assert 0.547 not in runs[runs["imported"] == "t.csv"]["accuracy"].tolist()


def test_a_curve_of_own_and_imported_cells_is_told(tmp_path: Path, small_study: Path) -> None:
    """Stages part them unless asked; what an imported row leaves unknown parts no lines."""
    own = load_tables(small_study.parent / "results" / "small")
    columns = "model,image_tokens,image_size,image_reduction,accuracy\n"
    (tmp_path / "t.csv").write_text(columns + "T32/8,4,16,resize,0.2\n")
    where = ("--results", tmp_path / "out", "--set", "set=scenes", "samples=1024")
    same = own["evals"]["fingerprint"][own["evals"]["set"] == "scenes"].iloc[0]
    for stage, lines in (("imported", 3), ("pretrain", 2)):
        assert run(tmp_path / "t.csv", *where, f"stage={stage}", f"fingerprint={same}") == 0
        both = keep_imported(own, tmp_path / "out")
        told = [line for line in find_mixed(both) if "mixes imported" in line]
        assert len(told) == (stage == "pretrain")
        names = name_lines(both["runs"].assign(before="", evaluated_at=0))
        assert names.nunique() == lines and not names.isna().any()
        assert len(figures.save_figures(both, "x", tmp_path / "figures")) == 2
    assert run(tmp_path / "t.csv", *where) == 0
    with pytest.raises(TableError, match="set=scenes was measured in 2 ways"):
        summarise_cells(keep_imported(own, tmp_path / "out"))


def test_collecting_keeps_what_was_imported(tmp_path: Path, small_study: Path) -> None:
    own = load_tables(small_study.parent / "results" / "small")
    (tmp_path / "t.csv").write_text(CSV)
    run(tmp_path / "t.csv", "--results", tmp_path / "out", *MAP, *SET, "--percent")
    kept = keep_imported(own, tmp_path / "out")
    assert len(kept["runs"]) == 5 and len(kept["evals"]) == len(own["evals"]) + 3
    pd.testing.assert_frame_equal(kept["curves"], own["curves"])
    assert keep_imported(own, small_study.parent / "results" / "small") is own


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--map", "nope=accuracy"], "has no column nope; it has arch, imgs, top1, junk"),
        (["--map", "arch=model"], "has no measure, such as accuracy"),
        (["--map", "junk=accuracy"], "accuracy='a' is no number"),
        ([*MAP, "--percent", "--set", "smaples=3"], "smaples is no column of runs; nearest"),
        ([*MAP, "--percent", "--set", "samples=3.5"], "samples='3.5'; allowed: int"),
        ([*MAP, "--set", "model"], "--set model: allowed: --set name=value"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    assert run(tmp_path / "t.csv", "--results", tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", "{"), ("b.json", "[1]"), ("c.txt", "x"), ("none.csv", None)]
)
def test_what_is_no_result_is_refused(
    tmp_path: Path, name: str, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert run(tmp_path / name, "--results", tmp_path / "out") == 2
    assert name in capsys.readouterr().err
