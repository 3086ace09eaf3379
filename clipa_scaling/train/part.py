"""One part of a pack: read a piece of the data, write its arrays, and its json last as proof."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from clipa_scaling.rundir import read_json, sync_folder, write_bytes, write_json
from clipa_scaling.train.packed import ARRAYS, part_path
from clipa_scaling.train.pieces import Piece, Request, name_piece, read_piece
from clipa_scaling.train.shards import Example, Skipped
from clipa_scaling.train.tokenize import encode_counted, text_lengths

LISTED = 100  # skipped samples named in a part's json; all are counted


def read_part(folder: Path, number: int, request: Request) -> dict[str, Any] | None:
    """A whole part's json, or None where the part is missing, torn or of other data."""
    if not all(part_path(folder, number, what).exists() for what in ARRAYS):
        return None
    part: dict[str, Any] | None = read_json(part_path(folder, number, "json"))
    return part if part is not None and part["fingerprint"] == request.fingerprint else None


def write_part(folder: Path, number: int, piece: Piece, request: Request) -> dict[str, Any]:
    """Read a piece and write its part, unless it is there; its json. A pure function of the data.

    DataError on a torn shard. A second writer at the same time writes the same bytes.
    """
    there = read_part(folder, number, request)
    if there is not None:
        return there
    tally = Tally()
    with PixelWriter(part_path(folder, number, "pixels"), request.store_px) as pixels:
        for item in read_piece(piece, request):
            if isinstance(item, Example):
                pixels.append(item.picture)
                tally.add(item)
            else:
                tally.skip(item)
    ids, cut = encode_counted(tally.captions)
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
