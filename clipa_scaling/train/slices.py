"""One tower's features of a whole batch, a slice at a time, with the whole batch's gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch


class Encoded(NamedTuple):
    """Features of some inputs, and the tokens of each, read off the tensor."""

    features_BE: torch.Tensor
    tokens: int


Encode = Callable[[slice], Encoded]


class SlicedFeatures:
    """Features of `count` inputs, of which a device holds at most `at_once` with their activations.

    In several slices all are encoded without a graph first; the loss then says what it wants of
    each feature, and `backward` encodes each slice once more to pass that on (GradCache,
    arXiv:2101.06983, section 3). Slices are as equal as can be. `encode` must give the same each
    time it is asked.

    features_BE: what the loss takes. tokens: what the tower saw of each input.
    """

    def __init__(self, encode: Encode, count: int, at_once: int):
        self.encode, self.slices = encode, cut(count, at_once)
        if len(self.slices) == 1:
            self.features_BE, self.tokens = encode(self.slices[0])
            return
        with torch.no_grad():
            parts = [encode(rows) for rows in self.slices]
        self.features_BE = torch.cat([part.features_BE for part in parts]).requires_grad_()
        self.tokens = parts[0].tokens

    def backward(self) -> None:
        """After the loss's own backward: what is left of it, down to the weights."""
        if len(self.slices) == 1:
            return
        assert self.features_BE.grad is not None, "the loss depends on all features"
        for rows in self.slices:
            again_bE = self.encode(rows).features_BE
            if again_bE.requires_grad:  # a frozen tower's do not
                again_bE.backward(self.features_BE.grad[rows])


def cut(count: int, at_once: int) -> list[slice]:
    """Ranges of at most `at_once` that cover `count`, all but the last of one length."""
    pieces = -(-count // at_once)
    each = -(-count // pieces)
    return [slice(start, min(start + each, count)) for start in range(0, count, each)]
