"""Another model's weights in this one: what must fit, what may stay fresh, and saying which."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import open_clip
import torch

from clipa_scaling.train.ending import Refused
from clipa_scaling.train.positions import (
    IMAGE_TABLE,
    TEXT_TABLE,
    Weights,
    change_image,
    change_text,
)

PARTS = ("image", "text", "scale")
SHOWN = 8  # names of fresh weights in the log


def part_of(name: str) -> str:
    """Which part of a CLIP a weight belongs to: a tower, or the scale and bias between them."""
    if name in ("logit_scale", "logit_bias"):
        return "scale"
    return "image" if name.startswith("visual.") else "text"


def fit_weights(
    model: open_clip.CLIP,
    theirs: Weights,
    who: str,
    *,
    image_change: str = "interpolate",
    text_change: str = "interpolate",
    fresh_weights: Sequence[str] = (),
    initial: Weights | None = None,
    parts: Sequence[str] = PARTS,
) -> None:
    """Load weights into the parts of a model, position tables brought to its lengths.

    Refused, `who` first, for a weight that is missing, unexpected or of another shape, and for a
    name in `fresh_weights` (whole, or with a trailing *) that names nothing. Named ones keep the
    fresh model's values where they do not fit, a position table of another length among them, and
    are dropped where they are unexpected; one that fits is loaded. Says in the log what it did.

    `initial`: the fresh model's weights, for repeated use; default are those that it has now.
    """
    ours = dict(initial if initial is not None else model.state_dict())
    theirs = {name: value for name, value in theirs.items() if part_of(name) in parts}
    check_names(fresh_weights, [*ours, *theirs], who)
    loaded: dict[str, torch.Tensor] = {}
    fresh: list[str] = []
    dropped: list[str] = []
    for name in sorted(theirs.keys() | {name for name in ours if part_of(name) in parts}):
        named = is_named(name, fresh_weights)
        fault = find_fault(name, ours, theirs, whole=named)
        if fault is None:
            loaded[name] = theirs[name]
        elif named:
            (fresh if name in ours else dropped).append(name)
        else:
            raise Refused(
                f"{who} does not fit: {fault}; allowed: weights of the same model, or "
                f"fresh_weights: [{name}]"
            )
    said = [f"{who}: {len(loaded)} weights loaded"]
    for name, change_table, change in (
        (IMAGE_TABLE, change_image, image_change),
        (TEXT_TABLE, change_text, text_change),
    ):
        if name in loaded:
            loaded[name] = change_table(model, theirs[name], ours[name], change)
            said.append(tell_change(name, len(theirs[name]), len(ours[name]), change))
    model.load_state_dict(ours | loaded)
    said += [f"fresh: {list_some(fresh)}", f"dropped: {list_some(dropped)}"]
    print("; ".join(said), flush=True)


def list_some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more or "none"


def tell_change(name: str, before: int, after: int, change: str) -> str:
    """How a position table came to its length, for the log."""
    tower, cls = ("image", 1) if name == IMAGE_TABLE else ("text", 0)
    if before == after and change != "recompute":
        return f"{tower} positions {after - cls} as they were"
    return f"{tower} positions {before - cls} to {after - cls}: {change}"


def find_fault(name: str, ours: Weights, theirs: Weights, whole: bool) -> str | None:
    """What is wrong with a weight; a position table's length is, only where `whole` is asked."""
    if name not in theirs:
        return f"{name} is missing"
    if name not in ours:
        return f"{name} is unexpected"
    first = 1 if name in (IMAGE_TABLE, TEXT_TABLE) and not whole else 0  # axis that has to fit
    if theirs[name].shape[first:] != ours[name].shape[first:]:
        return f"{name} has shape {list(theirs[name].shape)}, not {list(ours[name].shape)}"
    patches = len(theirs[name]) - 1 if name == IMAGE_TABLE else 0
    if isqrt(patches) ** 2 != patches:
        return f"{name} has {patches} positions beside CLS, which are no square"
    return None


def is_named(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern names a weight: whole, or with a trailing * by how it starts."""
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        for pattern in patterns
    )


def check_names(patterns: Sequence[str], names: Sequence[str], who: str) -> None:
    """Refused for the first pattern that names no weight of either side."""
    for pattern in patterns:
        if not any(is_named(name, [pattern]) for name in names):
            raise Refused(
                f"{who}: fresh_weights={pattern!r} names no weight; allowed: a weight's whole "
                "name, such as text_projection, or its start and a *"
            )
