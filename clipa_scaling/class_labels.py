"""What a labelled data set may call its classes, told before a picture is read."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from clipa_scaling.source import DataError

IMAGENET_CLASSES = 1_000
MOST_NUMBERS = 10  # of a set whose classes are numbers themselves: the digits (MNIST, SVHN)
WAY_OUT = "rename the folders to words, or use shards and name their field of words with label"


def are_ids(names: Collection[str]) -> bool:
    """Whether the classes are named by WordNet ids, as ImageNet's."""
    return bool(names) and all(map(is_id, names))


def are_indices(names: Collection[str]) -> bool:
    """Whether the classes are ImageNet-1k's 0 to 999, as -V2's folders; zeros may be in front."""
    numbers = {int(name) for name in names if is_number(name)}
    return len(names) == IMAGENET_CLASSES and numbers == set(range(IMAGENET_CLASSES))


def is_id(name: str) -> bool:
    return re.fullmatch(r"n[0-9]{8}", name) is not None


def is_number(name: str) -> bool:
    return re.fullmatch(r"[0-9]+", name) is not None


def check_labels(names: Collection[str]) -> None:
    """Raise DataError for names that are no words and stand for none: no prompt can take them.

    Those are WordNet ids outside ImageNet-1k or among other names, and many numbers that are not
    exactly ImageNet-1k's. Where timm's list of ids is not at hand, ids pass.
    """
    known = imagenet_ids()
    unknown = sorted({*names} - {*known}) if known and are_ids(names) else []
    if unknown:
        raise DataError(
            f"classes: {len(unknown)} of {len(names)} WordNet ids, such as {unknown[0]}, are not "
            f"among ImageNet-1k's, and ids are no words; {WAY_OUT}"
        )
    ids = [name for name in names if is_id(name)]
    if ids and len(ids) < len(names):
        other = next(name for name in names if not is_id(name))
        raise DataError(
            f"classes: {len(ids)} of {len(names)} are WordNet ids, such as {ids[0]}, and others, "
            f"such as {other}, are not; take those away, or {WAY_OUT}"
        )
    is_numbered = len(names) > MOST_NUMBERS and all(map(is_number, names))
    if is_numbered and not are_indices(names):
        raise DataError(
            f"classes: {len(names)} numbers, such as {max(names)}, are no words and not "
            f"ImageNet-1k's 0 to 999; bring the missing folders, or {WAY_OUT}"
        )


@cache
def imagenet_ids() -> tuple[str, ...]:
    """ImageNet-1k's WordNet ids in order, from timm's file; importing timm would bring torch.

    Empty where the file is not there.
    """
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        return ()
    path = Path(spec.origin).parent / "data" / "_info" / "imagenet_synsets.txt"
    try:
        return tuple(path.read_text(encoding="utf-8").split())
    except OSError:
        return ()
