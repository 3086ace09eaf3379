"""Per-example correctness as text: one bit an example, packed, in base64."""

from __future__ import annotations

import base64

import numpy as np


def pack_bits(correct_N: np.ndarray) -> str:
    """(N,) bool as the text of an `evals` row's `correct`."""
    return base64.b64encode(np.packbits(correct_N).tobytes()).decode()


def unpack_bits(text: str, count: int) -> np.ndarray:
    """(count,) bool: which examples of an `evals` row with `n` = count were right."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)
