"""Keep some of a caption's word tokens: which ones, on packed ids, before the text tower."""

from __future__ import annotations

import numpy as np
import torch

from clipa_scaling.train.keyed import keyed_bits, keyed_uniform, make_key
from clipa_scaling.train.tokenize import END, cut_ids, has_end, text_lengths

METHODS = ("truncate", "random", "block", "syntax")
LAST = np.iinfo(np.int64).max  # sorts behind all that are words


def reduce_ids(
    ids: np.ndarray,
    tokens: int,
    method: str,
    seed: int,
    sample_M: np.ndarray | torch.Tensor,
    classes: np.ndarray | None = None,
) -> np.ndarray:
    """(M, tokens) int64: packed ids (M, 77) with as many of their word tokens as there is room for.

    Start and end are kept, the words' order too; the end follows the last word, zeros follow it. A
    caption that fits is the same under every method. WordPiece's have no end, so that one more word
    fits than `truncate` keeps, which is open_clip's. `classes` (M, 77), 0 for no word and 1 to 4
    for what is kept first to last, for `syntax`. Keyed by (seed, method, sample).
    """
    out = cut_ids(ids, tokens)
    if method == "truncate":
        return out
    if method not in METHODS:
        allowed = ", ".join(METHODS)
        raise ValueError(f"text_reduction={method!r} is unknown; allowed: {allowed}")
    around = 2 if has_end(ids) else 1  # tokens that are no words
    if not has_end(ids):
        out = ids[:, :tokens].astype(np.int64)
    words_M, room = text_lengths(ids) - around, tokens - around
    long = np.flatnonzero(words_M > room)
    if not long.size:
        return out
    ids, words_M = ids[long], words_M[long]
    sample_M = torch.as_tensor(sample_M)[torch.from_numpy(long)]
    if method == "block":
        kept = keep_span(seed, sample_M, words_M, room)
    elif method == "random":
        kept = keep_first(random_order(seed, sample_M, words_M, ids.shape[1]), room)
    else:
        assert classes is not None, "syntax needs word classes"
        classes = classes[long]
        assert ((classes > 0).sum(axis=1) == words_M).all(), "classes of other captions"
        kept = keep_first(np.where(classes > 0, classes, 255), room)
    out[long, 1 : room + 1] = np.take_along_axis(ids, kept, axis=1)
    if around == 2:
        out[long, -1] = END
    return out


def keep_span(seed: int, sample_M: torch.Tensor, words_M: np.ndarray, room: int) -> np.ndarray:
    """(M, room) places of one span of words, each equally likely, the last too.

    The papers' JAX code never draws the last, open_clip's does (arXiv:2305.07017, section 3.3).
    """
    draw_M = keyed_uniform(make_key(seed, "text block"), sample_M, 1)[:, 0].numpy()
    first_M = 1 + (draw_M * (words_M - room + 1)).astype(np.int64)
    return np.asarray(first_M[:, None] + np.arange(room))


def random_order(seed: int, sample_M: torch.Tensor, words_M: np.ndarray, length: int) -> np.ndarray:
    """(M, length) numbers by which words come in an order uniform among all orders."""
    bits = keyed_bits(make_key(seed, "text random"), sample_M, length).numpy()
    place = np.arange(length)
    return np.where((place >= 1) & (place <= words_M[:, None]), bits, LAST)


def keep_first(order: np.ndarray, room: int) -> np.ndarray:
    """(M, room) places of the lowest numbers, the earlier place of equals, in rising order."""
    return np.sort(np.argsort(order, axis=1, kind="stable")[:, :room], axis=1)
