"""One part of a pack: read a piece of the data, write its arrays, and its json last as proof."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from clipa_scaling.rundir import read_json, sync_folder, write_bytes, write_json
from clipa_scaling.train.packed import ARRAYS, classes_of, part_path, vocabulary_of
from clipa_scaling.train.pieces import Piece, Request, name_piece, read_piece
from clipa_scaling.train.shards import Example, Skipped
from clipa_scaling.train.tagging import make_tagger
from clipa_scaling.train.tokenize import encode_counted, text_lengths
from clipa_scaling.train.words import WordClasses

LISTED = 100  # skipped samples named in a part's json; all are counted


def read_part(folder: Path, number: int, request: Request) -> dict[str, Any] | None:
    """A whole part's json, or None where the part is missing, torn or of other data."""
    if not all(part_path(folder, number, what).exists() for what in ARRAYS):
        return None
    part: dict[str, Any] | None = read_json(part_path(folder, number, "json"))
    return part if part is not None and part["fingerprint"] == request.fingerprint else None


def read_classed(folder: Path, number: int, request: Request) -> dict[str, Any] | None:
    """A whole part's json, or None where it or the word classes asked for are missing."""
    if request.tagger and not part_path(folder, number, classes_of(request.tagger)).exists():
        return None
    return read_part(folder, number, request)


def write_part(folder: Path, number: int, piece: Piece | None, request: Request) -> dict[str, Any]:
    """Write a part and its word classes, unless they are there; its json.

    A pure function of the data: a second writer at the same time writes the same bytes. Classes
    are made from the ids, so that a part that is there needs no piece. DataError on a torn shard.
    """
    part = read_part(folder, number, request)
    if part is None:
        assert piece is not None, "all parts of a finished pack are there"
        if request.tagger:  # of what may be other captions
            part_path(folder, number, classes_of(request.tagger)).unlink(missing_ok=True)
        part = pack_piece(folder, number, piece, request)
    if request.tagger:
        write_classes(folder, number, request.tagger)
    return part


def write_classes(folder: Path, number: int, tagger: str) -> None:
    """The word classes of a part's captions, (M, 77) uint8, unless they are there."""
    path = part_path(folder, number, classes_of(tagger))
    if not path.exists():
        ids = np.load(part_path(folder, number, "ids"))
        write_array(path, make_classes(tagger, vocabulary_of(folder)).of(ids))


@cache
def make_classes(tagger: str, vocab: str) -> WordClasses:
    """This process's, whose memory of words serves all its parts."""
    return WordClasses(make_tagger(tagger), vocab)


def pack_piece(folder: Path, number: int, piece: Piece, request: Request) -> dict[str, Any]:
    """Read a piece and write its part's arrays, then its json, which it returns."""
    tally = Tally()
    with PixelWriter(part_path(folder, number, "pixels"), request.store_px) as pixels:
        for item in read_piece(piece, request):
            if isinstance(item, Example):
                pixels.append(item.picture)
                tally.add(item)
            else:
                tally.skip(item)
    ids, cut = encode_counted(tally.captions, vocabulary_of(folder))
    write_array(part_path(folder, number, "ids"), ids)
    write_array(part_path(folder, number, "owner"), np.array(tally.owner, np.int32))
    part = {
        "of": name_piece(piece),
        "fingerprint": request.fingerprint,
        "pairs": tally.pairs,
        "captions": len(tally.captions),
        "real_tokens": int(text_lengths(ids).sum()),
        "cut_captions": cut,
        "unreadable": tally.unreadable.as_json(),
        "no_picture": tally.no_picture.as_json(),
        "keys_sha256": tally.keys.hexdigest(),
        "labels": tally.labels if request.needs == "labels" else None,
    }
    write_json(part_path(folder, number, "json"), part)
    return part


class Losses:
    """Samples skipped for one cause: how many, and the first with their reasons."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[tuple[str, str]] = []

    def add(self, skipped: Skipped) -> None:
        self.count += 1
        if len(self.first) < LISTED:
            self.first.append((skipped.key, skipped.reason))

    def as_json(self) -> dict[str, Any]:
        return {"count": self.count, "first": self.first}


class Tally:
    """What a part has met so far, all but its pixels."""

    def __init__(self) -> None:
        self.pairs = 0
        self.unreadable, self.no_picture = Losses(), Losses()
        self.captions: list[str] = []
        self.owner: list[int] = []
        self.labels: list[str | None] = []
        self.keys = hashlib.sha256()

    def add(self, example: Example) -> None:
        self.captions += example.captions
        self.owner += [self.pairs] * len(example.captions)
        self.labels.append(example.label)
        self.keys.update(example.key.encode(errors="surrogateescape") + b"\0")
        self.pairs += 1

    def skip(self, skipped: Skipped) -> None:
        (self.unreadable if skipped.has_picture else self.no_picture).add(skipped)


def write_array(path: Path, array: np.ndarray) -> None:
    """Replace a small .npy file atomically."""
    content = io.BytesIO()
    np.save(content, array)
    write_bytes(path, content.getvalue())


class PixelWriter:
    """A .npy file (n, px, px, 3) uint8 written picture by picture, n known at the end; atomic."""

    def __init__(self, path: Path, px: int):
        self.path, self.px, self.count = path, px, 0
        self.temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")

    def __enter__(self) -> Self:
        self.file = open(self.temporary, "wb")
        self._write_header()
        self.start = self.file.tell()
        return self

    def append(self, picture: np.ndarray) -> None:
        assert picture.shape == (self.px, self.px, 3) and picture.dtype == np.uint8
        self.file.write(np.ascontiguousarray(picture).data)
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        with self.file:
            if kind is not None:
                self.temporary.unlink(missing_ok=True)
                return
            self.file.seek(0)
            self._write_header()
            assert self.file.tell() == self.start, "numpy leaves room for the count to grow"
            self.file.flush()
            os.fsync(self.file.fileno())
        try:
            os.replace(self.temporary, self.path)
        except FileNotFoundError:
            # Another launcher finished the pack meanwhile and cleared what it took for remains.
            if not self.path.exists():
                raise
        sync_folder(self.path.parent)

    def _write_header(self) -> None:
        shape = (self.count, self.px, self.px, 3)
        head = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, head)
