"""One launch at a time in a runs folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipa_scaling import claim, rundir


@contextmanager
def lock(runs: Path, sweep: str) -> Iterator[None]:
    """Hold the launch lock of a runs folder; HeldError names who else does."""
    folder = runs / ".sweeps" / ".launches"  # no sweep's name begins with a dot
    mine = claim.take(f"runs folder {runs}", folder, folder, {"sweep": sweep})
    try:
        with claim.keep_alive(folder):
            yield
    finally:
        rundir.write_json(mine / "exit.json", {})
