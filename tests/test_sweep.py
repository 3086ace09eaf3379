"""The command line: a mistake is one line and exit code 2, a finished study is left alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from make_data import ROOT, write_shards
from small_sweep import SMALL, outcome, run_sweep, write_small

from clipa_scaling import sweep as command_line
from clipa_scaling.cost import DEVICES
from clipa_scaling.plan import make_plan
from clipa_scaling.spec import RunSpec
from clipa_scaling.sweepfile import load_sweep

MISTAKES = {
    "unknown key": ("fixed:\n", "fixd:\n", "9: fixd: unknown key; nearest: fixed"),
    "unknown field": ("  lr:", "  lrs:", "14: fixed.lrs: unknown key; nearest: lr"),
    "duplicate key": (
        "  lr: 1e-3",
        "  lr: 1e-3\n  lr: 2e-3",
        '15: found duplicate key "lr" with value "0.002" (original value: "0.001"); '
        "see the sweep files in sweeps/",
    ),
    "wrong type": (
        "  lr: 1e-3",
        "  lr: fast",
        "14: fixed.lr: lr='fast' is not allowed; allowed: a value of type float",
    ),
    "not YAML": ("name: small", "name: [small", "2: expected ',' or ']', but got ':'"),
    "impossible token count": (
        "image_tokens: 4",
        "image_tokens: 37",
        "11: fixed.image_tokens: image_tokens=37 is no square, as resize needs; nearest: 36, 49",
    ),
    "empty axis": (
        "[resize, random]",
        "[]",
        "23: axes.image_reduction: is empty; give it a value, or remove the key",
    ),
    "axis that is no list": (
        "image_reduction: [resize, random]",
        "image_reduction: resize",
        "23: axes.image_reduction: got 'resize'; allowed: a list, e.g. ['resize']",
    ),
    "unknown model": (
        "model: T32/8",
        "model: T23/8",
        "10: fixed.model: model='T23/8' has an unknown size 'T23'; nearest: T32/8; "
        "allowed sizes: S, B, L, H, G, ConvNeXt-T, ConvNeXt-B, ConvNeXt-A, T32, T48, T64, T96, "
        "T128",
    ),
    "unknown value in a rule": (
        "{image_reduction: random}, set",
        "{image_reduction: rndm}, set",
        "25: rules.0.when.image_reduction: image_reduction='rndm' is not allowed; "
        "allowed: resize, random",
    ),
    "limits of a word": (
        "when: {image_reduction: random}",
        "when: {model: {min: 3}}",
        "25: rules.0.when.model: model is no number; allowed: a value or list",
    ),
    "missing data": (
        "train: scenes\n  pairs: 5_000",
        "train: /nowhere/{00..03}.tar",
        "3: data.train: /nowhere/{00..03}.tar: 0 of 4 shards exist, the first missing is "
        "/nowhere/00.tar; correct the pattern or bring the missing shards",
    ),
    "unknown device": (
        "gpu: cpu-core",
        "gpu: cpu-cor",
        "26: resources.gpu: unknown device 'cpu-cor'; nearest: cpu-core",
    ),
    "utilisation above one": (
        "{gpu: cpu-core}",
        "{gpu: cpu-core, utilisation: 40}",
        " resources: utilisation=40.0 is no share; allowed: above 0, at most 1",
    ),
    "more devices than a local run has": (
        "precision: fp32",
        "precision: fp32\n  gpus: 2",
        None,
    ),
}


def call(sweep: Path, *options: str) -> int:
    places = ["--runs", str(sweep.parent / "runs"), "--results", str(sweep.parent / "results")]
    return command_line.main([str(sweep), *places, *options])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, message = MISTAKES[mistake]
    assert SMALL.count(old) == 1
    sweep = write_small(tmp_path, SMALL.replace(old, new))
    assert call(sweep) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    if message:
        assert err.startswith(f"{sweep}:{message}")
    assert not (tmp_path / "runs").exists(), "nothing was launched"


def test_a_budget_exceeded_names_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_small(tmp_path, SMALL + "budget: {gpu_hours: 1e-9}\n")
    assert call(sweep) == 2
    hours = json.loads(plan_json(sweep, capsys))["left"]["gpu_hours"]
    sweep = write_small(tmp_path, SMALL + "budget: {dollars: 2, dollars_per_gpu_hour: 1_000_000}\n")
    assert call(sweep) == 2
    assert capsys.readouterr().err == (
        f"{sweep}: budget: the runs left, 2, need {hours * 1e6:.4g} dollars, allowed: 2; "
        "raise budget.dollars, or plan fewer or smaller runs\n"
    )


def plan_json(sweep: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert call(sweep, "--plan", "--json") == 0
    return capsys.readouterr().out


def test_planning_without_the_data_warns_and_launching_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, _ = MISTAKES["missing data"]
    sweep = write_small(tmp_path, SMALL.replace(old, new))
    plan = json.loads(plan_json(sweep, capsys))
    assert len(plan["cells"]) == 2
    assert any("the first missing is /nowhere/00.tar" in warning for warning in plan["warnings"])
    assert call(sweep, "--plan") == 0
    assert "data missing" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("torn", [True, False], ids=["torn shard", "unreadable pictures"])
def test_an_unreadable_shard_is_one_line_with_its_place(torn: bool, tmp_path: Path) -> None:
    pattern = write_shards(tmp_path / "data", 2, 40, px=16)
    shard = tmp_path / "data/00001.tar"
    content = shard.read_bytes()
    broken = content[:3_000] if torn else content.replace(b"IHDR", b"XXXX")
    shard.write_bytes(broken)
    train = SMALL.replace("train: scenes\n  pairs: 5_000", f'train: "{pattern}"')
    sweep = write_small(tmp_path, train)
    done = run_sweep(sweep)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stdout
    assert done.stderr.startswith(f"{sweep}:3: data.train: ")
    assert ("00001.tar: torn or unreadable shard" if torn else "are unreadable") in done.stderr
    assert not list((tmp_path / "runs").glob("pretrain-*"))


def test_a_batch_larger_than_the_data_is_refused_before_a_run_starts(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path / "data", 2, 20, px=16)
    text = SMALL.replace("train: scenes\n  pairs: 5_000", f'train: "{pattern}"')
    sweep = write_small(tmp_path, text)
    done = run_sweep(sweep)
    assert done.returncode == 2
    assert done.stderr == (
        f"{sweep}: batch_size=64 is more than the 40 pairs of the data; allowed: up to that, "
        "so that no batch holds a pair twice\n"
    )
    assert not list((tmp_path / "runs").glob("pretrain-*"))


def test_one_data_set_for_both_tasks_is_packed_for_both(tmp_path: Path) -> None:
    sweep = write_small(tmp_path, SMALL.replace("pairs: 150, seed: 2", "pairs: 400, seed: 1"))
    folders = [request.folder.name for request in load_sweep(sweep, tmp_path).packs]
    assert len(folders) == 3
    assert [name.partition("-")[2] for name in folders] == ["captions", "labels", "captions"]
    assert folders[1].partition("-")[0] == folders[2].partition("-")[0]


def test_collecting_does_not_disarm_the_guard_against_redoing_finished_runs(
    tmp_path: Path, small_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_study.parent, tmp_path / "copy")
    sweep = tmp_path / "copy" / small_study.name
    old = dict(RunSpec.__init__.__kwdefaults__ or {})
    monkeypatch.setattr(RunSpec.__init__, "__kwdefaults__", old | {"weight_decay": 0.1})
    # The runs of the changed default have folders, as after a launch that was stopped.
    for cell in make_plan(load_sweep(sweep, tmp_path), tmp_path).rows:
        (sweep.parent / "runs" / cell.planned.id).mkdir()
    assert call(sweep, "--collect") == 0
    assert call(sweep) == 2


def test_a_sweep_file_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["nowhere.yaml", "--plan"]) == 2
    assert capsys.readouterr().err == (
        "nowhere.yaml: cannot be read (No such file or directory); give a sweep file\n"
    )


def test_planning_a_thousand_cells_never_imports_torch(tmp_path: Path) -> None:
    """All in one JSON; ten times as many, and how long they take, are bench/plan.py's."""
    axes = (
        "axes:\n  model: [S/16, B/16]\n  image_tokens: [196, 100, 49, 36, 16]\n"
        f"  lr: {[1e-5 * k for k in range(1, 5)]}\nseeds: {list(range(25))}\n"
    )
    fixed = "fixed: {samples: 1e9, batch_size: 32768}\n"
    sweep = tmp_path / "grid.yaml"
    sweep.write_text(f"name: grid\ndata: {{train: /nowhere.tar, store_px: 256}}\n{fixed}{axes}")
    code = (
        "import sys\nfrom clipa_scaling.sweep import main\n"
        f"assert main([{str(sweep)!r}, '--plan', '--json']) == 0\n"
        "heavy = {'torch', 'open_clip', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["cells"]) == 1_000


def test_the_same_command_again_changes_nothing_and_says_so(small_study: Path) -> None:
    def files() -> dict[Path, tuple[int, bytes]]:
        found = [path for path in small_study.parent.rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}

    before = files()
    again = run_sweep(small_study)
    assert (again.returncode, again.stderr) == (0, "")
    results = small_study.parent / "results" / "small"
    assert again.stdout == f"nothing to do: 2 done. Tables and figures: {results}\n"
    assert files() == before


def test_a_study_leaves_tables_and_figures(small_study: Path) -> None:
    results = small_study.parent / "results" / "small"
    assert {path.name for path in results.iterdir()} == {
        *(
            f"{table}.{kind}"
            for table in ("runs", "evals", "curves")
            for kind in ("csv", "parquet")
        ),
        "figures",
    }
    assert {path.name for path in (results / "figures").iterdir()} == {
        f"{stem}.{kind}"
        for stem in ("accuracy_vs_image_tokens", "accuracy_vs_samples")
        for kind in ("pdf", "png", "csv")
    }


def test_a_larger_study_runs_only_what_is_new(tmp_path: Path, small_study: Path) -> None:
    """Another sweep that shares runs and packs with the first."""
    sweep = write_small(tmp_path, SMALL.replace("name: small", "name: more") + "seeds: [0, 1]\n")
    (tmp_path / "runs").symlink_to(small_study.parent / "runs")
    before = outcome(tmp_path / "runs")
    plan: dict[str, Any] = json.loads(run_sweep(sweep, "--plan", "--json").stdout)
    assert [cell["state"] for cell in plan["cells"]] == ["done", "planned"] * 2
    assert plan["left"]["gpu_hours"] == pytest.approx(plan["totals"]["gpu_hours"] / 2)
    assert outcome(tmp_path / "runs") == before


def test_help_names_every_option_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.main(["--help"])
    said = capsys.readouterr().out
    options = ["plan", "json", "collect", "status", "watch", "logs", "cancel", "cluster", "follow"]
    options += [
        "evaluate",
        "only",
        "max-parallel",
        "retry",
        "accept-changed",
        "jobs",
        "runs",
        "results",
    ]
    assert [word for word in options if f"--{word}" not in said] == []
    assert "Exit codes: 0 done or submitted, 1 a run failed, 2 a mistake" in " ".join(said.split())


def test_every_sweep_file_of_the_project_plans(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted((ROOT / "sweeps").glob("*.yaml"))
    assert len(files) >= 3
    for path in files:
        assert command_line.main([str(path), "--plan", "--json"]) == 0, capsys.readouterr().err
        plan = json.loads(capsys.readouterr().out)
        assert plan["device"] in DEVICES and plan["totals"]["gpu_hours"] > 0
        assert path.read_text().count(f"python -m clipa_scaling.sweep sweeps/{path.name}") == 1
