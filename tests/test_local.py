"""Slots follow the machine: one run per visible GPU, else per core, and cores are shared out."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console
from small_sweep import SMALL, run_sweep, write_small

from clipa_scaling.launch.local import Display, Pool, find_slots, run_pool, visible_gpus
from clipa_scaling.plan import make_plan
from clipa_scaling.rundir import RunDir, RunState, make_run, write_json
from clipa_scaling.show import clock, dollars, hours, si
from clipa_scaling.spec import spec_to_json
from clipa_scaling.sweepfile import load_sweep


def test_visible_gpus_respect_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    for mask, gpus in {"": [], "-1": [], "2,5": ["2", "5"], "GPU-8f2a": ["GPU-8f2a"]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
        assert visible_gpus() == gpus


def test_gpus_are_counted_where_no_mask_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program in place of nvidia-smi, which this machine need not have."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A100'\necho 'GPU 1: NVIDIA A100'\n")
    program.chmod(0o755)
    assert visible_gpus() == ["0", "1"]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in find_slots()] == ["0", "1"]
    assert [slot.name for slot in find_slots(1)] == ["gpu0"], "fewer jobs, still on GPUs"
    program.write_text("#!/bin/sh\necho 'GPU 0: but no driver'\nexit 9\n")
    assert visible_gpus() == []


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for jobs, threads in {None: 1, 8: 1, 99: 1, 3: 2, 2: 4, 1: 8}.items():
        slots = find_slots(jobs)
        assert len(slots) == min(jobs or 8, 8)
        assert {slot.environment["OMP_NUM_THREADS"] for slot in slots} == {str(threads)}


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (si(12.58e9), "12.6 G"),
        (si(999e18, "FLOPs"), "999 EFLOPs"),
        (si(0.5), "0.5"),
        (si(999.9e6), "1 G"),
        (si(float("nan")), "-"),
        (hours(1234.5), "1,234"),
        (hours(0.00134), "0.00134"),
        (hours(float("inf")), "-"),
        (dollars(9324.4), "$9,324"),
        (dollars(1.5), "$1.50"),
        (dollars(float("nan")), "-"),
        (clock(59.6), "1:00"),
        (clock(3_661), "1:01:01"),
    ],
)
def test_numbers_are_short_and_unknown_ones_a_dash(shown: str, wanted: str) -> None:
    assert shown == wanted


def test_a_run_that_dies_before_it_starts_has_failed_and_an_old_ending_is_not_told_again(
    tmp_path: Path, small_study: Path
) -> None:
    """Its state is that of an earlier attempt; its process cannot read its spec."""
    runs = tmp_path / "runs"
    plan = make_plan(load_sweep(small_study, runs / ".packs"), runs)
    [item, _] = [row.planned for row in plan.rows]
    run = RunDir(runs / item.id)
    make_run(run, {"nonsense": 1})
    write_json(run.state, {"state": "failed", "reason": "long ago", "samples": 64, "attempt": 1})
    said = io.StringIO()
    slots = find_slots(1)
    [state] = run_pool(runs, [item], slots, tmp_path / "logs", Console(file=said)).values()
    assert (state.name, state.samples) == ("failed", 64)
    assert state.reason == f"exit code 1 before it started; see {tmp_path}/logs/{item.id}.log"
    assert "unknown fields ['nonsense']" in (tmp_path / f"logs/{item.id}.log").read_text()
    assert said.getvalue().count("failed") == 1 and "long ago" not in said.getvalue()


def test_brackets_in_an_error_are_no_markup(tmp_path: Path, small_study: Path) -> None:
    runs = tmp_path / "runs"
    plan = make_plan(load_sweep(small_study, runs / ".packs"), runs)
    items = [row.planned for row in plan.rows]
    said = io.StringIO()
    pool = Pool(runs, items, find_slots(1), tmp_path)
    for item, reason in zip(items, ["cannot open [/data/x]", "[enforce fail]"], strict=True):
        pool.working[item.id] = (None, pool.free[0])
        pool.end(item.id, RunState("failed", reason=reason))
    Display(Console(file=said, width=300), pool).show(None)
    assert "cannot open [/data/x]" in said.getvalue() and "[enforce fail]" in said.getvalue()


CHILDREN = "stages: {more: {kind: finetune, parent: pretrain, set: {lr: 1e-4, samples: 64}}}\n"


@pytest.mark.slow
def test_children_start_when_their_parents_are_done(tmp_path: Path) -> None:
    text = SMALL.replace("samples: 1_024", "samples: 64").replace("warmup_samples: 128", "seed: 3")
    sweep = write_small(tmp_path, text + CHILDREN)
    done = run_sweep(sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    ends = {
        json.loads((path.parent / "spec.json").read_text())["stage"]: path.stat().st_mtime
        for path in sorted((tmp_path / "runs").glob("*/done.json"))
    }
    assert set(ends) == {"pretrain", "more"}
    assert len(list((tmp_path / "runs").glob("*/done.json"))) == 4
    for path in (tmp_path / "runs").glob("finetune-*"):
        parent = tmp_path / "runs" / json.loads((path / "spec.json").read_text())["parent"]
        started = json.loads((path / "attempts/1/env.json").read_text())["time"]
        assert started > (parent / "done.json").stat().st_mtime


@pytest.mark.slow
def test_a_fault_of_all_runs_stops_the_pool(tmp_path: Path) -> None:
    """Packs that are gone when the runs start: the first three fail alike, nothing more starts."""
    seeds = "seeds: [0, 1, 2, 3, 4, 5]\n"
    sweep = write_small(tmp_path, SMALL + seeds)
    runs = tmp_path / "runs"
    plan = make_plan(load_sweep(sweep, runs / ".packs"), runs)
    for row in plan.rows:
        make_run(RunDir(runs / row.planned.id), spec_to_json(row.planned.spec))
    said = io.StringIO()
    planned = [row.planned for row in plan.rows]
    states = run_pool(runs, planned, find_slots(1), tmp_path / "logs", Console(file=said))
    counts = Counter(state.name for state in states.values())
    assert counts == {"failed": 3, "planned": 9}
    assert "the first runs to end all failed alike" in said.getvalue()


@pytest.mark.slow
def test_inline_runs_one_after_another_in_this_process_and_keeps_its_output(tmp_path: Path) -> None:
    text = SMALL.replace("samples: 1_024", "samples: 128")
    done = run_sweep(write_small(tmp_path, text), "--cluster", "inline")
    assert done.returncode == 0, done.stdout + done.stderr
    owners = {
        json.loads(path.read_text())["claim"]["pid"]
        for path in (tmp_path / "runs").glob("pretrain-*/attempts/1/env.json")
    }
    assert len(owners) == 1 and len(list((tmp_path / "runs").glob("*/done.json"))) == 2
    logs = (tmp_path / "runs").glob("pretrain-*/attempts/1/log")
    assert all(path.read_text() == "" for path in logs)
