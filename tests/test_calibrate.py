"""Measured rates: one per speed and device, kept beside the runs, and what plans make of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_data import ROOT
from small_sweep import SMALL, run_sweep, write_small

from clipa_scaling import sweep as command_line
from clipa_scaling.cost import DEVICES
from clipa_scaling.launch.calibrate import (
    Calibration,
    Cell,
    list_cells,
    measure_here,
    missing_cells,
)
from clipa_scaling.launch.local import Slot
from clipa_scaling.launch.slurm import limit_minutes
from clipa_scaling.plan import Plan, make_plan, plan_to_json
from clipa_scaling.resolve import resolve
from clipa_scaling.rundir import read_json, write_json
from clipa_scaling.spec import RunSpec, spec_to_json
from clipa_scaling.speed import SPEED_FIELDS, record_path, speed_key
from clipa_scaling.sweepfile import load_sweep
from clipa_scaling.train.calibrate import LEAST_WINDOWS, half_width, is_steady
from clipa_scaling.train.data import Batches
from clipa_scaling.train.generated import GeneratedPack
from clipa_scaling.train.labelled import LabelledBatches
from clipa_scaling.train.packed import Pack

# Three speeds of two seeds each, of which one is not measured here: it wants two devices.
TEXT = SMALL + "seeds: [0, 1]\ninclude: [{image_reduction: resize, batch_size: 128, gpus: 2}]\n"
QUICK = ("--calibrate", "--cluster", "local", "--minutes", "0.02")


def plan_of(sweep: Path) -> Plan:
    runs = sweep.parent / "runs"
    return make_plan(load_sweep(sweep, runs / ".packs"), runs)


def records(sweep: Path) -> dict[str, dict[str, Any]]:
    """By file; failures and requests apart."""
    paths = sorted((sweep.parent / "runs/.calibration").glob("*.json"))
    return {path.name: read_json(path) for path in paths if path.name.count(".") == 1}


@pytest.fixture(scope="module", autouse=True)
def without_gpus() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The sweep file, and what its calibration said; read its folder, change nothing.

    So short a measurement is not steady; the records say that it is, to be taken as settled.
    """
    sweep = write_small(tmp_path_factory.mktemp("calibrated"), TEXT)
    done = run_sweep(sweep, *QUICK, "--only", "gpus=1")
    assert done.returncode == 0, done.stdout + done.stderr
    for name, record in records(sweep).items():
        assert record["steady"] == (
            record["half_width"] is not None and record["half_width"] < 0.03
        )
        write_json(sweep.parent / "runs/.calibration" / name, record | {"steady": True})
    return sweep, done.stdout


def test_each_speed_is_measured_once(calibrated: tuple[Path, str]) -> None:
    sweep, said = calibrated
    assert said.count("samples/s ±") + said.count("samples/s in too few") == 2
    assert said.count(" and 1 more of its speed: ") == 2 and "on drawn data" in said
    assert "measured 2 of 2; GPU-hours of the sweep: " in said
    assert len(records(sweep)) == 2
    for record in records(sweep).values():
        mean = record["steps"] * 64 / record["seconds"]
        assert record["samples_per_second"] == pytest.approx(mean, rel=0.6)
        assert record["startup_seconds"] > 0 and record["peak_memory_bytes"] > 1e8
        names = ("measured_on", "device", "cores", "data")
        assert [record[name] for name in names] == ["cpu", "cpu-core", 1, "generated"]
        assert all(record[name] for name in ("host", "host_cpu", "torch", "open_clip", "version"))
    folders = {path.name for path in (sweep.parent / "runs").iterdir()}
    assert folders == {".calibration", ".code", ".sweeps"}, "no run has a folder"


def test_what_needs_several_devices_is_refused_here_before_anything_starts(
    calibrated: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_small(tmp_path, TEXT)
    call = [str(sweep), "--runs", str(tmp_path / "runs"), *QUICK]
    assert command_line.main(call) == 2
    said = capsys.readouterr().err
    assert "trains on gpus=2, and here each measurement has one; measure it with --cluster" in said
    assert not (tmp_path / "runs/.calibration").exists()


def test_a_broken_one_is_told(calibrated: tuple[Path, str], tmp_path: Path) -> None:
    rows = [row for row in plan_of(calibrated[0]).rows if row.planned.spec.gpus == 2]
    cell = Cell("0" * 16, rows[0], len(rows))
    said: list[str] = []
    work = Calibration(tmp_path / "runs", "cpu-core", 0.02, said.append)
    assert measure_here(work, [cell], [Slot("here", {})])
    assert work.failed == [cell] and "gpus=2: got 1 processes; allowed: one per GPU" in said[0]


def test_the_plan_is_priced_by_what_was_measured(calibrated: tuple[Path, str]) -> None:
    sweep, _ = calibrated
    plan, shown = plan_of(sweep), plan_to_json(plan_of(sweep))
    assert shown["priced_by"] == {"measured": 4, "assumed utilisation": 2}
    for row in plan.rows:
        record = read_json(
            record_path(sweep.parent / "runs", speed_key(row.planned.spec, "cpu-core"))
        )
        assert row.cost.priced_by == ("measured" if record else "assumed utilisation")
        if record:
            seconds = record["startup_seconds"] + 1_024 / record["samples_per_second"]
            assert row.cost.gpu_hours == pytest.approx(seconds / 3600)
            flops = row.cost.train_flops + row.cost.recompute_flops
            reached = flops / (3600 * row.cost.gpu_hours) / DEVICES["cpu-core"].fp32_flops
            assert row.cost.utilisation == pytest.approx(reached)
    said = run_sweep(sweep, "--plan").stdout
    assert (
        "by measured rates (4 of 6 runs; 4 on drawn data), the others at 50% utilisation (assumed)"
        in said
    )
    assert plan.total("gpu_hours") == pytest.approx(shown["totals"]["gpu_hours"])


def test_budget_and_automatic_hours_go_by_the_measured_rate(
    calibrated: tuple[Path, str], tmp_path: Path
) -> None:
    shutil.copytree(calibrated[0].parent, tmp_path / "copy")
    sweep = write_small(tmp_path / "copy", TEXT + "budget: {dollars_per_gpu_hour: 2}\n")
    for name, record in records(sweep).items():
        path = sweep.parent / "runs/.calibration" / name
        write_json(path, record | {"samples_per_second": 1_024 / 7_000, "startup_seconds": 200.0})
    plan = plan_of(sweep)
    [row] = [row for row in plan.rows if row.planned.spec.seed == 1][:1]
    assert [row.cost.gpu_hours, row.cost.dollars] == pytest.approx([2.0, 4.0])
    assert limit_minutes(row, plan.sweep.resources, plan.sweep.slurm, None) == 240


def test_what_is_measured_is_not_measured_again(calibrated: tuple[Path, str]) -> None:
    sweep, _ = calibrated
    before = records(sweep)
    again = run_sweep(sweep, *QUICK, "--only", "image_reduction=random")
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(
        "measured already: 1 of 1; to measure one again, delete its file"
    )
    assert records(sweep) == before


def test_another_sweep_of_the_folder_shares_the_records(calibrated: tuple[Path, str]) -> None:
    """Other seeds, samples and rates are as fast."""
    text = SMALL.replace("name: small", "name: other").replace("samples: 1_024", "samples: 4_096")
    other = calibrated[0].with_name("other.yaml")
    other.write_text(text.replace("lr: 1e-3", "lr: 2e-3") + "seeds: [7]\n")
    assert plan_of(other).priced_by == {"measured": 2}
    other.write_text(text.replace("batch_size: 64", "batch_size: 32"))
    assert plan_of(other).priced_by == {"assumed utilisation": 2}


def test_a_record_of_another_device_is_not_used(
    calibrated: tuple[Path, str], tmp_path: Path
) -> None:
    shutil.copytree(calibrated[0].parent, tmp_path / "copy")
    sweep = tmp_path / "copy" / calibrated[0].name
    runs = sweep.parent / "runs"
    [name, _], [record, _] = records(sweep).keys(), records(sweep).values()
    write_json(runs / ".calibration" / name, record | {"measured_on": "NVIDIA L40S"})
    plan = plan_of(sweep)
    assert plan.priced_by == {"measured": 2, "assumed utilisation": 4}
    cells = missing_cells(list_cells(plan.rows, "cpu-core"), runs, "cpu-core")
    assert len(cells) == 2 and name.removesuffix(".json") in {cell.key for cell in cells}
    sweep.write_text(TEXT.replace("gpu: cpu-core", "gpu: l40s-48gb"))
    assert plan_of(sweep).priced_by == {"assumed utilisation": 6}, "measured for another price"


def test_the_runs_own_pack_is_read_where_it_is_there(small_study: Path, tmp_path: Path) -> None:
    shutil.copytree(small_study.parent / "runs/.packs", tmp_path / "runs/.packs")
    sweep = write_small(tmp_path)
    done = run_sweep(sweep, *QUICK, "--only", "image_reduction=random")
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = records(sweep).values()
    assert record["data"] == plan_of(sweep).rows[0].planned.spec.pack


def test_two_processes_measure_together_and_one_writes(
    calibrated: tuple[Path, str], tmp_path: Path
) -> None:
    """As srun starts them; here nothing but the request tells what to do."""
    [row, *_] = [row for row in plan_of(calibrated[0]).rows if row.planned.spec.gpus == 2]
    request = tmp_path / "two.request.json"
    names = {"record": "two.json", "failure": "two.failed.json", "device": "cpu-core"}
    write_json(request, {**names, "minutes": 0.02, "spec": spec_to_json(row.planned.spec)})
    shared = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "clipa_scaling.train.calibrate", str(request)],
            cwd=ROOT,
            env={**os.environ, **shared, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
        )
        for rank in "01"
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert read_json(tmp_path / "two.json")["samples_per_second"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"two.json", "two.request.json"}


TINY: dict[str, Any] = {
    "model": "T32/8", "image_tokens": 4, "samples": 640, "batch_size": 32, "lr": 1e-3,
    "text_tokens": 8, "store_px": 24, "data_fingerprint": "", "image_size": 16,
}  # fmt: skip


def test_the_key_is_of_what_makes_a_run_slower_or_faster() -> None:
    spec = resolve(TINY)
    same = resolve({**TINY, "seed": 3, "samples": 6_400, "lr": 1e-4, "data_fingerprint": "x"})
    assert speed_key(spec, "cpu-core") == speed_key(same, "cpu-core")
    others: dict[str, Any] = {
        "model": "T48/8", "image_tokens": 9, "text_tokens": 9, "batch_size": 64, "gpus": 2,
        "micro_batch": 4, "precision": "fp32", "grad_checkpointing": True, "compile": True,
        "objective": "siglip", "image_reduction": "random", "image_size": 32, "store_px": 32,
    }  # fmt: skip
    assert set(others) <= set(SPEED_FIELDS) <= set(RunSpec.__dataclass_fields__)
    keys = {speed_key(replace(spec, **{name: value}), "cpu-core") for name, value in others.items()}
    keys |= {speed_key(spec, "cpu-core"), speed_key(spec, "l40s-48gb")}
    assert len(keys) == len(others) + 2


def test_timing_ends_once_the_median_is_known() -> None:
    """A median of normal windows has half a 95 % interval of 1.96 x 1.2533 s / sqrt(n)."""
    assert not is_steady([1.0] * (LEAST_WINDOWS - 1)) and is_steady([1.0] * LEAST_WINDOWS)
    windows = list(np.random.default_rng(0).normal(1.0, 0.1, 4_000))
    assert half_width(windows) == pytest.approx(1.96 * 1.2533 * 0.1 / 4_000**0.5, rel=0.2)
    assert not is_steady(windows[:20]) and is_steady(windows[:400])


def test_drawn_batches_have_the_shapes_of_packed_ones(small_study: Path) -> None:
    folder = sorted((small_study.parent / "runs/.packs").glob("*-captions"))[0]
    packed = Pack.open(folder)
    spec = resolve({**TINY, "store_px": packed.px, "classes": 5})
    drawn = GeneratedPack(spec)
    options: dict[str, Any] = {"batch_size": 32, "image_size": 8, "text_tokens": 8, "seed": 0}
    options |= {"crop_min_area": 0.5, "window": 4}
    one = Batches(drawn, text_reduction="syntax", word_classes="scenes", **options).at(32)
    other = Batches(packed, **options).at(32)
    for name in ("picture_BHWC", "text_BT", "sample_B"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), name
    labelled = LabelledBatches(drawn, ("a {}",), **options).at(0)
    assert labelled.text_BT.shape == (5, 8) and labelled.label_B is not None
    assert set(labelled.label_B.tolist()) == set(range(5))


def test_what_cannot_be_measured_here_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_small(tmp_path, SMALL.replace("gpu: cpu-core", "gpu: l40s-48gb"))
    call = [str(sweep), "--runs", str(tmp_path / "runs"), "--calibrate", "--cluster", "local"]
    assert command_line.main(call) == 2
    assert capsys.readouterr().err == (
        f"{sweep}: resources.gpu=l40s-48gb is not here: no GPU is visible; allowed: cpu-core, or a "
        "machine or cluster that has one\n"
    )
    assert command_line.main([*call, "--only", "seed=9"]) == 2
    assert "--only seed=9 fits none of its runs" in capsys.readouterr().err
    for options in (["--plan", "--minutes", "1"], ["--calibrate", "--minutes", "0"]):
        with pytest.raises(SystemExit):
            command_line.main([str(sweep), *options])
        assert "--minutes" in capsys.readouterr().err
    assert json.dumps(plan_to_json(plan_of(sweep))["priced_by"]) == '{"assumed utilisation": 2}'
