"""A pack that is not on disk: pixels and ids drawn at the shapes of a run's data, to time steps."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from clipa_scaling.spec import RunSpec
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.tokenize import PACKED_LENGTH, cut_ids

DRAWN = 512  # pictures and captions in memory, which rows of the pack take in turn
SHORTEST, LONGEST = 8, 24  # words of a caption, as alt texts have them
START, END, WORDS = 49_406, 49_407, 256  # of CLIP's ids: the first ones are single bytes


class GeneratedPack(Pack):
    """As many pairs as a batch holds; what they show is noise, which costs what pictures cost."""

    def __init__(self, spec: RunSpec):
        super().__init__(
            Path("generated"),
            {
                "pairs": spec.batch_size,
                "store_px": spec.store_px,
                "fingerprint": "generated",
                "class_names": [f"class {number}" for number in range(spec.classes)],
                "parts": [spec.batch_size],
            },
        )
        draw = np.random.default_rng(0)
        self.drawn = min(DRAWN, spec.batch_size)
        shape = (self.drawn, spec.store_px, spec.store_px, 3)
        self.picture_RHWC = draw.integers(0, 256, shape, np.uint8)
        self.ids_RT = np.zeros((self.drawn, PACKED_LENGTH), np.uint16)
        self.classes_RT = np.zeros((self.drawn, PACKED_LENGTH), np.uint8)
        for row, words in enumerate(draw.integers(SHORTEST, LONGEST + 1, self.drawn)):
            caption = draw.integers(1, WORDS, words)
            self.ids_RT[row, : words + 2] = [START, *caption, END]
            self.classes_RT[row, 1 : words + 1] = draw.integers(1, 5, words)

    def gather(self, index: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray]:
        return self.gather_pictures(index), cut_ids(self.ids_RT[index % self.drawn], tokens)

    def gather_pictures(self, index: np.ndarray) -> np.ndarray:
        picture_BHWC: np.ndarray = self.picture_RHWC[index % self.drawn]
        return picture_BHWC

    def gather_classes(self, index: np.ndarray, tagger: str) -> np.ndarray:
        classes_BT: np.ndarray = self.classes_RT[index % self.drawn]
        return classes_BT

    def check_classes(self, tagger: str) -> None:
        """Words have classes, whoever told them."""

    @cached_property
    def labels(self) -> np.ndarray:
        return np.arange(self.count) % len(self.class_names)
