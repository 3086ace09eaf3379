"""Starting from the weights of another run, at other lengths if need be."""

from __future__ import annotations

from collections.abc import Sequence

import open_clip
import torch
from safetensors.torch import load_file

from clipa_scaling.rundir import RunDir
from clipa_scaling.train.checkpoint import WEIGHTS
from clipa_scaling.train.ending import Refused
from clipa_scaling.train.fit_weights import fit_weights
from clipa_scaling.train.positions import Weights


def load_parent(
    model: open_clip.CLIP,
    child: RunDir,
    parent: RunDir,
    *,
    image_change: str = "interpolate",
    text_change: str = "interpolate",
    fresh_weights: Sequence[str] = (),
    initial: Weights | None = None,
) -> None:
    """Give a model its parent's last weights; for the rest see `fit_weights`.

    Repeatable: with `initial`, the weights of the fresh model, each call starts from those.
    Refused where the parent is not done, or does not fit.
    """
    fit_weights(
        model,
        read_parent(child, parent),
        f"{child.path.name}: parent {parent.path.name}",
        image_change=image_change,
        text_change=text_change,
        fresh_weights=fresh_weights,
        initial=initial,
    )


def read_parent(child: RunDir, parent: RunDir) -> dict[str, torch.Tensor]:
    """A parent's last weights; Refused where it is not done."""
    folder = parent.last_checkpoint()
    if folder is None or not parent.done.exists():
        raise Refused(
            f"{child.path.name}: parent {parent.path.name} is not done; allowed: a parent with "
            "done.json beside this run; run it first"
        )
    return load_file(folder / WEIGHTS)
