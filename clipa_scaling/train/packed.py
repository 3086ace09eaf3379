"""A finished pack, opened for reading: memory-mapped pixels and caption ids, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from clipa_scaling.rundir import read_json
from clipa_scaling.source import DataError
from clipa_scaling.taggers import classes_mark
from clipa_scaling.train.tokenize import PACKED_LENGTH, cut_ids
from clipa_scaling.vocabulary import FILE

ARRAYS = ("pixels", "ids", "owner")
OPEN_FILES = 384  # each memory map holds a file open, and 1,024 is a usual limit for a process


def part_path(folder: Path, number: int, what: str) -> Path:
    """The file of a part: an array `pixels`, `ids`, `owner` or of classes, or its `json`."""
    ending = "json" if what == "json" else f"{what}.npy"
    return folder / f"{number:05d}.{ending}"


def classes_of(tagger: str) -> str:
    """What a part calls its word classes by one tagger; several may lie side by side."""
    return f"classes-{tagger}"


def vocabulary_of(folder: Path) -> str:
    """The WordPiece vocabulary that a pack goes with, which lies in it; empty is CLIP's BPE."""
    path = folder / FILE
    return str(path) if path.exists() else ""


class Pack:
    """Pictures and captions of a data set at one size; open with `Pack.open`.

    count: pictures. px: their side. part_sizes: (parts,) pictures in each part, some may be 0.
    class_names: sorted; empty unless the pack was made for labels. vocab: see `vocabulary_of`.
    """

    def __init__(self, folder: Path, head: dict[str, Any]):
        self.folder, self.vocab = folder, vocabulary_of(folder)
        self.count, self.px = int(head["pairs"]), int(head["store_px"])
        self.fingerprint: str = head["fingerprint"]
        self.class_names: list[str] = head["class_names"]
        self.part_sizes = np.array(head["parts"], np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.part_sizes)])
        self._array = lru_cache(OPEN_FILES)(self._open_array)

    @classmethod
    def open(cls, folder: Path, planned: str | None = None) -> Pack:
        """Open a finished pack; DataError where there is none, or of another fingerprint."""
        head = read_json(folder / "pack.json")
        if head is None:
            raise DataError(
                f"{folder}: is not packed; run python -m clipa_scaling.train.pack {folder}"
            )
        if planned is not None and head["fingerprint"] != planned:
            raise DataError(
                f"{folder}: fingerprint={head['fingerprint']} is not the planned {planned}; launch "
                "again to plan with it as it is"
            )
        return cls(folder, head)

    def gather(self, index: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (B, px, px, 3) uint8 and their first captions (B, tokens) int64."""
        assert not self.class_names, "a pack made for labels holds no captions"
        ids = np.empty((len(index), PACKED_LENGTH), np.uint16)
        for part, where, local in self._by_part(index):
            rows = np.searchsorted(self._array(part, "owner"), local)  # owners rise: the first
            ids[where] = self._array(part, "ids")[rows]
        return self.gather_pictures(index), cut_ids(ids, tokens)

    def gather_classes(self, index: np.ndarray, tagger: str) -> np.ndarray:
        """(B, 77) uint8 of the same captions: 0 no word, else its class by this tagger.

        1 noun, 2 adjective, 3 verb, 4 other.
        """
        classes = np.empty((len(index), PACKED_LENGTH), np.uint8)
        for part, where, local in self._by_part(index):
            rows = np.searchsorted(self._array(part, "owner"), local)
            classes[where] = self._array(part, classes_of(tagger))[rows]
        return classes

    def check_classes(self, tagger: str) -> None:
        """DataError where the words are not, or not all, classed by this tagger."""
        if not (self.folder / classes_mark(tagger)).exists():
            raise DataError(
                f"{self.folder}: has no word classes by {tagger!r}; launch the sweep again, which "
                "makes them from the packed captions"
            )

    def pictures(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, px, px, 3) uint8, in the pack's order."""
        return self.gather_pictures(np.arange(start, stop))

    def texts(self, tokens: int) -> np.ndarray:
        """(M, tokens) int64 ids of every caption, cut with the end token last."""
        ids = [np.asarray(self._array(part, "ids")) for part in self._used_parts()]
        return cut_ids(np.concatenate(ids), tokens)

    @cached_property
    def owner(self) -> np.ndarray:
        """(M,) int64: the picture each caption belongs to, rising."""
        parts = self._used_parts()
        return np.concatenate([self.starts[part] + self._array(part, "owner") for part in parts])

    @cached_property
    def labels(self) -> np.ndarray:
        """(count,) int64: each picture's class, as an index into `class_names`."""
        assert self.class_names, "a pack made for captions holds no labels"
        number = {name: index for index, name in enumerate(self.class_names)}
        names = (read_json(part_path(self.folder, p, "json"))["labels"] for p in self._used_parts())
        return np.array([number[name] for part in names for name in part], np.int64)

    def gather_pictures(self, index: np.ndarray) -> np.ndarray:
        """(B, px, px, 3) uint8."""
        out = np.empty((len(index), self.px, self.px, 3), np.uint8)
        for part, where, local in self._by_part(index):
            out[where] = self._array(part, "pixels")[local]
        return out

    def _by_part(self, index: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For each part asked for: its number, the places in `index`, the rows, rising on disk."""
        index = np.asarray(index, np.int64)
        assert index.size == 0 or (index.min() >= 0 and index.max() < self.count), "out of the pack"
        order = np.argsort(index, kind="stable")
        part = np.searchsorted(self.starts, index[order], side="right") - 1
        for number in np.unique(part):
            where = order[part == number]
            yield int(number), where, index[where] - self.starts[number]

    def _used_parts(self) -> list[int]:
        return [int(part) for part in np.flatnonzero(self.part_sizes)]

    def _open_array(self, part: int, what: str) -> np.ndarray:
        array: np.ndarray = np.load(part_path(self.folder, part, what), mmap_mode="r")
        return array.view(np.ndarray)
