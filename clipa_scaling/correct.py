"""Per-example correctness as text: one bit an example, packed, in base64; and its clusters."""

from __future__ import annotations

import base64

import numpy as np


def pack_bits(correct_N: np.ndarray) -> str:
    """(N,) bool as the text of an `evals` row's `correct`."""
    return base64.b64encode(np.packbits(correct_N).tobytes()).decode()


def unpack_bits(text: str, count: int) -> np.ndarray:
    """(count,) bool: which examples of an `evals` row with `n` = count were right."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)


def pack_clusters(counts_C: np.ndarray) -> str:
    """How many consecutive examples belong together, as the text of a row's `clusters`.

    Empty for one each, one number where all are equal, else all counts.
    """
    different = np.unique(counts_C).tolist()
    if different == [1]:
        return ""
    return " ".join(map(str, different if len(different) == 1 else counts_C.tolist()))


def unpack_clusters(text: str, count: int) -> np.ndarray:
    """(count,) int64: the cluster, from 0, of each example of a row with `n` = count."""
    sizes = [int(word) for word in text.split()] or [1]
    if len(sizes) == 1:
        sizes *= count // sizes[0]
    assert sum(sizes) == count, "clusters hold all examples"
    return np.repeat(np.arange(len(sizes)), sizes)
