"""Training batches: pack -> pictures and texts, a pure function of position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from clipa_scaling.train.order import Order
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.pictures import crop_boxes, cut_on_host, resize_all
from clipa_scaling.train.reduce import reduce_ids
from clipa_scaling.train.tokenize import PACKED_LENGTH, text_lengths


@dataclass(frozen=True)
class Batch:
    """One rank's rows of a global batch and what to log of them.

    picture_BHWC: uint8, as the tower takes them, or as stored where box_B4 (x, y, width, height)
    says what the device has to cut out. label_B: the pictures' classes, and text_BT the classes'
    prompts, where the data is labelled pictures.
    """

    picture_BHWC: torch.Tensor
    text_BT: torch.Tensor
    sample_B: torch.Tensor
    text_real: float
    text_truncated: float
    upsampled: float
    box_B4: torch.Tensor | None = None
    label_B: torch.Tensor | None = None


@dataclass(frozen=True)
class Crops:
    """What a stream shows of its pictures; `on_device` leaves the cutting to whoever takes them."""

    image_size: int
    min_area: float
    seed: int
    on_device: bool = False

    def of(
        self, pictures: np.ndarray, sample_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, float]:
        """uint8 pictures, boxes still to be cut, and the share of crops that must be enlarged."""
        px, boxes, smallest = pictures.shape[1], None, np.array([pictures.shape[1]])
        if self.min_area < 1:
            boxes = crop_boxes(self.seed, sample_B, px, self.min_area)
            smallest = boxes[:, 2:].min(axis=1)
        upsampled = float((smallest < self.image_size).mean())
        if self.on_device and (boxes is not None or px != self.image_size):
            if boxes is None:
                boxes = np.tile(np.array([0, 0, px, px]), (len(pictures), 1))
            return torch.from_numpy(pictures), torch.from_numpy(boxes), upsampled
        if boxes is None:
            pictures = resize_all(pictures, self.image_size)
        else:
            pictures = cut_on_host(pictures, boxes, self.image_size)
        return torch.from_numpy(pictures), None, upsampled


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
        on_device: bool = False,
    ):
        self.pack, self.seed = pack, seed
        self.batch_size, self.text_tokens = batch_size, text_tokens
        self.text_reduction, self.tagger = text_reduction, ""
        if text_reduction == "syntax":
            pack.check_classes(word_classes)
            self.tagger = word_classes
        self.crops = Crops(image_size, crop_min_area, seed, on_device)
        self.order = Order(pack.part_sizes, batch_size, seed, window)
        assert batch_size % size == 0, "the spec's rule"
        self.rows = slice(rank * batch_size // size, (rank + 1) * batch_size // size)

    def at(self, position: int) -> Batch:
        """This rank's rows of the batch that starts after `position` samples."""
        index = self.order.at(position)[self.rows]
        pictures, ids = self.pack.gather(index, PACKED_LENGTH)
        sample_B = torch.arange(position, position + self.batch_size)[self.rows]
        picture_BHWC, box_B4, upsampled = self.crops.of(pictures, sample_B)
        kept = self.reduce(index, ids, sample_B)
        real_B = text_lengths(kept)
        return Batch(
            picture_BHWC=picture_BHWC,
            text_BT=torch.from_numpy(kept),
            sample_B=sample_B,
            text_real=float(real_B.mean()),
            text_truncated=float((real_B < text_lengths(ids)).mean()),
            upsampled=upsampled,
            box_B4=box_B4,
        )

    def reduce(self, index: np.ndarray, ids: np.ndarray, sample_B: torch.Tensor) -> np.ndarray:
        """(B, T) int64 of packed ids, words dropped as `text_reduction` says."""
        classes = self.pack.gather_classes(index, self.tagger) if self.tagger else None
        return reduce_ids(ids, self.text_tokens, self.text_reduction, self.seed, sample_B, classes)
