"""A data set in pieces, one per part of a pack: shards, chunks of files, runs of scenes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipa_scaling.rundir import read_json
from clipa_scaling.source import (
    DataError,
    PictureFile,
    Source,
    list_files,
    list_shards,
    picture_root,
)
from clipa_scaling.train.shards import (
    Example,
    Needs,
    Skipped,
    make_example,
    read_files,
    read_shard,
)

FOLDER_FILES = 2_000  # pictures that are files of their own in a part
SCENES = 4_096  # generated pictures in a part
SCENES_AT_ONCE = 256  # of them in memory together

Piece = Path | tuple[PictureFile, ...] | range


@dataclass(frozen=True)
class Request:
    """What a pack shall hold, as its `request.json` says.

    needs: what makes a sample usable beside its picture. max_unreadable: the share of samples with
    a picture that may be lost. fingerprint: of the data at planning time. tagger: by which words
    are classed too; empty is none. vocab: the WordPiece vocabulary of its ids; empty is CLIP's BPE.
    """

    source: Source
    store_px: int
    needs: Needs
    max_unreadable: float
    fingerprint: str
    tagger: str = ""
    vocab: str = ""


def load_request(pack_dir: Path) -> Request:
    """The request in a folder; keys it does not need, such as the folder, are for others."""
    values = read_json(pack_dir / "request.json")
    if values is None:
        raise DataError(f"{pack_dir}: has no request.json; launch the sweep, which writes it")
    return Request(
        source=Source(**values["source"]),
        store_px=values["store_px"],
        needs=values["needs"],
        max_unreadable=values["max_unreadable"],
        fingerprint=values["fingerprint"],
        tagger=values.get("tagger", ""),
        vocab=values.get("vocab", ""),
    )


def list_pieces(source: Source) -> list[Piece]:
    """The pieces of a data set in their fixed order; DataError where data is missing."""
    if source.kind == "scenes":
        starts = range(0, source.pairs, SCENES)
        return [range(start, min(start + SCENES, source.pairs)) for start in starts]
    if source.has_files:
        files = list_files(source)
        starts = range(0, len(files), FOLDER_FILES)
        return [tuple(files[start : start + FOLDER_FILES]) for start in starts]
    if source.kind == "shards":
        return list(list_shards(source.where))
    allowed = "shards, folder, objectnet, annotations, scenes"
    raise DataError(f"data: kind={source.kind!r} is unknown; allowed: {allowed}")


def name_piece(piece: Piece) -> str:
    """What a part was made of, for people."""
    if isinstance(piece, Path):
        return piece.name
    if isinstance(piece, range):
        return f"{piece[0]} to {piece[-1]}"
    return f"{piece[0].name} to {piece[-1].name}"


def read_piece(piece: Piece, request: Request) -> Iterator[Example | Skipped]:
    """The samples of a piece, read or skipped, in their order."""
    source, px, needs = request.source, request.store_px, request.needs
    if isinstance(piece, range):
        yield from draw_scenes(piece, source.seed, px, needs)
        return
    root = picture_root(source)
    raw = read_shard(piece) if isinstance(piece, Path) else read_files(root, piece)
    for key, members in raw:
        yield make_example(key, members, source, px, needs)


def draw_scenes(numbers: range, seed: int, px: int, needs: Needs) -> Iterator[Example]:
    """Generated examples, a few at a time."""
    from clipa_scaling.train.scenes import CLASS_NAMES, make_scenes  # only a pack of scenes draws

    for start in numbers[::SCENES_AT_ONCE]:
        count = min(SCENES_AT_ONCE, numbers.stop - start)
        drawn = zip(*make_scenes(seed, start, count, px), strict=True)
        for number, (picture, caption, label) in enumerate(drawn, start):
            captions = (caption,) if needs == "captions" else ()
            name = CLASS_NAMES[int(label)] if needs == "labels" else None
            yield Example(f"{number:08d}", picture, captions, name)
