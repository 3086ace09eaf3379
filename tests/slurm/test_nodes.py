"""A run over two nodes is the run of one process: the same global batches, the same losses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from small_sweep import command, write_small

from clipa_scaling import rundir
from slurm.cluster import Cluster

SWEEP = """\
name: nodes
data:
  train: scenes
  pairs: 2_000
  store_px: 32
  evals:
    held_out: {path: scenes, task: retrieve, pairs: 100, seed: 2}
fixed:
  model: T32/8
  image_tokens: TOKENS
  image_reduction: REDUCTION
  image_size: 32
  samples: 1_280
  batch_size: 64
  lr: 1e-3
  text_tokens: 8
  precision: fp32
  log_every_samples: 64
  gpus: GPUS
resources: {gpu: cpu-core}
slurm: {gpus_per_node: 1, cpus_per_task: 1}
"""


def run(folder: Path, cluster: Cluster, gpus: int, reduction: str, *options: str) -> rundir.RunDir:
    text = SWEEP.replace("REDUCTION", reduction).replace("GPUS", str(gpus))
    sweep = write_small(folder, text.replace("TOKENS", "16" if reduction == "resize" else "7"))
    done = subprocess.run(
        command(sweep, *options), capture_output=True, text=True, timeout=600,
        env=os.environ | cluster.environment | {"CLIPA_POLL_SECONDS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = (folder / "runs").glob("pretrain-*")
    return rundir.RunDir(path)


@pytest.mark.parametrize("reduction", ["resize", "random"])
def test_two_nodes_equal_one_process(cluster: Cluster, tmp_path: Path, reduction: str) -> None:
    two = run(tmp_path / "two", cluster, 2, reduction, "--follow")
    one = run(tmp_path / "one", cluster, 1, reduction, "--cluster", "local")
    assert two.path.name == one.path.name, "how many devices is no part of what a run is"
    rows_of_two, rows_of_one = rundir.read_jsonl(two.metrics), rundir.read_jsonl(one.metrics)
    assert len(rows_of_two) == len(rows_of_one) == 20
    for row, wanted in zip(rows_of_two, rows_of_one, strict=True):
        assert_equal(row, wanted, ("loss", "grad_norm", "temperature"), 1e-5)
        same = ("samples", "lr", "image_tokens_seen", "text_tokens_seen", "text_tokens_real")
        assert [row[name] for name in same] == [wanted[name] for name in same]


def assert_equal(
    row: dict[str, Any], wanted: dict[str, Any], names: tuple[str, ...], share: float
) -> None:
    for name in names:
        assert row[name] == pytest.approx(wanted[name], rel=share), (row["samples"], name)
