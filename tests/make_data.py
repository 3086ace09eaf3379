"""Small data sets for the tests of source, shards and pack, made on the spot."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from clipa_scaling.rundir import write_json
from clipa_scaling.source import Source, fingerprint
from clipa_scaling.train.pack import check_pieces, make_head
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.part import write_part
from clipa_scaling.train.pieces import load_request

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


def make_picture(width: int, height: int, seed: int) -> np.ndarray:
    """(height, width, 3) uint8: smooth colour with an edge, which no two seeds share."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * rng.uniform(0.01, 0.2) + y * rng.uniform(0.01, 0.2)) for _ in range(3)]
    picture = 128 + 100 * np.stack(waves, axis=-1)
    picture[height // 3 :, : width // 2] *= 0.5
    return picture.clip(0, 255).astype(np.uint8)


def encode(picture: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, kind, **options)
    return content.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes | None]], mode: str = "w") -> Path:
    """A tar of files in this order; None makes a directory entry."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data or b""))
    return path


def write_shards(folder: Path, shards: int, pairs: int, px: int = 48) -> str:
    """Shards of PNGs with txt, cls and json of two captions; the pattern that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        members: list[tuple[str, bytes | None]] = []
        for number in range(shard * pairs, (shard + 1) * pairs):
            picture = make_picture(px + number % 5, px, number)
            captions = [f"picture {number} of many", f"a {number % 7} thing"]
            members += [
                (f"{number:06d}.png", encode(picture)),
                (f"{number:06d}.txt", captions[0].encode()),
                (f"{number:06d}.cls", str(number % 3).encode()),
                (f"{number:06d}.json", json.dumps({"captions": captions}).encode()),
            ]
        write_tar(folder / f"{shard:05d}.tar", members)
    return f"{folder}/{{00000..{shards - 1:05d}}}.tar"


def write_request(
    folder: Path,
    source: Source,
    px: int,
    needs: str = "captions",
    max_unreadable: float = 0.01,
    **more: str,
) -> Path:
    """A pack folder with the request.json that a launcher writes."""
    folder.mkdir(parents=True, exist_ok=True)
    request = {
        "source": dataclasses.asdict(source),
        "store_px": px,
        "needs": needs,
        "max_unreadable": max_unreadable,
        "fingerprint": fingerprint(source, px),
        **more,
    }
    write_json(folder / "request.json", request)
    return folder


def pack_command(folder: Path, workers: int = 2) -> list[str]:
    module = ["-m", "clipa_scaling.train.pack"]
    return [sys.executable, *module, str(folder), "--workers", str(workers)]


def run_pack(folder: Path, workers: int = 2) -> subprocess.CompletedProcess[str]:
    """The packer as the launcher runs it, to its end."""
    command = pack_command(folder, workers)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def pack_here(folder: Path, source: Source, px: int, needs: str = "captions") -> Pack:
    """A pack made part by part in this process, which is quicker than starting a packer."""
    request = load_request(write_request(folder, source, px, needs))
    parts = [write_part(folder, n, piece, request) for n, piece in enumerate(check_pieces(request))]
    write_json(folder / "pack.json", make_head(parts, request))
    return Pack.open(folder, request.fingerprint)
