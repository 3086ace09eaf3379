"""Released weights by name: open_clip's own, or a file, and what tells one from another."""

from __future__ import annotations

import hashlib
from pathlib import Path

from clipa_scaling.source import DataError

OPEN_CLIP = "open_clip:"
BLOCK, BLOCKS = 2**20, 64  # bytes, and how many of a larger file than all of them are read


def fingerprint_weights(start: str) -> str:
    """What names the weights of `open_clip:MODEL/TAG`, which is itself, or of a file.

    A file's are 16 hex digits from its size and its content: all of it up to 64 MiB; of a larger
    one 64 blocks of 1 MiB, evenly spaced, the first and the last among them. Training moves every
    weight, so that two checkpoints differ there too; edits of single weights can be missed.
    DataError where the file is absent.
    """
    if start.startswith(OPEN_CLIP):
        split_name(start)
        return start
    path = Path(start)
    if not path.is_file():
        raise DataError(f"{start}: no such file; allowed: {OPEN_CLIP}MODEL/TAG, or a weights file")
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size} ".encode())
    with path.open("rb") as file:
        if size <= BLOCK * BLOCKS:
            digest.update(file.read())
        else:
            for number in range(BLOCKS):
                file.seek(number * (size - BLOCK) // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()[:16]


def fingerprint_starts(image_start: str, text_start: str) -> str:
    """What names the first weights of both towers, and which has which; empty without any."""
    starts = {"image": image_start, "text": text_start}
    named = [f"{tower}={fingerprint_weights(start)}" for tower, start in starts.items() if start]
    return " ".join(named)


def split_name(start: str) -> tuple[str, str]:
    """MODEL and TAG of `open_clip:MODEL/TAG`, the model as open_clip lists it; or DataError."""
    model, _, tag = start.removeprefix(OPEN_CLIP).rpartition("/")
    if not model or not tag:
        raise DataError(f"{start}: names no weights; allowed: {OPEN_CLIP}MODEL/TAG")
    return model.replace("/", "-"), tag
