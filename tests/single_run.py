"""One tiny run in a folder of its own, without a sweep, and the processes that train it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from make_data import ROOT, pack_here
from safetensors.torch import load_file
from torch import Tensor

from clipa_scaling.resolve import resolve
from clipa_scaling.rundir import RunDir, make_run, read_jsonl
from clipa_scaling.source import Source
from clipa_scaling.spec import EvalSet, spec_to_json
from clipa_scaling.train.packed import Pack

PX = 16
TINY: dict[str, Any] = {
    "model": "T32/8",
    "image_tokens": 4,
    "samples": 20 * 32,
    "batch_size": 32,
    "lr": 1e-3,
    "warmup_samples": 64,
    "text_tokens": 8,
    "precision": "fp32",
    "store_px": PX,
    "log_every_samples": 32,
    "checkpoint_every_samples": 160,
    "eval_batch": 4,
}
MASKED = {"image_reduction": "random", "image_size": 32, "image_tokens": 5}


def pack_scenes(folder: Path, pairs: int, seed: int) -> Pack:
    """Scenes with captions."""
    return pack_here(folder, Source("scenes", "scenes", pairs=pairs, seed=seed), PX)


def plan_run(path: Path, train: Pack, test: Pack | None = None, **changes: Any) -> RunDir:
    """A run's folder with the tiny spec, some fields changed."""
    data = {"data_fingerprint": train.fingerprint, "pack": str(train.folder)}
    sets = {}
    if test is not None:
        sets["evals"] = (EvalSet("pairs", "retrieve", str(test.folder), test.fingerprint),)
    run = RunDir(path)
    make_run(run, spec_to_json(resolve({**TINY, **data, **sets, **changes})))
    return run


def start_run(run: RunDir, tasks: int = 1, step: int = 0) -> list[subprocess.Popen[str]]:
    """The run's processes as srun starts them, or one as a shell does; `step` names the start."""
    processes = []
    for rank in range(tasks):
        slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": str(step), "SLURM_NTASKS": str(tasks)}
        slurm |= {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "clipa_scaling.train.loop", str(run.path)],
                cwd=ROOT,
                env=os.environ | (slurm if tasks > 1 else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return processes


def end_run(processes: list[subprocess.Popen[str]]) -> tuple[list[int], str]:
    """Every rank's exit code, and all that they said."""
    try:
        said = "".join(process.communicate(timeout=120)[0] for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [process.returncode for process in processes], said


def train_run(run: RunDir, tasks: int, step: int = 0) -> RunDir:
    """The run, trained to its end by several processes."""
    codes, said = end_run(start_run(run, tasks, step))
    logs = "".join(path.read_text() for path in run.attempts.glob("*/log*"))
    assert codes == [0] * tasks, said + logs
    return run


def weights_of(run: RunDir) -> dict[str, Tensor]:
    folder = run.last_checkpoint()
    assert folder is not None
    return load_file(folder / "weights.safetensors")


def outcome_of(run: RunDir) -> dict[str, Any]:
    """What a stop must not change: weights, metrics without time and attempt, evaluations."""
    rows = read_jsonl(run.metrics)
    for row in rows:
        del row["samples_per_second"], row["attempt"]
    folder = run.last_checkpoint()
    assert folder is not None
    evals = json.loads(run.evals.read_text())
    weights = (folder / "weights.safetensors").read_bytes()
    return {"weights": weights, "metrics": rows, "evals": evals}
