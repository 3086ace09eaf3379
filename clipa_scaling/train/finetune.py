"""Starting from the weights of another run, at other lengths if need be."""

from __future__ import annotations

import open_clip
import torch
from open_clip.model import resize_pos_embed, resize_text_pos_embed
from safetensors.torch import load_file

from clipa_scaling.rundir import RunDir
from clipa_scaling.train.checkpoint import WEIGHTS
from clipa_scaling.train.ending import Refused

# Learned, one row per position: what another image size or text length changes.
TABLES = ("visual.positional_embedding", "positional_embedding")


def load_parent(model: open_clip.CLIP, child: RunDir, parent: RunDir) -> None:
    """Give a model its parent's last weights, position tables resized as open_clip does.

    Refused where the parent is not done, or any weight is missing, unexpected or of another shape.
    """
    folder = parent.last_checkpoint()
    if folder is None or not parent.done.exists():
        raise Refused(
            f"{child.path.name}: parent {parent.path.name} is not done; allowed: a parent with "
            "done.json beside this run; run it first"
        )
    weights = load_file(folder / WEIGHTS)
    check_fit(weights, model.state_dict(), child, parent)
    resize_pos_embed(weights, model)
    resize_text_pos_embed(weights, model)
    model.load_state_dict(weights)


def check_fit(
    theirs: dict[str, torch.Tensor], ours: dict[str, torch.Tensor], child: RunDir, parent: RunDir
) -> None:
    """Refused, naming the first weight that does not fit."""
    for name in sorted(theirs.keys() | ours.keys()):
        first = 1 if name in TABLES else 0  # axis that has to fit
        if name not in theirs:
            fault = f"{name} is missing"
        elif name not in ours:
            fault = f"{name} is unexpected"
        elif theirs[name].shape[first:] != ours[name].shape[first:]:
            fault = f"{name} has shape {list(theirs[name].shape)}, not {list(ours[name].shape)}"
        else:
            continue
        raise Refused(
            f"{child.path.name}: parent {parent.path.name} does not fit: {fault}; allowed: a "
            "parent of the same model"
        )
