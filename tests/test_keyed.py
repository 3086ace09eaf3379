"""Everything random is a pure function of (seed, purpose, index)."""

import numpy as np
import pytest
import torch

from clipa_scaling.train.keyed import feistel, keyed_bits, keyed_uniform, make_key, permute
from clipa_scaling.train.order import Order
from clipa_scaling.train.tokens import gather_patches, keep_random


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 4097])
def test_permute_is_a_permutation(size: int) -> None:
    sent = permute(np.arange(size), size, make_key(0, "test", size))
    assert sorted(sent) == list(range(size))


def test_feistel_is_a_permutation_without_visible_order() -> None:
    sent = feistel(np.arange(70_000), 70_000, make_key(0, "feistel"))
    assert np.array_equal(np.sort(sent), np.arange(70_000))
    assert abs(np.corrcoef(sent, np.arange(70_000))[0, 1]) < 0.02
    assert abs(np.corrcoef(sent[1:], sent[:-1])[0, 1]) < 0.02
    first = np.bincount(sent[:7000] // 3500, minlength=20)
    assert ((first - 350) ** 2 / 332.5).sum() < 43.8  # 19 degrees, p = 0.001


def test_permute_is_uniform_over_all_permutations_of_four() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(4800):
        sent = tuple(permute(np.arange(4), 4, make_key(seed, "uniform")))
        counts[sent] = counts.get(sent, 0) + 1
    chi_square = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert len(counts) == 24
    assert chi_square < 49.7  # 23 degrees of freedom, p = 0.001


def test_bits_depend_on_the_index_alone_not_on_its_company() -> None:
    key = make_key(3, "mask")
    together = keyed_bits(key, torch.arange(100), 7)
    alone = keyed_bits(key, torch.tensor([42]), 7)
    assert torch.equal(together[42], alone[0])
    assert not torch.equal(together[42], keyed_bits(make_key(4, "mask"), torch.tensor([42]), 7)[0])


def test_splitmix64_matches_its_published_first_values() -> None:
    # Vigna's splitmix64 from state 0 gives these; a row hash is its finaliser of key + index x
    # golden.
    golden = keyed_bits(0, torch.tensor([1, 2]), 1)  # mixed twice: rows, then column 0
    from clipa_scaling.train.keyed import mix

    first = 0xE220A8397B1DCDAF - 2**64
    assert mix(torch.tensor([0x9E3779B97F4A7C15 - 2**64])).item() == first
    assert golden[0, 0].item() == mix(torch.tensor([first])).item()


def test_uniform_fills_the_unit_interval() -> None:
    values = keyed_uniform(make_key(0, "u"), torch.arange(20_000), 2)
    counts = torch.histc(values[:, 1], 20, 0, 1)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 43.8  # 19 degrees, p = 0.001
    assert float(values.min()) >= 0 and float(values.max()) < 1
    assert abs(float(torch.corrcoef(values.T)[0, 1])) < 0.03


@pytest.mark.parametrize("window", [1, 2, 100])
def test_an_epoch_holds_no_pair_twice(window: int) -> None:
    order = Order(np.array([100, 37, 50, 80]), 32, seed=0, window=window)
    assert order.usable == 256
    for epoch in range(2):
        first = epoch * 256
        seen = np.concatenate([order.at(first + step * 32) for step in range(8)])
        assert len(set(seen)) == 256
        assert seen.min() >= 0 and seen.max() < 267


def test_order_is_a_function_of_position_and_changes_with_epoch_and_seed() -> None:
    sizes = np.array([64, 64])
    forward = Order(sizes, 32, seed=0, window=2)
    batches = [forward.at(position) for position in (0, 32, 128)]
    fresh = Order(sizes, 32, seed=0, window=2)
    assert np.array_equal(fresh.at(128), batches[2])
    assert np.array_equal(fresh.at(0), batches[0])
    assert not np.array_equal(batches[0], batches[2])
    assert not np.array_equal(Order(sizes, 32, seed=1, window=2).at(0), batches[0])


def test_a_narrow_window_keeps_shards_together() -> None:
    order = Order(np.array([64] * 8), 64, seed=0, window=1)
    assert all(len(set(order.at(step * 64) // 64)) == 1 for step in range(8))


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"10 pairs are fewer than batch_size=16; allowed: .* 10"):
        Order(np.array([10]), 16, seed=0, window=1)


@pytest.mark.parametrize("keep", range(1, 65))
def test_keep_random_keeps_exactly_so_many_in_order(keep: int) -> None:
    kept = keep_random(0, torch.arange(50), 64, keep)
    assert kept.shape == (50, keep)
    assert bool((kept.diff(dim=1) > 0).all())
    assert int(kept.min()) >= 0 and int(kept.max()) < 64


def test_keep_random_is_uniform_over_positions() -> None:
    kept = keep_random(7, torch.arange(16_000), 16, 4)
    counts = torch.bincount(kept.flatten(), minlength=16).double()
    # Sampling without replacement: the variance of a count is 4000 x 3/4.
    assert float(((counts - 4000) ** 2 / 3000).sum()) < 37.7 * 16 / 15  # p = 0.001


def test_patches_are_cut_row_by_row() -> None:
    image = torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    patches = gather_patches(image, 4, torch.tensor([[0, 3], [1, 2]]))
    assert torch.equal(patches[0, 1], image[0, :, 4:, 4:])
    assert torch.equal(patches[1, 0], image[1, :, :4, 4:])
    assert torch.equal(patches[1, 1], image[1, :, 4:, :4])
