"""Which pair stands at which position of the training stream: a pure function of (data, seed)."""

from __future__ import annotations

import numpy as np

from clipa_scaling.train.keyed import make_key, permute


class Order:
    """A keyed permutation of shards, then a keyed shuffle inside each window of shards.

    An epoch is the whole batches that fit in the data, so no batch holds a pair twice; which pairs
    are left over differs from epoch to epoch. Position is one integer, hence resume is exact.
    """

    def __init__(self, shard_sizes: np.ndarray, batch_size: int, seed: int, window: int):
        self.sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)])
        self.batch_size, self.seed, self.window = batch_size, seed, window
        total = int(self.starts[-1])
        self.usable = total // batch_size * batch_size
        if self.usable == 0:
            raise ValueError(
                f"data: {total} pairs are fewer than batch_size={batch_size}; allowed: a batch of "
                f"at most {total}, since no batch may hold a pair twice"
            )
        self._epoch = -1

    def at(self, position: int) -> np.ndarray:
        """The batch's pairs, as (batch_size,) indices into the data; `position` in samples."""
        epoch, first = divmod(position, self.usable)
        self._enter(epoch)
        wanted = np.arange(first, first + self.batch_size)
        window = np.searchsorted(self._window_ends, wanted, side="right")
        index = np.empty(self.batch_size, dtype=np.int64)
        for number in np.unique(window):
            here = window == number
            index[here] = self._in_window(int(number), wanted[here])
        return index

    def _enter(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        shards = permute(
            np.arange(len(self.sizes)), len(self.sizes), make_key(self.seed, "shards", epoch)
        )
        groups = [shards[i : i + self.window] for i in range(0, len(shards), self.window)]
        self._groups = groups
        self._window_ends = np.cumsum([self.sizes[group].sum() for group in groups])
        self._epoch = epoch

    def _in_window(self, number: int, wanted: np.ndarray) -> np.ndarray:
        group = self._groups[number]
        ends = np.cumsum(self.sizes[group])
        before = self._window_ends[number] - ends[-1]
        key = make_key(self.seed, "pairs", self._epoch, number)
        local = permute(wanted - before, int(ends[-1]), key)
        member = np.searchsorted(ends, local, side="right")
        within = local - (ends[member] - self.sizes[group[member]])
        return np.asarray(self.starts[group[member]] + within)
