"""Raw samples of a data set, and what a sample says: its picture, captions and class name."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clipa_scaling.source import DataError, PictureFile, Source

PICTURES = ("jpg", "png", "jpeg", "webp")  # where a sample has several, open_clip's order decides
KNOWN = frozenset((*PICTURES, "txt", "json", "cls"))
MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # folder and name to the first dot, then the rest
# A JPEG is decoded at the least eighth with at least this many times the pixels kept. Measured on
# 640x480 at 64 px: 1.6 ms against 2.4 undrafted, 0.9 of 255 apart; 1 would be 1.3 ms, 2.4 apart.
DRAFT = 2
# Pixels a side: ObjectNet marks its pictures with a red border, which its authors cut off before
# evaluation (abarbu/objectnet-template-pytorch, objectnet_pytorch_dataloader.py), as wise-ft does.
OBJECTNET_BORDER = 2

Needs = Literal["captions", "labels"]


@dataclass(frozen=True)
class Example:
    """A sample that was read: picture (px, px, 3) uint8 RGB; captions or a label, as needed."""

    key: str
    picture: np.ndarray
    captions: tuple[str, ...]
    label: str | None


@dataclass(frozen=True)
class Skipped:
    """A sample that was not, and why; without a picture member it was never meant as a pair."""

    key: str
    reason: str
    has_picture: bool


class Unreadable(Exception):
    """A member of a sample does not hold what its name promises."""


class StrictHeader(tarfile.TarInfo):
    """A header strict about ends: tarfile takes most tears for one, here only tar's end mark is."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> StrictHeader:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError(f"{error} where a member or the end mark belongs") from error


def read_shard(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Samples of a tar, plain or gzipped, as (key, {ending: bytes}); grouped as WebDataset does.

    Known members only; `.gz` stays in a member's ending. DataError on a torn or unreadable tar.
    """
    key, members = "", dict[str, bytes]()
    try:
        for name, ending, data in read_members(path):
            # Keys may repeat from one shard to the next, and end to start: open_clip splits there.
            if members and (name != key or ending in members):
                yield key, members
                members = {}
            key = name
            members[ending] = data
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        cause = " ".join(str(error).split())
        raise DataError(
            f"{path}: torn or unreadable shard ({cause}); copy it again or take it out of the data"
        ) from error
    if members:
        yield key, members


def read_members(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """(key, ending, bytes) of every known file in a tar, in order."""
    with open(path, "rb") as file:
        mode: Literal["r:gz", "r:"] = "r:gz" if file.read(2) == b"\x1f\x8b" else "r:"
    with tarfile.open(path, mode, tarinfo=StrictHeader) as tar:
        for info in tar:
            match = MEMBER.fullmatch(info.name)
            if match is None or not info.isreg():
                continue
            ending = match[2].lower()
            if ending.removesuffix(".gz") in KNOWN:
                content = tar.extractfile(info)
                assert content is not None, "a regular file has content"
                yield match[1], ending, content.read()


def read_files(
    root: Path, files: Iterable[PictureFile]
) -> Iterator[tuple[str, dict[str, bytes]]]:  # fmt: skip
    """Samples of files, as shards have them: a label is the `cls` member, captions are `json`."""
    for file in files:
        path, ending = root / file.name, file.name.rpartition(".")[2].lower()
        try:
            members = {ending: path.read_bytes()}
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); repair or remove it"
            ) from error
        if file.label:
            members["cls"] = file.label.encode(errors="surrogateescape")
        if file.captions:
            members["json"] = json.dumps({"caption": file.captions}).encode()
        yield file.name, members


def make_example(
    key: str, members: Mapping[str, bytes], source: Source, px: int, needs: Needs
) -> Example | Skipped:
    """What a sample holds, text first since a missing caption is the cheaper find."""
    has_picture = any(ending in members or f"{ending}.gz" in members for ending in PICTURES)
    if not has_picture:
        return Skipped(key, f"has no {', '.join(PICTURES)} member", has_picture)
    try:
        captions = read_captions(members, source.caption) if needs == "captions" else ()
        label = read_label(members, source.label) if needs == "labels" else None
        border = OBJECTNET_BORDER if source.kind == "objectnet" else 0
        picture = decode_picture(take(members, *PICTURES), px, border)
    except Unreadable as error:
        return Skipped(key, str(error), has_picture)
    return Example(key, picture, captions, label)


def take(members: Mapping[str, bytes], *endings: str) -> bytes:
    """The first of these members that is there, gzipped ones unpacked."""
    for ending in endings:
        if ending in members:
            return members[ending]
        if f"{ending}.gz" in members:
            try:
                return gzip.decompress(members[f"{ending}.gz"])
            except (OSError, EOFError, zlib.error) as error:
                raise Unreadable(f"{ending}.gz: {error}") from error
    raise Unreadable(f"has no {' or '.join(endings)} member")


def read_captions(members: Mapping[str, bytes], field: str | None) -> tuple[str, ...]:
    """All captions of a sample: a json field's string or list of strings, or the txt member."""
    if field is None and ("txt" in members or "txt.gz" in members):
        found: Any = read_text(members, "txt")
    elif field is None and not {"json", "json.gz"} & members.keys():
        raise Unreadable("has neither a txt nor a json member")
    else:
        found = read_field(members, "caption" if field is None else field)
    captions = found if isinstance(found, list) else [found]
    if not all(isinstance(caption, str) for caption in captions):
        raise Unreadable(f"caption is {found!r:.40}, neither a string nor a list of strings")
    captions = [caption for caption in captions if caption.strip()]
    if not captions:
        raise Unreadable("caption is empty")
    return tuple(captions)


def read_label(members: Mapping[str, bytes], field: str | None) -> str:
    """The class name of a sample: a json field, or the cls member."""
    found = read_text(members, "cls") if field is None else read_field(members, field)
    if not isinstance(found, str | int) or not (label := str(found).strip()):
        raise Unreadable(f"label is {found!r:.40}, no class name")
    return label


def read_text(members: Mapping[str, bytes], ending: str) -> str:
    try:
        return take(members, ending).decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"{ending} is not UTF-8: {error}") from error


def read_field(members: Mapping[str, bytes], field: str) -> Any:
    try:
        values = json.loads(take(members, "json"))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"json: {error}") from error
    if not isinstance(values, dict) or values.get(field) is None:
        raise Unreadable(f"json has no field {field!r}")
    return values[field]


def decode_picture(data: bytes, px: int, border: int = 0) -> np.ndarray:
    """(px, px, 3) uint8 RGB: shorter side to px, centre square; Unreadable for what is no picture.

    border: pixels cut off each side first.

    As open_clip opens pictures: alpha dropped, no turning by EXIF. PIL's bicubic, which widens its
    kernel as it shrinks and so is antialiased: CLIP's own filter (arXiv:2103.00020's code), and
    nearer to the full decode than cv2's area average (0.9 of 255 apart against 2.4, 64 px).
    """
    try:
        # Only these formats: PIL would run programs on others, such as EPS under another name.
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as opened:
            if not border:  # which is counted in the picture's own pixels
                opened.draft("RGB", (DRAFT * px, DRAFT * px))
            image = opened.convert("RGB")
            image = ImageOps.crop(image, border) if border else image
            side = min(image.size)
            # Whole pixels, so that a picture already at px is kept bit for bit.
            left, top = (image.width - side) // 2, (image.height - side) // 2
            box = (left, top, left + side, top + side)
            return np.asarray(image.resize((px, px), Image.Resampling.BICUBIC, box=box))
    except MemoryError:
        raise
    except UnidentifiedImageError as error:  # its own words hold an address, so differ every time
        raise Unreadable("picture is no JPEG, PNG or WebP") from error
    except Exception as error:  # any bytes come here, and decoders raise what they like
        raise Unreadable(f"picture: {type(error).__name__}: {error}") from error
