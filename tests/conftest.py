"""What every test starts from: one thread, no hub, no runs folder from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before any test imports torch, which reads it once. Several processes at once must not fight for
# cores, and sums must come out in one order.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("CLIPA_RUNS", None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of references and real data beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared, which is not here")
    return folder


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep file of a small study that ran undisturbed; read its folders, change nothing."""
    from small_sweep import run_sweep, write_small

    sweep = write_small(tmp_path_factory.mktemp("small"))
    done = run_sweep(sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    return sweep


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who asks for the fixture `shared` is marked so, for `-m "not shared"`."""
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")
