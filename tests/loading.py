"""Weights of a parent or a release into a model, without a run around it."""

from __future__ import annotations

from collections.abc import Sequence

import open_clip

from clipa_scaling.rundir import RunDir
from clipa_scaling.train.begin import read_parent
from clipa_scaling.train.fit_weights import fit_weights
from clipa_scaling.train.positions import Weights
from clipa_scaling.train.released import name_starts, read_start


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


def load_start(
    model: open_clip.CLIP,
    image_start: str,
    text_start: str,
    *,
    image_change: str = "interpolate",
    text_change: str = "interpolate",
    fresh_weights: Sequence[str] = (),
    initial: Weights | None = None,
) -> None:
    """Give each tower that names a start its weights; for the rest see `fit_weights`.

    From one source for both come the logit scale, and the bias, too. Repeatable with `initial`.
    Refused where the weights cannot be had or do not fit.
    """
    fit_weights(
        model,
        read_start(model, image_start, text_start),
        " and ".join(dict.fromkeys(start for start in (image_start, text_start) if start)),
        image_change=image_change,
        text_change=text_change,
        fresh_weights=fresh_weights,
        initial=initial,
        parts=[part for part, start in name_starts(image_start, text_start).items() if start],
    )
