"""Training batches: pack -> crops at the training size -> tensors, a pure function of position."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from clipa_scaling.train.keyed import keyed_uniform, make_key
from clipa_scaling.train.model import IMAGE_MEAN, IMAGE_STD
from clipa_scaling.train.order import Order
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.reduce import reduce_ids
from clipa_scaling.train.tokenize import PACKED_LENGTH, text_lengths

ASPECTS = (3 / 4, 4 / 3)  # of random crops, as torchvision's and the papers' code


@dataclass(frozen=True)
class Batch:
    """One rank's rows of a global batch and what to log of them."""

    image_BCHW: torch.Tensor
    text_BT: torch.Tensor
    sample_B: torch.Tensor
    text_real: float
    text_truncated: float
    upsampled: float


class Batches:
    """The stream of batches over a pack; `at(position)` depends on nothing but its argument.

    Of `size` ranks each gets its rows of the same global batch, which does not depend on `size`.
    """

    def __init__(
        self,
        pack: Pack,
        *,
        batch_size: int,
        image_size: int,
        text_tokens: int,
        crop_min_area: float,
        seed: int,
        window: int,
        text_reduction: str = "truncate",
        word_classes: str = "",
        rank: int = 0,
        size: int = 1,
    ):
        self.pack = pack
        self.batch_size, self.image_size, self.text_tokens = batch_size, image_size, text_tokens
        self.crop_min_area, self.seed = crop_min_area, seed
        self.text_reduction, self.tagger = text_reduction, ""
        if text_reduction == "syntax":
            pack.check_classes(word_classes)
            self.tagger = word_classes
        self.order = Order(pack.part_sizes, batch_size, seed, window)
        assert batch_size % size == 0, "the spec's rule"
        self.rows = slice(rank * batch_size // size, (rank + 1) * batch_size // size)

    def at(self, position: int) -> Batch:
        """This rank's rows of the batch that starts after `position` samples."""
        index = self.order.at(position)[self.rows]
        pictures, ids = self.pack.gather(index, PACKED_LENGTH)
        sample_B = torch.arange(position, position + self.batch_size)[self.rows]
        resized, upsampled = self.resize(pictures, sample_B)
        lengths = text_lengths(ids)
        return Batch(
            image_BCHW=normalise(resized),
            text_BT=self.reduce(index, ids, sample_B),
            sample_B=sample_B,
            text_real=float(np.minimum(lengths, self.text_tokens).mean()),
            text_truncated=float((lengths > self.text_tokens).mean()),
            upsampled=upsampled,
        )

    def reduce(self, index: np.ndarray, ids: np.ndarray, sample_B: torch.Tensor) -> torch.Tensor:
        """(B, T) int64 of packed ids, words dropped as `text_reduction` says."""
        classes = self.pack.gather_classes(index, self.tagger) if self.tagger else None
        kept = reduce_ids(ids, self.text_tokens, self.text_reduction, self.seed, sample_B, classes)
        return torch.from_numpy(kept)

    def resize(self, pictures: np.ndarray, sample_B: torch.Tensor) -> tuple[np.ndarray, float]:
        """(B, S, S, 3) uint8 random crops and the share of them that had to be enlarged."""
        px = pictures.shape[1]
        if self.crop_min_area == 1.0:
            return resize_all(pictures, self.image_size), float(px < self.image_size)
        boxes = crop_boxes(self.seed, sample_B, px, self.crop_min_area)
        out = np.empty((len(pictures), self.image_size, self.image_size, 3), np.uint8)
        for row, (picture, (x, y, width, height)) in enumerate(zip(pictures, boxes, strict=True)):
            out[row] = resize_one(picture[y : y + height, x : x + width], self.image_size)
        return out, float((boxes[:, 2:].min(axis=1) < self.image_size).mean())


def crop_boxes(seed: int, sample_B: torch.Tensor, px: int, min_area: float) -> np.ndarray:
    """(B, 4) boxes x, y, width, height: area uniform in [min_area, 1], aspect log-uniform."""
    area, aspect, x, y = keyed_uniform(make_key(seed, "crop"), sample_B, 4).numpy().T
    area = min_area + (1 - min_area) * area
    low, high = math.log(ASPECTS[0]), math.log(ASPECTS[1])
    # Aspects that would leave the picture are drawn narrower, not drawn again: one draw, keyed.
    widest = np.minimum(high, -np.log(area))
    narrowest = np.maximum(low, np.log(area))
    ratio = np.exp(narrowest + (widest - narrowest) * aspect)
    width = np.clip(np.rint(px * np.sqrt(area * ratio)), 1, px)
    height = np.clip(np.rint(px * np.sqrt(area / ratio)), 1, px)
    left, top = np.floor(x * (px - width + 1)), np.floor(y * (px - height + 1))
    return np.stack([left, top, width, height], axis=1).astype(np.int64)


def resize_one(picture: np.ndarray, size: int) -> np.ndarray:
    """One picture at (size, size, 3); each axis by area if it shrinks, so antialiased, or bicubic.

    Shrinks first: OpenCV's area average is none as soon as one axis grows.
    """
    height, width = picture.shape[:2]
    picture = np.ascontiguousarray(picture)
    if max(height, width) > size:
        smaller = min(width, size), min(height, size)
        picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
    if min(height, width) < size:
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
    return picture


def resize_all(pictures: np.ndarray, size: int) -> np.ndarray:
    """(B, size, size, 3) uint8, whole pictures; no copy at their own size."""
    if pictures.shape[1] == size:
        return pictures
    return np.stack([resize_one(picture, size) for picture in pictures])


def normalise(pictures: np.ndarray) -> torch.Tensor:
    """(B, 3, S, S) float32 with CLIP's mean and deviation (arXiv:2103.00020), from uint8."""
    mean = 255 * torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    deviation = 255 * torch.tensor(IMAGE_STD).view(1, 3, 1, 1)
    image_BHWC = torch.from_numpy(np.ascontiguousarray(pictures))
    image_BCHW = image_BHWC.permute(0, 3, 1, 2).contiguous()  # while it is small
    return image_BCHW.to(torch.float32).sub_(mean).div_(deviation)
