"""All that is random in training, as a function of (seed, purpose, index): nothing has a state."""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache

import numpy as np
import torch

GOLDEN = 0x9E3779B97F4A7C15  # splitmix64's increment: 2^64 / golden ratio
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # splitmix64's finaliser
ROUNDS = 6  # of the Feistel network; assumed ample, uniformity is tested
SORTED = 2**20  # 8 MB; a Feistel network is far from uniform on a handful of entries


def signed(value: int) -> int:
    """A 64-bit pattern as the int64 that torch can hold."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def shift_right(bits: torch.Tensor, count: int) -> torch.Tensor:
    """Logical shift; torch's own copies the sign."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def mix(bits: torch.Tensor) -> torch.Tensor:
    """splitmix64's finaliser on int64 patterns: every input bit reaches every output bit."""
    bits = (bits ^ shift_right(bits, 30)) * signed(MULTIPLIERS[0])
    bits = (bits ^ shift_right(bits, 27)) * signed(MULTIPLIERS[1])
    return bits ^ shift_right(bits, 31)


@cache
def make_key(seed: int, *purpose: str | int) -> int:
    """One signed 64-bit key for a seed and a purpose."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return signed(int.from_bytes(digest[:8], "little"))


def keyed_bits(key: int, index_B: torch.Tensor, count: int) -> torch.Tensor:
    """(B, count) random int64 patterns, a function of the key and each index, on its device."""
    columns = torch.arange(count, dtype=torch.int64, device=index_B.device)
    rows = mix(index_B.to(torch.int64) * signed(GOLDEN) + key)
    return mix(rows[:, None] + columns * signed(GOLDEN))


def keyed_uniform(key: int, index_B: torch.Tensor, count: int) -> torch.Tensor:
    """(B, count) float64 in [0, 1), from the top 53 bits."""
    return shift_right(keyed_bits(key, index_B, count), 11).double() * 2.0**-53


def permute(position: np.ndarray, size: int, key: int) -> np.ndarray:
    """Where a keyed permutation of range(size) sends each position.

    Up to SORTED entries it sorts random numbers, which is uniform over all permutations; above, a
    Feistel network, whose memory does not grow with size.
    """
    if size <= SORTED:
        return np.asarray(sorted_permutation(size, key)[position])
    return feistel(np.asarray(position, dtype=np.int64), size, key)


@lru_cache(maxsize=4)
def sorted_permutation(size: int, key: int) -> np.ndarray:
    return keyed_bits(key, torch.arange(size), 1)[:, 0].argsort(stable=True).numpy()


def feistel(position: np.ndarray, size: int, key: int) -> np.ndarray:
    """A permutation of the smallest even number of bits that holds `size`.

    Results outside the range walk on until they fall inside, which keeps it a permutation.
    """
    half = (max(size - 1, 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    value = torch.from_numpy(position.copy())
    outside = torch.ones_like(value, dtype=torch.bool)
    while bool(outside.any()):
        walking = value[outside]
        left, right = walking >> half, walking & mask
        for round_number in range(ROUNDS):
            hashed = mix(right * signed(GOLDEN) + signed(key + round_number * GOLDEN))
            left, right = right, left ^ (hashed & mask)
        value[outside] = (left << half) | right
        outside = value >= size
    return value.numpy()
