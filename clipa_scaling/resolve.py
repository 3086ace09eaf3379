"""From a cell's values to a RunSpec: derived fields filled in, the rules checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from clipa_scaling.models import load_model
from clipa_scaling.spec import LONGEST_TEXT, SHORTEST_TEXT, RunSpec, SpecError

REQUIRED = ("model", "image_tokens", "samples", "batch_size", "lr")


def resolve(values: Mapping[str, Any]) -> RunSpec:
    """A RunSpec from typed values: derived fields filled in, rules checked, samples rounded up.

    Raises SpecError naming the field, its value, the rule and the way out.
    """
    for name in REQUIRED:
        if name not in values:
            raise SpecError(name, f"{name} is not set; set it under fixed:, axes: or a rule")
    try:
        model = load_model(values["model"])
    except ValueError as error:
        raise SpecError("model", str(error)) from None
    resolved = dict(values)
    resolved["image_size"] = check_image(values, model.patch)
    check_numbers(values)
    check_project(values.get("wandb", ""))
    steps = -(-values["samples"] // values["batch_size"])
    resolved["samples"] = steps * values["batch_size"]
    return RunSpec(**resolved)


def check_image(values: Mapping[str, Any], patch: int) -> int:
    """The image size in px that gives this token count, or SpecError with the nearest counts."""
    tokens, given = values["image_tokens"], values.get("image_size", 0)
    if tokens < 1:
        raise SpecError("image_tokens", f"image_tokens={tokens} is below 1; nearest: 1")
    if values.get("image_reduction", "resize") == "resize":
        side = math.isqrt(tokens)
        if side * side != tokens:
            message = f"image_tokens={tokens} is no square, as resize needs; "
            raise SpecError("image_tokens", f"{message}nearest: {side**2}, {(side + 1) ** 2}")
        if given not in (0, side * patch):
            message = f"image_size={given} does not give image_tokens={tokens} at patch {patch}; "
            raise SpecError("image_size", f"{message}allowed: {side * patch}, or leave it out")
        return side * patch
    size = given or 224
    if size % patch:
        message = f"image_size={size} is no multiple of patch {patch}; "
        near = max(patch, round(size / patch) * patch)
        raise SpecError("image_size", f"{message}nearest: {near}")
    if tokens > (size // patch) ** 2:
        message = f"image_tokens={tokens} is more than image_size {size} at patch {patch} has; "
        raise SpecError("image_tokens", f"{message}allowed: 1 to {(size // patch) ** 2}")
    return size


POSITIVE = ("samples", "batch_size", "lr", "gpus", "shuffle_shards", "epsilon", "eval_batch")
CADENCES = ("eval_every_samples", "checkpoint_every_samples", "log_every_samples")
NOT_NEGATIVE = ("warmup_samples", "weight_decay", "seed", *CADENCES)


def check_numbers(values: Mapping[str, Any]) -> None:
    """The rules of single numbers; SpecError with the allowed range."""
    for name in POSITIVE:
        if name in values and values[name] <= 0:
            raise SpecError(name, f"{name}={values[name]} is not positive; allowed: above 0")
    for name in NOT_NEGATIVE:
        if name in values and values[name] < 0:
            raise SpecError(name, f"{name}={values[name]} is negative; allowed: 0 or more")
    ranges = {
        "text_tokens": (SHORTEST_TEXT, LONGEST_TEXT),
        "crop_min_area": (0.01, 1.0),
        "beta1": (0.0, 0.9999),
        "beta2": (0.0, 0.99999),
        "vocab_size": (49_408, 49_408),  # what the CLIP tokenizer has
    }
    for name, (low, high) in ranges.items():
        if name in values and not low <= values[name] <= high:
            raise SpecError(
                name, f"{name}={values[name]} is out of range; allowed: {low} to {high}"
            )
    batch, gpus = values["batch_size"], values.get("gpus", 1)
    if batch % gpus:
        below = next(n for n in range(min(gpus, batch), 0, -1) if batch % n == 0)
        message = f"gpus={gpus} does not divide batch_size={batch}; nearest below: {below}"
        raise SpecError("gpus", message)
    if values.get("warmup_samples", 0) > values["samples"]:
        message = f"warmup_samples={values['warmup_samples']} is more than samples; "
        raise SpecError("warmup_samples", f"{message}allowed: 0 to {values['samples']}")


def check_project(name: str) -> None:
    """SpecError unless W&B takes it: nothing, a project, or entity/project."""
    if name and not re.fullmatch(r"([\w.-]+/)?[\w. -]{1,128}", name):
        allowed = "project or entity/project, of letters, digits, spaces, _, - and ."
        raise SpecError("wandb", f"wandb={name!r} is not allowed; allowed: {allowed}")
