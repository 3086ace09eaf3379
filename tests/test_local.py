"""Slots follow the machine: one run per visible GPU, else per core, and cores are shared out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipa_scaling.launch.local import find_slots, visible_gpus
from clipa_scaling.show import clock, dollars, hours, si


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
