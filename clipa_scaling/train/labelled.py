"""Training batches of labelled pictures: pictures, their classes, and a prompt for every class."""

from __future__ import annotations

import numpy as np
import torch

from clipa_scaling.source import DataError
from clipa_scaling.train.class_names import name_classes
from clipa_scaling.train.data import Batch, Crops
from clipa_scaling.train.keyed import keyed_uniform, make_key
from clipa_scaling.train.order import Order
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.tokenize import cut_ids, encode_texts, text_lengths


class LabelledBatches:
    """The stream of labelled batches; of a rank's texts and pictures each is its share.

    Same order and crops as of pairs. Shares of texts are padded with the first classes, so that all
    are equal; over the ranks they stand in the classes' order, the padding last.
    """

    def __init__(
        self,
        pack: Pack,
        prompts: tuple[str, ...],
        *,
        batch_size: int,
        image_size: int,
        text_tokens: int,
        crop_min_area: float,
        seed: int,
        window: int,
        rank: int = 0,
        size: int = 1,
        on_device: bool = False,
    ):
        if not pack.class_names:
            raise DataError(
                f"{pack.folder}: has captions and no labels; allowed for objective=classify: a "
                "pack made for labels"
            )
        self.pack, self.seed = pack, seed
        self.batch_size, self.text_tokens = batch_size, text_tokens
        self.crops = Crops(image_size, crop_min_area, seed, on_device)
        self.order = Order(pack.part_sizes, batch_size, seed, window)
        assert batch_size % size == 0, "the spec's rule"
        self.rows = slice(rank * batch_size // size, (rank + 1) * batch_size // size)
        self.classes, self.rank, self.size = len(pack.class_names), rank, size
        # Not `format`: braces are no placeholders to the sweep file, where `{}` is all it asks for.
        names = name_classes(pack.class_names)
        filled = [prompt.replace("{}", name) for prompt in prompts for name in names]
        self.ids = encode_texts(filled, pack.vocab).reshape(len(prompts), self.classes, -1)

    def at(self, position: int) -> Batch:
        """This rank's rows of the batch after `position` samples, and its share of the prompts."""
        index = self.order.at(position)[self.rows]
        sample_B = torch.arange(position, position + self.batch_size)[self.rows]
        pictures = self.pack.gather_pictures(index)
        picture_BHWC, box_B4, upsampled = self.crops.of(pictures, sample_B)
        ids = self.prompts_at(position)
        kept = cut_ids(ids, self.text_tokens)  # of all classes, hence the same on every rank
        real_C = text_lengths(kept)
        return Batch(
            picture_BHWC=picture_BHWC,
            text_BT=torch.from_numpy(kept[self.share()]),
            sample_B=sample_B,
            text_real=float(real_C.mean()),
            text_truncated=float((real_C < text_lengths(ids)).mean()),
            upsampled=upsampled,
            box_B4=box_B4,
            label_B=torch.from_numpy(self.pack.labels[index]),
        )

    def prompts_at(self, position: int) -> np.ndarray:
        """(C, 77) ids: each class in one of the prompts, drawn for the class and the step."""
        class_C = torch.arange(self.classes)
        drawn_C1 = keyed_uniform(
            make_key(self.seed, "class prompt"), position * self.classes + class_C, 1
        )
        choice_C = (drawn_C1[:, 0] * len(self.ids)).long().numpy()
        return np.asarray(self.ids[choice_C, class_C.numpy()])

    def share(self) -> np.ndarray:
        """The classes whose prompts this rank encodes, in order over the ranks."""
        each = -(-self.classes // self.size)
        return np.arange(self.rank * each, (self.rank + 1) * each) % self.classes
