"""Released weights by name: open_clip's own, a folder or a file, and what tells them apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

from clipa_scaling.source import DataError

OPEN_CLIP, LOCAL_DIR = "open_clip:", "local-dir:"
CONFIG = "open_clip_config.json"
# What open_clip looks for in a folder, the first that is there.
IN_FOLDER = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "model.safetensors",
    "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
ALLOWED = f"allowed: {OPEN_CLIP}MODEL/TAG, a folder with {CONFIG} and weights, or a weights file"
BLOCK, BLOCKS = 2**20, 64  # bytes, and how many of a larger file than all of them are read


def locate_start(start: str, base: Path) -> str:
    """A start with its path made whole, relative to `base`; empty and open_clip's own stay."""
    if not start or start.startswith(OPEN_CLIP):
        return start
    return str(base / Path(start.removeprefix(LOCAL_DIR)).expanduser())


def find_weights(start: str) -> Path:
    """The file of a start that is one, or a folder's as open_clip finds it; DataError if none."""
    path = Path(start.removeprefix(LOCAL_DIR))
    if path.is_dir():
        there = [path / name for name in IN_FOLDER if (path / name).is_file()]
        if not there or not (path / CONFIG).is_file():
            absent = CONFIG if there else f"weights, such as {IN_FOLDER[0]}"
            raise DataError(f"{start}: has no {absent}; {ALLOWED}")
        return there[0]
    if not path.is_file():
        raise DataError(f"{start}: no such file; {ALLOWED}")
    return path


def fingerprint_weights(start: str) -> str:
    """What names the weights of `open_clip:MODEL/TAG`, which is itself, or of a file or folder.

    A file's are 16 hex digits from its size and its content: all of it up to 64 MiB; of a larger
    one 64 blocks of 1 MiB, evenly spaced, the first and the last among them. Training moves every
    weight, so that two checkpoints differ there too; edits of single weights can be missed.
    DataError where the file is absent.
    """
    if start.startswith(OPEN_CLIP):
        split_name(start)
        return start
    path = find_weights(start)
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
