"""Records of measured rates: which are measured again, what the plan says, whose jobs are ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_sweep import start_sweep, write_small

from clipa_scaling.cost import DEVICES
from clipa_scaling.launch import calibrate_jobs, commands
from clipa_scaling.launch.calibrate import Calibration, list_cells, missing_cells
from clipa_scaling.launch.slurm import limit_minutes
from clipa_scaling.plan import Plan, make_plan
from clipa_scaling.rundir import write_json
from clipa_scaling.show import say_pricing
from clipa_scaling.speed import TORCH_NAMES, is_device, record_path
from clipa_scaling.sweepfile import load_sweep


def plan_of(sweep: Path) -> Plan:
    runs = sweep.parent / "runs"
    return make_plan(load_sweep(sweep, runs / ".packs"), runs)


def write_records(sweep: Path, **changes: Any) -> None:
    """A record of each speed on one device, as an hour of them says."""
    record: dict[str, Any] = {
        "samples_per_second": 1_024 / 3_600,
        "startup_seconds": 0.0,
        "half_width": 0.01,
    }
    record |= {"cores": 1, "measured_on": "cpu", "data": "elsewhere", "steady": True, **changes}
    for cell in list_cells(plan_of(sweep).rows, "cpu-core"):
        path = record_path(sweep.parent / "runs", cell.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)


def missing(sweep: Path) -> int:
    cells = list_cells(plan_of(sweep).rows, "cpu-core")
    return len(missing_cells(cells, sweep.parent / "runs", "cpu-core"))


def test_a_rate_that_is_not_steady_is_priced_by_told_and_measured_again(tmp_path: Path) -> None:
    sweep = write_small(tmp_path)
    write_records(sweep)
    assert missing(sweep) == 0 and "(2 of 2 runs);" in say_pricing(plan_of(sweep))
    write_records(sweep, steady=False)
    assert missing(sweep) == 2 and "(2 of 2 runs; 2 not steady);" in say_pricing(plan_of(sweep))


def test_drawn_data_are_told_and_give_way_to_the_pack(tmp_path: Path) -> None:
    sweep = write_small(tmp_path)
    write_records(sweep, data="generated")
    assert missing(sweep) == 0
    assert "(2 of 2 runs; 2 on drawn data);" in say_pricing(plan_of(sweep))
    pack = Path(plan_of(sweep).rows[0].planned.spec.pack)
    pack.mkdir(parents=True)
    (pack / "pack.json").write_text("{}")
    assert missing(sweep) == 2


def test_automatic_hours_are_wall_hours_whatever_the_threads(tmp_path: Path) -> None:
    sweep = write_small(tmp_path)
    write_records(sweep, cores=16)
    plan = plan_of(sweep)
    assert plan.rows[0].cost.gpu_hours == pytest.approx(16.0)
    assert limit_minutes(plan.rows[0], plan.sweep.resources, plan.sweep.slurm, None) == 2 * 60


def test_a_killed_launcher_takes_its_measurement_along(tmp_path: Path) -> None:
    """Lest the next call times its own beside it."""
    sweep = write_small(tmp_path)
    launcher = start_sweep(sweep, "--calibrate", "--cluster", "local", "--minutes", "5")
    wait_until(lambda: bool(measuring(launcher.pid)))
    [child] = measuring(launcher.pid)
    launcher.kill()
    launcher.communicate()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    records = (sweep.parent / "runs/.calibration").glob("????????????????.json")
    assert not list(records)


def measuring(launcher: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(launcher).children():
        with suppress(psutil.NoSuchProcess):  # git's, say, gone or a zombie by now
            if "clipa_scaling.train.calibrate" in child.cmdline():
                found.append(child)
    return found


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def test_a_job_that_can_never_start_is_ended_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, said = write_small(tmp_path), list[str]()
    work = Calibration(tmp_path / "runs", "cpu-core", 1.0, said.append)
    cell = list_cells(plan_of(sweep).rows, "cpu-core")[0]
    work.request(cell)
    name = calibrate_jobs.job_name(work, cell)
    programs = {
        "squeue": f"echo '7|PENDING|{commands.STUCK}||0:00|{name}'",
        "scancel": f"echo $@ >> {tmp_path / 'ended'}",
    }
    for program, line in programs.items():
        (tmp_path / program).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    calibrate_jobs.wait_for(work, [cell])
    assert f"its job 7 cannot start ({commands.STUCK})" in said[0]
    assert (tmp_path / "ended").read_text() == "7\n"


@pytest.mark.parametrize(
    ("measured_on", "name"),
    [
        ("cpu", "cpu-core"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA H200", "h200-141gb"),
        ("Tesla V100-SXM2-32GB", "v100-32gb"),
        ("Tesla V100-SXM2-16GB", None),
        ("NVIDIA L40S", "l40s-48gb"),
        ("NVIDIA L40", None),
        ("NVIDIA GeForce RTX 4090", "rtx4090-24gb"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GH200 480GB", None),
    ],
)
def test_torchs_names_of_devices(measured_on: str, name: str | None) -> None:
    assert set(TORCH_NAMES) == set(DEVICES)
    found = [device for device in DEVICES if is_device(device, measured_on)]
    assert found == ([] if name is None else [name])
