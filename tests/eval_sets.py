"""Small evaluation sets, packed in the test's own process, and models to measure on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import pytest
import torch
from known_model import encode_image, encode_text
from make_data import encode, pack_here, write_shards, write_tar

from clipa_scaling.models import load_model
from clipa_scaling.source import Source
from clipa_scaling.spec import EvalSet
from clipa_scaling.train import features
from clipa_scaling.train.evaluate import Evaluator
from clipa_scaling.train.features import Setting
from clipa_scaling.train.model import make_model

SETTING = Setting(8, 8, 4, ("common",), torch.device("cpu"), False, should_stop=lambda: False)
REAL = replace(SETTING, image_size=16, text_tokens=10)
# Of 40 pictures; some have captions of others too, the first has one caption twice.
WORDS = [f"word {number}" for number in range(29)]
PAIRS = [[WORDS[n % 29], *([WORDS[n * 7 % 29]] if n % 3 == 0 else [])] for n in range(40)]
Task = Literal["classify", "retrieve"]


def let_known_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation encodes with known models too, for one test."""
    monkeypatch.setattr(features, "encode_image", encode_image)
    monkeypatch.setattr(features, "encode_text", encode_text)


def make_set(folder: Path, task: Task, where: str, px: int, *prompts: str) -> EvalSet:
    """A set of shards."""
    source = Source("shards", where, caption="captions", label=None)
    pack = pack_here(folder, source, px, "labels" if task == "classify" else "captions")
    return EvalSet("set", task, str(folder), pack.fingerprint, prompts or ("{}",))


def known_set(folder: Path, samples: Sequence[Sequence[str]], task: Task, *prompts: str) -> EvalSet:
    """Pictures that tell their numbers, each with its captions, the first its class too."""
    members: list[tuple[str, bytes | None]] = []
    for number, texts in enumerate(samples):
        captions = json.dumps({"captions": texts}).encode()
        members += [(f"{number}.png", encode(np.full((8, 8, 3), number, np.uint8)))]
        members += [(f"{number}.json", captions), (f"{number}.cls", texts[0].encode())]
    return make_set(folder / task, task, str(write_tar(folder / "0.tar", members)), 8, *prompts)


def real_set(folder: Path, task: Task, *prompts: str) -> EvalSet:
    """Ten pictures of three classes with two captions each."""
    return make_set(folder / task, task, write_shards(folder / "data", 2, 5), 32, *prompts)


def make_real(size: int = 16) -> open_clip.CLIP:
    return make_model(load_model("T32/8"), size, REAL.text_tokens, 49_408, seed=3).eval()


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measure(model: Any, item: EvalSet, setting: Setting = SETTING) -> dict[str, dict[str, Any]]:
    """The rows of one set, by name."""
    rows = Evaluator((item,), setting).evaluate(model, 64)
    for row in rows:
        assert (row["samples"], row["set"], row["fingerprint"]) == (64, "set", item.benchmark)
    return {row["name"]: row for row in rows}
