"""Starting from released weights: open_clip's, a folder or a file, each tower from its own."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_state_dict
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError

from clipa_scaling.source import DataError
from clipa_scaling.train.ending import Refused
from clipa_scaling.train.fit_weights import part_of
from clipa_scaling.weights import (
    ALLOWED,
    CONFIG,
    LOCAL_DIR,
    OPEN_CLIP,
    find_weights,
    split_name,
)

UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, pickle.PickleError, SafetensorError)
HEAD = "width of a head"  # no shape tells it, and weights mean nothing under another


def name_starts(image_start: str, text_start: str) -> dict[str, str]:
    """Where each part of a model comes from; empty is nowhere, so it stays fresh."""
    both = image_start if image_start == text_start else ""
    return {"image": image_start, "text": text_start, "scale": both}


def read_start(model: open_clip.CLIP, image_start: str, text_start: str) -> dict[str, torch.Tensor]:
    """The weights of each part from its start, named as in open_clip's CLIP.

    A start is `open_clip:MODEL/TAG`, a folder that open_clip loads (`local-dir:` or not), or a
    file: of open_clip's trainer, safetensors, the weights of one of our checkpoints. `model`: what
    they are for, to tell where the released one uses them otherwise.
    """
    starts = name_starts(image_start, text_start)
    read: dict[str, torch.Tensor] = {}
    for start in dict.fromkeys(start for start in starts.values() if start):
        parts = [part for part in starts if starts[part] == start]
        is_released = start.startswith(OPEN_CLIP) or Path(start.removeprefix(LOCAL_DIR)).is_dir()
        weights = read_open_clip(model, start, parts) if is_released else read_file(start)
        for name, value in weights.items():
            name = name.removeprefix("text.")  # in a CustomTextCLIP the text tower has its own name
            part = part_of(name)
            if part in parts:
                # Some models keep the scale as a vector of one.
                read[name] = value.reshape(()) if part == "scale" else value
    return read


def read_file(start: str) -> dict[str, torch.Tensor]:
    """The weights of a local file, read by open_clip's own reader; Refused where it cannot."""
    kinds = "a .safetensors file, or a .pt of open_clip's trainer"
    if not Path(start).is_file():
        raise Refused(
            f"{start}: no such file; allowed: {OPEN_CLIP}MODEL/TAG, {kinds}, or a folder that "
            "open_clip loads"
        )
    try:
        weights = dict(load_state_dict(start))
    except UNREADABLE as error:
        raise Refused(f"{start}: {first_line(error)}; allowed: {kinds}") from None
    if not weights or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise Refused(f"{start}: holds no weights by name; allowed: {kinds}")
    return weights


def read_open_clip(
    model: open_clip.CLIP, start: str, parts: Sequence[str]
) -> dict[str, torch.Tensor]:
    """The weights that open_clip has under a tag or in a folder; Refused where it has none.

    Says where the parts wanted are used otherwise in the released model than in ours.
    """
    name, tag, config, release = find_release(start)
    if config.get("quick_gelu") or release.get("quick_gelu"):
        raise Refused(
            f"{start}: was trained with QuickGELU, which no model here has; allowed: weights that "
            "were trained with GELU"
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            source = open_clip.create_model(name, pretrained=tag)
    except UNREADABLE as error:
        hub = "allowed: a machine that reaches the hub, its cache (HF_HOME) brought here, or a "
        way_out = f"{hub}weights file" if tag else ALLOWED
        raise Refused(f"{start}: {first_line(error)}; {way_out}") from None
    compare_use(model, source, start, [part for part in parts if part != "scale"])
    return dict(source.state_dict())


def find_release(start: str) -> tuple[str, str | None, dict[str, Any], dict[str, Any]]:
    """open_clip's name and tag of a start, no tag for a folder, and what it says of them.

    Refused where there is none.
    """
    if start.startswith(OPEN_CLIP):
        name, tag = find_tag(start)
        return name, tag, open_clip.get_model_config(name), open_clip.get_pretrained_cfg(name, tag)
    folder = start.removeprefix(LOCAL_DIR)
    try:
        find_weights(folder)
        config = open_clip.get_model_config(LOCAL_DIR + folder)
    except DataError as error:
        raise Refused(str(error)) from None
    except UNREADABLE as error:
        raise Refused(f"{start}: {CONFIG}: {first_line(error)}; {ALLOWED}") from None
    return LOCAL_DIR + folder, None, config, {}


def find_tag(start: str) -> tuple[str, str]:
    """The model and tag of a name, both known to open_clip; or Refused, with the nearest."""
    try:
        name, tag = split_name(start)
    except DataError as error:
        raise Refused(str(error)) from None
    models, tags = open_clip.list_models(), open_clip.list_pretrained_tags_by_model(name)
    if name not in models:
        near = ", ".join(get_close_matches(name, models, n=3, cutoff=0))
        raise Refused(f"{start}: open_clip has no model {name}; nearest: {near}")
    if not open_clip.is_pretrained_cfg(name, tag):
        near = ", ".join(get_close_matches(tag, tags, n=5, cutoff=0)) or "none at all"
        raise Refused(f"{start}: open_clip has no such weights of {name}; nearest: {near}")
    return name, tag


def compare_use(model: Any, source: Any, start: str, towers: Sequence[str]) -> None:
    """Say in the log what a released tower does otherwise; Refused where that makes it useless."""
    for tower in towers:
        theirs, ours = describe(source, tower), describe(model, tower)
        for fact in (fact for fact in ours if fact in theirs and theirs[fact] != ours[fact]):
            if fact == HEAD:
                raise Refused(
                    f"{start} does not fit: {tower} heads of width {theirs[fact]}, not "
                    f"{ours[fact]}; allowed: weights of the same model"
                )
            print(f"{start}: {fact} is {theirs[fact]} there, {ours[fact]} here", flush=True)


def describe(model: Any, part: str) -> dict[str, Any]:
    """What a tower does with its weights that their shapes do not tell, in a sweep file's words."""
    tower = model.visual if part == "image" else getattr(model, "text", model)
    if isinstance(tower, VisionTransformer):
        pool = {"tok": "cls", "avg": "mean"}.get(tower.pool_type, tower.pool_type)
        facts = {
            "image_pool": "mean_with_cls" if getattr(tower, "mean_with_cls", False) else pool,
            "ln_after_pool": tower.final_ln_after_pool,
        }
    elif part == "text" and hasattr(tower, "attn_mask"):
        pool = tower.text_pool_type if tower is model else tower.pool_type
        facts = {
            "text_causal": tower.attn_mask is not None,
            "text_pool": {"argmax": "eot"}.get(pool, pool),
        }
    else:  # timm's, or Hugging Face's: what fits at all is the same
        return {}
    layer = tower.transformer.resblocks[0]
    return {
        **facts,
        f"{part} activation": str(layer.mlp.gelu),
        f"{part} norm's epsilon": layer.ln_1.eps,
        HEAD: tower.transformer.width // layer.attn.num_heads,
    }


def first_line(error: BaseException) -> str:
    """The beginning of what a library says, on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
