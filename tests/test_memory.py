"""The micro-batch that fits: the largest divisor whose estimate leaves room."""

from __future__ import annotations

import pytest

from clipa_scaling.counts import count_model
from clipa_scaling.memory import FILLED, estimate_memory, fit_micro_batch
from clipa_scaling.models import load_model

TOKENS = (196, 32)


def needed(name: str, micro_batch: int, share: int, checkpointing: bool = False) -> float:
    model = load_model(name)
    counts = count_model(model, 196, 196, 32, 49_408)
    return estimate_memory(
        model, counts, TOKENS, micro_batch, 32_768, "bf16", checkpointing, loss_rows=share
    )


def fit(name: str, share: int, memory: float, checkpointing: bool = False) -> int:
    model = load_model(name)
    counts = count_model(model, 196, 196, 32, 49_408)
    return fit_micro_batch(
        model, counts, TOKENS, share, 32_768, "bf16", checkpointing, memory_bytes=memory
    )


@pytest.mark.parametrize("name", ["S/16", "B/16", "L/16", "G/14"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("share", [4096, 4095, 31])
def test_the_largest_divisor_that_fits(name: str, checkpointing: bool, share: int) -> None:
    memory = 80e9
    found = fit(name, share, memory, checkpointing)
    divisors = [n for n in range(1, share + 1) if share % n == 0]
    fitting = [n for n in divisors if needed(name, n, share, checkpointing) <= FILLED * memory]
    assert found == max(fitting, default=1)
    assert share % found == 0


def test_more_memory_holds_more_and_checkpointing_too() -> None:
    found = [fit("L/16", 4096, memory) for memory in (16e9, 40e9, 80e9, 1e12)]
    assert found == sorted(found) and found[0] < found[2] < found[3] == 4096
    assert fit("L/16", 4096, 80e9, checkpointing=True) > found[2]
    assert fit("G/14", 4096, 1e9) == 1, "the device itself says that it is too small"


def test_the_losss_rows_do_not_shrink_with_the_micro_batch() -> None:
    grown = needed("B/16", 64, 4096) - needed("B/16", 64, 64)
    assert grown == pytest.approx(16 * (4096 - 64) * 32_768)
