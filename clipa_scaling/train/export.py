"""A finished run as a folder that open_clip loads by itself.

    python -m clipa_scaling.train.export RUN_DIR FOLDER [--size PX] [--text-tokens N]

    open_clip.create_model_and_transforms("local-dir:FOLDER"), open_clip.get_tokenizer(…)

Features are ours, as test_export.py shows for every option. Of pictures at the evaluation size the
zero-shot answers are too, to the picture; larger ones are resized by open_clip's transform, not by
ours: `python bench/transforms.py` measures the difference under each filter that open_clip has.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from clipa_scaling.models import load_model
from clipa_scaling.rundir import RunDir, read_json, read_state, sync_folder
from clipa_scaling.spec import RunSpec, spec_from_json
from clipa_scaling.train.card import write_card
from clipa_scaling.train.checkpoint import WEIGHTS
from clipa_scaling.train.ending import Refused
from clipa_scaling.train.fit_weights import fit_weights
from clipa_scaling.train.model import IMAGE_MEAN, IMAGE_STD, build_of, make_config, make_model
from clipa_scaling.train.packed import vocabulary_of
from clipa_scaling.vocabulary import FILE, HUB
from clipa_scaling.weights import CONFIG, IN_FOLDER

# What open_clip has no word for, and what it has instead.
UNKNOWN = {
    ("image_pool", "mean_with_cls"): "cls, mean",
    ("text_pad", "masked"): "seen",
}
# Packing takes the shorter side and the centre square, with PIL's bicubic; then, where the
# evaluation size is below the stored one, areas are averaged, which open_clip does not offer: its
# bicubic was measured to be nearer to the two together than bilinear (bench/transforms.py).
PREPROCESS = {
    "mean": list(IMAGE_MEAN),
    "std": list(IMAGE_STD),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def export_run(run: RunDir, folder: Path, size: int = 0, text_tokens: int = 0) -> None:
    """Write a finished run's last weights; size in px and text tokens of 0 are the run's own.

    Refused for a run that is not done, a folder that exists, a size that the model cannot have, and
    an option that open_clip cannot express.
    """
    values, last = read_json(run.spec), run.last_checkpoint()
    if values is None or last is None or not run.done.exists():
        found = read_state(run).name if values is not None else "no run"
        if values is not None and values["kind"] == "evaluate":
            raise Refused(f"{run.path}: has no weights; allowed: its parent, {values['parent']}")
        raise Refused(f"{run.path}: is {found}; allowed: a run that is done")
    spec = spec_from_json(values)
    target = at_lengths(spec, size, text_tokens)
    export(spec, target, load_file(last / WEIGHTS), folder, run)


def at_lengths(spec: RunSpec, size: int, text_tokens: int) -> RunSpec:
    """The spec at other lengths; Refused for what open_clip cannot express, and for odd sizes."""
    for (name, value), allowed in UNKNOWN.items():
        if getattr(spec, name) == value:
            raise Refused(
                f"{name}={value} has no word in open_clip's configuration, so that other "
                f"features would come out; allowed: {allowed}"
            )
    patch = load_model(spec.model).patch
    size, text_tokens = size or spec.image_size, text_tokens or spec.text_tokens
    if size < patch or size % patch:
        near = max(patch, round(size / patch) * patch)
        raise Refused(f"--size {size} is no multiple of patch {patch}; nearest: {near}")
    if text_tokens < 1:
        raise Refused(f"--text-tokens {text_tokens} is below 1; allowed: 1 or more")
    return replace(spec, image_size=size, text_tokens=text_tokens)


def export(
    spec: RunSpec,
    target: RunSpec,
    weights: Mapping[str, torch.Tensor],
    folder: Path,
    run: RunDir,
) -> None:
    """Write a run's weights at the target's lengths to a folder, which appears whole or not at all.

    Positions are treated as a stage that starts from the run would by default.
    """
    if folder.exists() or folder.is_symlink():
        raise Refused(f"{folder}: exists; allowed: a folder that does not")
    vocab = vocabulary_of(Path(spec.pack)) if spec.tokenizer == "wordpiece" else ""
    if spec.tokenizer == "wordpiece" and not vocab:
        raise Refused(f"{spec.pack}: has no {FILE}, the run's vocabulary; bring the pack back")
    weights = fit(target, weights, spec)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        save_file({k: v.contiguous() for k, v in weights.items()}, temporary / IN_FOLDER[0])
        write_text(temporary / CONFIG, as_json(describe(target)))
        if vocab:
            shutil.copyfile(vocab, temporary / FILE)
            write_text(temporary / "tokenizer_config.json", as_json(describe_tokenizer(target)))
        write_text(temporary / "README.md", write_card(spec, target, run))
        for path in temporary.iterdir():
            path.chmod((temporary / CONFIG).stat().st_mode)  # safetensors lets nobody else read
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        sync_folder(temporary)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(folder.parent)


def fit(
    target: RunSpec, weights: Mapping[str, torch.Tensor], spec: RunSpec
) -> Mapping[str, torch.Tensor]:
    """The weights at the target's lengths."""
    if (target.image_size, target.text_tokens) == (spec.image_size, spec.text_tokens):
        return weights
    is_first = not (spec.parent or spec.start_fingerprint)
    image_change = spec.image_position_change
    if is_first and spec.image_position == "sincos":  # it had no positions to change itself
        image_change = "recompute"
    model = make_model(
        load_model(target.model),
        target.image_size,
        target.text_tokens,
        target.vocab_size,
        target.seed,
        build_of(target),
    )
    fit_weights(
        model,
        weights,
        "export",
        image_change=image_change,
        text_change=spec.text_position_change,
    )
    return dict(model.state_dict())


def describe(spec: RunSpec) -> dict[str, Any]:
    """open_clip's configuration of the model, its transform and its tokenizer."""
    build = build_of(spec)
    model = make_config(
        load_model(spec.model), spec.image_size, spec.text_tokens, spec.vocab_size, build
    )
    model["init_logit_scale"] = math.log(build.logit_scale_init)
    if build.logit_bias_init is not None:
        model["init_logit_bias"] = build.logit_bias_init
    if spec.tokenizer == "wordpiece":
        model["text_cfg"]["hf_tokenizer_name"] = HUB  # of a folder, its own files are read
        model["text_cfg"]["tokenizer_kwargs"] = {"strip_sep_token": True}
    return {"model_cfg": model, "preprocess_cfg": PREPROCESS}


def describe_tokenizer(spec: RunSpec) -> dict[str, Any]:
    """What transformers reads beside the vocabulary."""
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": spec.text_tokens,
    }


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def main() -> int:
    """Exit status: 0 exported, 2 refused, in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.train.export",
        description="Export a finished run as a folder that open_clip loads.",
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=0, metavar="PX", help="default: the run's")
    parser.add_argument("--text-tokens", type=int, default=0, metavar="N", help="likewise")
    options = parser.parse_args()
    try:
        export_run(RunDir(options.run_dir), options.folder, options.size, options.text_tokens)
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    print(f'open_clip.create_model_and_transforms("local-dir:{options.folder}")')
    return 0


if __name__ == "__main__":
    sys.exit(main())
