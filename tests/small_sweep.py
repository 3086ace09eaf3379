"""A study small enough for a test, run by the real command in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from make_data import ROOT

# Two runs: one resized, one masked; a step is 64 samples.
SMALL = """\
name: small
data:
  train: scenes
  pairs: 5_000
  store_px: 16
  evals:
    scenes: {path: scenes, task: classify, pairs: 400, seed: 1, prompts: ["a large {}"]}
    held_out: {path: scenes, task: retrieve, pairs: 150, seed: 2}
fixed:
  model: T32/8
  image_tokens: 4
  samples: 1_024
  batch_size: 64
  lr: 1e-3
  warmup_samples: 128
  text_tokens: 8
  precision: fp32
  eval_every_samples: 512
  eval_batch: 32
  checkpoint_every_samples: 256
  log_every_samples: 128
axes:
  image_reduction: [resize, random]
rules:
  - {when: {image_reduction: random}, set: {image_size: 32, image_tokens: 5}}
resources: {gpu: cpu-core}
"""


def write_small(folder: Path, text: str = SMALL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def command(sweep: Path, *options: str) -> list[str]:
    """The command a user types, its runs and results beside the sweep file."""
    places = ["--runs", str(sweep.parent / "runs"), "--results", str(sweep.parent / "results")]
    return [sys.executable, "-m", "clipa_scaling.sweep", str(sweep), *places, *options]


def run_sweep(sweep: Path, *options: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        command(sweep, *options), cwd=ROOT, capture_output=True, text=True, timeout=seconds
    )


def start_sweep(sweep: Path, *options: str) -> subprocess.Popen[str]:
    """The command, at work."""
    return subprocess.Popen(
        command(sweep, *options),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_tree(process: subprocess.Popen[str]) -> None:
    """SIGKILL a launcher and all it started, at once."""
    everyone = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in everyone:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(everyone, timeout=30)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def wait_until(happens: Any, process: subprocess.Popen[str], seconds: float = 300) -> bool:
    """Poll until `happens()`; False when the process ended first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happens():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.003)
    raise TimeoutError("what the test waits for never happened")


def outcome(runs: Path) -> dict[str, Any]:
    """All that a study leaves and a kill must not change: weights, metrics, evaluations, packs.

    Metrics without time, throughput and attempt, the only things that may differ.
    """
    found: dict[str, Any] = {}
    for run in sorted(runs.glob("pretrain-*")):
        [checkpoint] = (run / "checkpoints").iterdir()
        assert [path.name for path in checkpoint.iterdir()] == ["weights.safetensors"]
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            del row["samples_per_second"], row["attempt"]
        done = json.loads((run / "done.json").read_text())
        found[run.name] = {
            "checkpoint": checkpoint.name,
            "weights": (checkpoint / "weights.safetensors").read_bytes(),
            "metrics": rows,
            "evals": json.loads((run / "evals.json").read_text()),
            "done": {name: done[name] for name in ("samples", "loss")},
        }
    for path in sorted(runs.glob(".packs/*/*")):
        if path.name == "request.json":  # says which sweep file asked
            continue
        found[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    return found
