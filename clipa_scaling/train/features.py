"""Unit features of a whole evaluation set, batch by batch, with a way out between batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch

from clipa_scaling.spec import EvalSize, RunSpec
from clipa_scaling.train.full_size import FullSize, encode_image_with, full_size_of
from clipa_scaling.train.model import encode_image, encode_text, make_unit
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.pictures import normalise, resize_all
from clipa_scaling.train.tokenize import cut_ids


class StopRequested(Exception):
    """The run was asked to stop in the middle of an evaluation."""


@dataclass(frozen=True)
class Setting:
    """How a model is evaluated: sizes, batch and a check whether to stop, made between batches.

    image_size: of training. sizes: at which of that and `full`. vocab: the WordPiece vocabulary of
    the text tower; empty is CLIP's BPE.
    """

    image_size: int
    text_tokens: int
    batch: int
    protocols: tuple[str, ...]
    device: torch.device
    autocast: bool
    should_stop: Callable[[], bool]
    sizes: tuple[EvalSize, ...] = ("training",)
    full: FullSize | None = None
    vocab: str = ""

    def go_on(self) -> None:
        """Raises StopRequested."""
        if self.should_stop():
            raise StopRequested


def setting_of(spec: RunSpec, device: torch.device, should_stop: Callable[[], bool]) -> Setting:
    """How a run's model is evaluated."""
    return Setting(
        image_size=spec.image_size,
        text_tokens=spec.text_tokens,
        batch=spec.eval_batch,
        protocols=spec.protocols,
        device=device,
        autocast=spec.precision == "bf16",
        should_stop=should_stop,
        sizes=spec.measured_sizes,
        full=full_size_of(spec),
        vocab=Pack.open(Path(spec.pack)).vocab if spec.tokenizer == "wordpiece" else "",
    )


def encode_images(
    model: open_clip.CLIP, pack: Pack, setting: Setting, size: EvalSize = "training"
) -> tuple[torch.Tensor, int]:
    """(N, E) unit features of every picture, and the token count read off the tensor."""
    features, lengths = [], set()
    px, table_LD = setting.image_size, None
    if size == "full":
        assert setting.full is not None, "asked for a size that is not given"
        px, table_LD = setting.full.px, setting.full.table(model)
    for start in range(0, pack.count, setting.batch):
        setting.go_on()
        stop = min(start + setting.batch, pack.count)
        pictures = resize_all(pack.pictures(start, stop), px)
        image = normalise(pictures).to(setting.device)
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.autocast):
            if table_LD is None:
                image_BE, length = encode_image(model, image, None)
            else:
                image_BE, length = encode_image_with(model, image, table_LD)
        features.append(make_unit(image_BE))
        lengths.add(length)
    [image_tokens] = lengths  # every picture makes as many
    return torch.cat(features), image_tokens


def encode_ids(model: open_clip.CLIP, ids: np.ndarray, setting: Setting) -> torch.Tensor:
    """(M, E) unit features of packed ids, cut to the model's text length.

    Texts that the cut makes equal are encoded once: batches of other sizes may give other last
    bits, and chance would then decide between texts that the model cannot tell apart.
    """
    unique, place_M = np.unique(cut_ids(ids, setting.text_tokens), axis=0, return_inverse=True)
    features = []
    for part in torch.from_numpy(unique).split(setting.batch):
        setting.go_on()
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.autocast):
            text_BE, _ = encode_text(model, part.to(setting.device))
        features.append(make_unit(text_BE))
    return torch.cat(features)[torch.from_numpy(place_M.reshape(-1)).to(setting.device)]
