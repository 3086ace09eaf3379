"""The project's own studies: a small cut of the one on real pictures, and the whole demo."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from make_data import ROOT
from small_sweep import run_sweep

from clipa_scaling import sweep as command_line
from clipa_scaling.cells import at_the_end, summarise_cells
from clipa_scaling.collect import load_tables


def test_a_cut_of_the_emoji_study_runs_on_the_real_shards(shared: Path, tmp_path: Path) -> None:
    text = (ROOT / "sweeps/emoji.yaml").read_text().replace("../../shared", str(shared))
    for name, value in {
        "samples": "2_048",
        "warmup_samples": "256",
        "eval_every_samples": "1_024",
        "model": "[T32/16]",
        "image_tokens": "[4]",
        "seeds": "[0]",
    }.items():
        text, count = re.subn(rf"(?m)^( *{name}:) .*$", rf"\1 {value}", text)
        assert count == 1
    sweep = tmp_path / "emoji.yaml"
    sweep.write_text(text)
    done = run_sweep(sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    tables = load_tables(tmp_path / "results/emoji")
    evals = tables["evals"]
    last = evals[evals["samples"] == 2_048].set_index("name")
    # 1,183 names of an unseen style; 1,055 pictures of unseen concepts.
    assert last.loc[["accuracy", "image_to_text_r1", "text_to_image_r1"], "n"].tolist() == [
        1_183,
        1_055,
        1_055,
    ]
    # Equal captions all count as right: among 196 distinct ones, a guess is right 1 in 196 times,
    # where one right caption in 1,055 would make it 1 in 1,055.
    assert last["value"].astype(float).to_dict()["image_to_text_r10"] > 10 / 1_055
    assert tables["runs"]["upsampled_crops"].item() == 0.0, "64 px pictures, 32 px training"


@pytest.mark.slow
def test_the_demo_tells_token_lengths_apart(tmp_path: Path) -> None:
    """The whole of sweeps/mini.yaml, with the claims that the README makes of it."""
    sweep = tmp_path / "mini.yaml"
    sweep.write_text((ROOT / "sweeps/mini.yaml").read_text())
    done = run_sweep(sweep, seconds=1_800)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert any(
        line.startswith("Zero-shot accuracy (%) on scenes, mean over seeds") for line in said
    )
    figure = tmp_path / "results/mini/figures/accuracy_vs_image_tokens.png"
    assert f"Figure: {figure}" in said and figure.stat().st_size > 20_000
    cells = at_the_end(summarise_cells(load_tables(tmp_path / "results/mini")))
    assert len(cells) == 12 and (cells["seeds"] == 2).all()
    for model, line in cells.groupby("model"):
        by_tokens = line.set_index("image_tokens")[["mean", "half_width"]].astype(float)
        mean, half = (by_tokens[name].to_dict() for name in by_tokens)
        best = max(mean, key=lambda tokens: mean[tokens])
        assert mean[best] - half[best] > mean[4] + half[4], f"{model}: 4 tokens against {best}"
        assert int(str(best)) >= 16


LENGTHS = {  # of seed.yaml and its twin: image, then text
    "pretrain": ([32, 16, 8], {"seed": [64, 32, 16], "tiny_seed": [24, 16, 12]}),
    "finetune": ([16, 8, 4], {"seed": [32, 16, 8], "tiny_seed": [12, 8, 6]}),
}


def test_the_seed_study_is_planned_without_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ROOT / "sweeps/seed.yaml"
    places = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert command_line.main([str(sweep), "--plan", "--json", *places]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert len(plan["cells"]) == 6
    assert any(warning.startswith("data missing: ") for warning in plan["warnings"])
    for stage, (image, text) in LENGTHS.items():
        cells = [cell for cell in plan["cells"] if cell["spec"]["stage"] == stage]
        assert [cell["spec"]["image_tokens"] for cell in cells] == image
        assert [cell["spec"]["text_tokens"] for cell in cells] == text["seed"]
        assert all(cell["cost"]["train_flops"] > 0 for cell in cells)
    assert command_line.main([str(sweep), "--plan", *places]) == 0


@pytest.mark.slow
def test_the_seed_studys_twin_runs_whole(tmp_path: Path) -> None:
    sweep = tmp_path / "tiny_seed.yaml"
    sweep.write_text((ROOT / "sweeps/tiny_seed.yaml").read_text())
    done = run_sweep(sweep, "--cluster", "inline", seconds=1_800)
    assert done.returncode == 0, done.stdout + done.stderr
    tables = load_tables(tmp_path / "results/tiny_seed")
    runs, evals = tables["runs"], tables["evals"]
    assert runs["state"].tolist() == ["done"] * 6
    for stage, (image, text) in LENGTHS.items():
        ours = runs[runs["stage"] == stage].set_index("model").loc[["T32/8", "T48/8", "T64/8"]]
        assert ours["image_tokens_seen"].tolist() == image
        assert ours["text_tokens_seen"].tolist() == text["tiny_seed"]
        begun = evals[evals["run"].isin(ours["run"]) & (evals["samples"] == 0)]
        assert set(begun["run"]) == (set(ours["run"]) if stage == "finetune" else set())
        last = evals[evals["run"].isin(ours["run"]) & (evals["samples"] > 0)]
        assert set(last.loc[last["name"] == "accuracy", "run"]) == set(ours["run"])
        assert (ours["accuracy"].astype(float) > 2 / 256).all(), "above two guesses in 256"
    tuned = runs[runs["stage"] == "finetune"]
    assert (tuned["schedule"] == "constant").all() and (tuned["objective"] == "classify").all()
