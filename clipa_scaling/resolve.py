"""From a cell's values to a RunSpec: derived fields filled in, the rules checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from clipa_scaling.models import ConvNet, Model, load_model
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
    resolved.setdefault("vocab_size", VOCABULARIES[values.get("tokenizer", "clip")])
    check_numbers(values)
    check_slices(values)
    check_project(values.get("wandb", ""))
    steps = -(-values["samples"] // values["batch_size"])
    resolved["samples"] = steps * values["batch_size"]
    resolved["decay_samples"] = find_decay(resolved)
    if values.get("image_position") == "sincos":
        resolved.setdefault("image_position_change", "recompute")
    for name in without_effect(resolved):
        resolved.pop(name, None)
    spec = RunSpec(**resolved)
    check_together(spec, model)
    return spec


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
NOT_NEGATIVE = (
    "warmup_samples", "weight_decay", "seed", "micro_batch", "decay_samples", "grad_clip",
    "logit_scale_init", "logit_scale_max", *CADENCES,
)  # fmt: skip
# Rows of the token embedding; wordpiece's are CLIPA's, of which BERT's vocabulary uses 30,522.
VOCABULARIES = {"clip": 49_408, "wordpiece": 32_000}


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
        "color_jitter": (0.0, 1.0),
        "color_jitter_share": (0.0, 1.0),
        "grayscale_share": (0.0, 1.0),
    }
    for name, (low, high) in ranges.items():
        if name in values and not low <= values[name] <= high:
            raise SpecError(
                name, f"{name}={values[name]} is out of range; allowed: {low} to {high}"
            )
    rows = VOCABULARIES[values.get("tokenizer", "clip")]
    if values.get("vocab_size", rows) != rows:
        message = f"vocab_size={values['vocab_size']} is out of range; allowed: {rows} to {rows}"
        raise SpecError("vocab_size", message)
    if values.get("warmup_samples", 0) > values["samples"]:
        message = f"warmup_samples={values['warmup_samples']} is more than samples; "
        raise SpecError("warmup_samples", f"{message}allowed: 0 to {values['samples']}")


def check_slices(values: Mapping[str, Any]) -> None:
    """Devices and micro-batches take equal parts of the batch, or SpecError."""
    batch, gpus = values["batch_size"], values.get("gpus", 1)
    if batch % gpus:
        message = f"gpus={gpus} does not divide batch_size={batch}; "
        raise SpecError("gpus", f"{message}nearest below: {divisor_below(batch, gpus)}")
    micro, own = values.get("micro_batch", 0), batch // gpus
    if micro and own % micro:
        message = f"micro_batch={micro} does not divide the {own} pairs of a device; "
        raise SpecError("micro_batch", f"{message}nearest below: {divisor_below(own, micro)}")


def divisor_below(whole: int, most: int) -> int:
    return next(n for n in range(min(most, whole), 0, -1) if whole % n == 0)


def find_decay(values: Mapping[str, Any]) -> int:
    """The samples of wsd's decay, whole steps: a fifth unless given (arXiv:2405.18392)."""
    batch, samples, given = values["batch_size"], values["samples"], values.get("decay_samples", 0)
    if values.get("schedule", "cosine") != "wsd":
        if given:
            message = f"decay_samples={given} needs schedule=wsd; set it, or leave this out"
            raise SpecError("decay_samples", message)
        return 0
    most: int = (samples - values.get("warmup_samples", 0)) // batch * batch
    decay: int = max(batch, round((given or samples / 5) / batch) * batch)
    if decay > most:
        message = f"decay_samples={decay} is more than the samples behind the warm-up; "
        raise SpecError("decay_samples", f"{message}allowed: {batch} to {most}")
    return decay


def check_together(spec: RunSpec, model: Model) -> None:
    """The rules of fields that must fit each other; SpecError names the one to change."""
    if isinstance(model.size.image, ConvNet):
        transformer = {"image_position": "learned", "image_pool": "cls", "ln_pre": True}
        transformer |= {"image_reduction": "resize", "ln_after_pool": False}
        for name, stock in transformer.items():
            if getattr(spec, name) != stock:
                message = f"{name}={getattr(spec, name)} is for ViTs, and {spec.model} is none; "
                raise SpecError(name, f"{message}allowed: {stock}")
    elif spec.image_position == "sincos" and model.size.image.width % 4:
        message = f"image_position=sincos needs a width divisible by 4, not {spec.model}'s"
        raise SpecError("image_position", f"{message}; allowed: learned")
    if spec.image_position == "learned" and spec.image_position_change == "recompute":
        message = "image_position_change=recompute needs image_position=sincos"
        raise SpecError("image_position_change", f"{message}; allowed: interpolate, extend")
    if isinstance(model.size.image, ConvNet) and spec.image_tokens < 4:
        message = f"image_tokens={spec.image_tokens} is a grid that {spec.model} cannot halve"
        raise SpecError("image_tokens", f"{message}; nearest: 4")
    check_origin(spec)
    if "full" in spec.eval_sizes:
        check_full_px(spec, model)
    check_ends(spec)
    if spec.logit_bias_init and spec.objective != "siglip":
        message = f"logit_bias_init={spec.logit_bias_init} is for objective=siglip"
        raise SpecError("logit_bias_init", f"{message}; leave it out")
    if 0 < spec.logit_scale_max < spec.logit_scale_init:
        message = f"logit_scale_init={spec.logit_scale_init} is above logit_scale_max"
        raise SpecError("logit_scale_init", f"{message}; allowed: up to {spec.logit_scale_max}")
    if spec.objective == "classify":
        check_classify(spec)
    if spec.kind == "decay" and spec.schedule != "wsd":
        message = f"schedule={spec.schedule} has no decay; set schedule: wsd in the decay stage"
        raise SpecError("schedule", message)


def check_full_px(spec: RunSpec, model: Model) -> None:
    """Patches fill a picture of full size, and a ConvNeXt has a grid to halve; SpecError if not."""
    least = 2 * model.patch if isinstance(model.size.image, ConvNet) else model.patch
    near = max(least, round(spec.full_px / model.patch) * model.patch)
    if spec.full_px % model.patch:
        message = f"full_px={spec.full_px} is no multiple of patch {model.patch} of {spec.model}"
        raise SpecError("full_px", f"{message}; nearest: {near}")
    if spec.full_px < least:
        message = f"full_px={spec.full_px} is a grid that {spec.model} cannot halve"
        raise SpecError("full_px", f"{message}; nearest: {near}")


def without_effect(values: Mapping[str, Any]) -> Iterator[str]:
    """Fields that decide nothing in this run, so must not tell it from its like."""
    if not values.get("color_jitter"):
        yield "color_jitter_share"
    if values.get("schedule") != "wsd":
        yield "decay_shape"
    if not (values.get("parent") or values.get("image_start") or values.get("text_start")):
        yield from ("image_position_change", "text_position_change")


def check_origin(spec: RunSpec) -> None:
    """A run starts from a parent, or from released weights, or afresh; SpecError otherwise."""
    starts = spec.image_start or spec.text_start
    if starts and spec.parent and spec.kind != "decay":
        name = "image_start" if spec.image_start else "text_start"
        message = f"{name}={starts} has no meaning beside a parent, whose weights a stage takes"
        raise SpecError(name, f"{message}; allowed: in the first stage")
    if spec.fresh_weights and not (starts or spec.parent):
        message = "fresh_weights is for runs that start from other weights"
        raise SpecError("fresh_weights", f"{message}; leave it out")


def check_ends(spec: RunSpec) -> None:
    """WordPiece ids have no end token; SpecError for what needs one."""
    for name, allowed in {"text_pool": "last", "text_pad": "seen"}.items():
        if spec.tokenizer == "wordpiece" and (got := getattr(spec, name)) != allowed:
            message = f"{name}={got} needs an end token, which tokenizer=wordpiece has not"
            raise SpecError(name, f"{message}; allowed: {allowed}")


def check_classify(spec: RunSpec) -> None:
    """Classification reads no captions and needs labels."""
    if spec.text_reduction != "truncate":
        message = f"text_reduction={spec.text_reduction} is for captions; class prompts are short: "
        raise SpecError("text_reduction", f"{message}set truncate beside objective: classify")
    if not spec.class_prompts:
        message = "objective=classify needs labelled pictures; add data.labelled: {path: ...}"
        raise SpecError("objective", message)


def check_project(name: str) -> None:
    """SpecError unless W&B takes it: nothing, a project, or entity/project."""
    if name and not re.fullmatch(r"([\w.-]+/)?[\w. -]{1,128}", name):
        allowed = "project or entity/project, of letters, digits, spaces, _, - and ."
        raise SpecError("wandb", f"wandb={name!r} is not allowed; allowed: {allowed}")
