"""Unit features of a whole evaluation set, batch by batch, with a way out between batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import open_clip
import torch

from clipa_scaling.train.model import encode_image, encode_text, make_unit
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.pictures import normalise, resize_all
from clipa_scaling.train.tokenize import cut_ids


class StopRequested(Exception):
    """The run was asked to stop in the middle of an evaluation."""


@dataclass(frozen=True)
class Setting:
    """How a model is evaluated: sizes, batch and a check whether to stop, made between batches.

    vocab: the WordPiece vocabulary of its text tower; empty is CLIP's BPE.
    """

    image_size: int
    text_tokens: int
    batch: int
    protocols: tuple[str, ...]
    device: torch.device
    autocast: bool
    should_stop: Callable[[], bool]
    vocab: str = ""

    def go_on(self) -> None:
        """Raises StopRequested."""
        if self.should_stop():
            raise StopRequested


def encode_images(model: open_clip.CLIP, pack: Pack, setting: Setting) -> tuple[torch.Tensor, int]:
    """(N, E) unit features of every picture, and the token count read off the tensor."""
    features, lengths = [], set()
    for start in range(0, pack.count, setting.batch):
        setting.go_on()
        stop = min(start + setting.batch, pack.count)
        pictures = resize_all(pack.pictures(start, stop), setting.image_size)
        image = normalise(pictures).to(setting.device)
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.autocast):
            image_BE, length = encode_image(model, image, None)
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
