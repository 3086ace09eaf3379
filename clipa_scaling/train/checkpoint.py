"""Saving and loading everything an exact resume needs; a checkpoint appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from clipa_scaling.rundir import OPTIMIZER, RunDir, sync_folder

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Samples seen, weights, optimizer state and the open logging window."""

    samples: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any] | None
    window: dict[str, Any]


def save(run: RunDir, checkpoint: Checkpoint, kept: Collection[int] = ()) -> None:
    """Write `checkpoints/<samples>/` under a temporary name, fsync, rename; drop older ones.

    kept: the samples whose checkpoints stay.
    """
    run.checkpoints.mkdir(exist_ok=True)
    final = run.checkpoints / str(checkpoint.samples)
    if not final.exists():
        write(final, checkpoint)
    keep_only(run, {final.name, *map(str, kept)})


def write(final: Path, checkpoint: Checkpoint) -> None:
    """Fill a folder under a temporary name, make it durable, give it its name."""
    temporary = final.with_name(f".{final.name}.{os.getpid()}.{secrets.token_hex(4)}")
    temporary.mkdir()
    save_file({k: v.contiguous() for k, v in checkpoint.weights.items()}, temporary / WEIGHTS)
    torch.save(
        {"optimizer": checkpoint.optimizer, "window": checkpoint.window}, temporary / OPTIMIZER
    )
    for name in (WEIGHTS, OPTIMIZER):
        with open(temporary / name, "rb") as file:
            os.fsync(file.fileno())
    sync_folder(temporary)
    temporary.rename(final)
    sync_folder(final.parent)


def keep_only(run: RunDir, kept: Collection[str]) -> None:
    """Remove every other checkpoint, and what a kill left half-written."""
    for folder in run.checkpoints.iterdir():
        if folder.name not in kept:
            shutil.rmtree(folder)


def load(run: RunDir, samples: int, device: torch.device) -> Checkpoint:
    """The checkpoint at so many samples; a finished run's has no optimizer state."""
    folder = run.checkpoints / str(samples)
    weights = load_file(folder / WEIGHTS, device=str(device))
    state: dict[str, Any] = {"optimizer": None, "window": {}}
    if (folder / OPTIMIZER).exists():
        state = torch.load(folder / OPTIMIZER, map_location=device, weights_only=True)
    return Checkpoint(samples, weights, state["optimizer"], state["window"])


def drop_optimizer(run: RunDir, kept: Collection[int] = ()) -> None:
    """Once a run is done its last optimizer state serves nobody: finetuning starts a fresh one.

    kept: the samples that decay runs branch off from.
    """
    folder = run.last_checkpoint()
    if folder is not None and int(folder.name) not in kept:
        (folder / OPTIMIZER).unlink(missing_ok=True)
