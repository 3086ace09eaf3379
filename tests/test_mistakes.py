"""Sweep files that are wrong in every way: one line each, exit code 2, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_sweep import SMALL, write_small

from clipa_scaling import sweep as command_line

STAGE = "stages:\n  s:\n    kind: finetune\n    parent: pretrain\n"
FIXED, AXES = "  lr: 1e-3", "image_reduction: [resize, random]"

# What stands in SMALL, what replaces it, and the end of the one line that follows.
REPLACED = {
    "null": (FIXED, "  lr:", "lr=None is not allowed; allowed: a value of type float"),
    "a list for a number": (FIXED, "  lr: [1e-3]", "allowed: a value of type float"),
    "a boolean": ("samples: 1_024", "samples: true", "allowed: a value of type int"),
    "a huge number": ("batch_size: 64", "batch_size: 1e300", "batch_size is too large"),
    "an integer beyond floats": ("batch_size: 64", f"batch_size: 1{'0' * 400}", "batch_size"),
    "digits without end": ("batch_size: 64", f"batch_size: 1{'0' * 5000}", "integer string"),
    "nan": (FIXED, "  lr: .nan", "lr=nan is not finite; allowed: a finite number"),
    "a date": ("name: small", "name: 2020-01-01", "allowed: a value of type str"),
    "no date": ("name: small", "name: 2020-13-45", "month must be in 1..12"),
    "a control character": ("name: small", "name: sm\x00all", "special characters"),
    "a key with a line break": (FIXED, '  "l\\nr": 1e-3', "unknown key; nearest: lr"),
    "a device that is a list": ("gpu: cpu-core", "gpu: []", "allowed: a value of type str"),
    "hours below none": ("gpu: cpu-core", "gpu: cpu-core, hours: -1", "allowed: above 0"),
    "a list for a block": ("seed: 2}", "seed: 2}\n  - x", ""),
    "a set on training pictures": ("seed: 1, ", "", "0 is the training pictures'; allowed: any"),
    "prompts of a retrieval": ("seed: 2}", 'seed: 2, prompts: ["{}"]}', "remove them"),
    "a field of scenes": ("store_px: 16", "store_px: 16\n  label: x", "scenes have no fields"),
    "a home of nobody": ("train: scenes\n  pairs: 5_000", "train: ~nouser/x.tar", "looked up"),
    "a name too long": ("train: scenes\n  pairs: 5_000", f"train: /{'x' * 5000}", "looked up"),
    "a batch of all axes": (AXES, "lr: 3", "allowed: a list, e.g. [3]"),
    "a project of three parts": (FIXED, "  lr: 1e-3\n  wandb: a/b/c", "project or entity/project"),
    "a project that is a switch": (FIXED, "  lr: 1e-3\n  wandb: true", "a value of type str"),
    "a rule without set": ("set: {image_size: 32, image_tokens: 5}", "because: x", "unknown key"),
}
ADDED = {
    "brackets without end": ("x: " + "[" * 3000, ""),
    "a budget of nothing": ("budget: {gpu_hours: 0}", "0.0 is not positive and finite"),
    "slurm that is a list": ("slurm: [a]", "got ['a']; allowed: a mapping with partition"),
    "no reason": ("exclude: [{when: {seed: 0}, because: null}]", "allowed: a value of type str"),
    "one protocol twice": ("evaluate: {protocol: [common, common]}", "'common' stands twice"),
    "an unknown protocol": ("evaluate: {protocol: [papr]}", "is no protocol; nearest: paper"),
    "zip of no axis": ("zip: [[lr]]", "lr is no axis"),
    "zip that is no list": ("zip: lr", "allowed: a list of groups"),
    "seeds that are no list": ("seeds: 3", "allowed: a list, e.g. [3]"),
    "one seed twice": ("seeds: [0, 0]", "0 stands twice; remove one"),
    "seeds twice over": ("seeds: [0, 1]\ninclude: [{seed: 4}]", "remove one of them"),
    "a stage without parent": ("stages: {s: {kind: finetune}}", "has no parent"),
    "a parent that is a list": (STAGE.replace("parent: pretrain", "parent: []"), "of type str"),
    "an unknown parent": (STAGE.replace("pretrain", "pretran"), "nearest: pretrain"),
    "a stage of the first kind": (STAGE.replace("finetune", "pretrain"), "no parent, a later"),
    "a stage of the first name": (STAGE.replace("  s:", "  pretrain:"), "give another"),
    "a share that is no number": (STAGE + "    set: {lr: {parent: .nan}}", "a positive share"),
    "a share of a word": (STAGE + "    set: {model: {parent: 0.5}}", "a positive share of a num"),
    "a share beyond all": (STAGE + "    set: {image_tokens: {parent: 1e300}}", "image_tokens"),
}


def refuse(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command says of a sweep file, its place cut off."""
    sweep = write_small(folder, text)
    places = ["--runs", str(folder / "runs"), "--results", str(folder / "results")]
    assert command_line.main([str(sweep), "--plan", *places]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(str(sweep))
    return err


@pytest.mark.parametrize("mistake", REPLACED)
def test_a_wrong_value_is_one_line(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, words = REPLACED[mistake]
    assert SMALL.count(old) == 1
    assert words in refuse(SMALL.replace(old, new), tmp_path, capsys)


@pytest.mark.parametrize("mistake", ADDED)
def test_a_wrong_block_is_one_line(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block, words = ADDED[mistake]
    assert words in refuse(f"{SMALL}{block}\n", tmp_path, capsys)


@pytest.mark.parametrize("text", ["", "just words", "[a, list]", "\ufeff", "a: &x 1\nb: *y\n"])
def test_what_is_no_sweep_file_is_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(text, tmp_path, capsys)


def test_merged_keys_are_plain_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SMALL.replace("fixed:\n", "fixed: &base\n") + "include:\n  - {<<: *base, seed: 7}\n"
    sweep = write_small(tmp_path, text)
    assert command_line.main([str(sweep), "--plan", "--json", "--runs", str(tmp_path / "r")]) == 0
    assert capsys.readouterr().out.count('"run": ') == 3


def test_folders_that_cannot_be_made_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_small(tmp_path)
    (tmp_path / "file").write_text("in the way")
    for option in ("--runs", "--results"):
        places = {"--runs": str(tmp_path / "runs"), "--results": str(tmp_path / "results")}
        places[option] = str(tmp_path / "file")
        flat = [word for pair in places.items() for word in pair]
        assert command_line.main([str(sweep), "--collect", *flat]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and err.endswith("give another folder\n")
