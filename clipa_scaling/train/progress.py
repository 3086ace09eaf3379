"""How far packing is: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

EVERY_SECONDS = 10  # a line in a log

Advance = Callable[[int], None]


@contextmanager
def show_progress(name: str, parts: int, done: int) -> Iterator[Advance]:
    """Yields what to call after each part, with its pairs; `done` parts were there already."""
    console = Console()
    if not console.is_terminal:
        yield PlainProgress(name, parts, done)
        return
    rate = TextColumn("{task.fields[pairs]:,} pairs, {task.fields[rate]:,.0f} pairs/s")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    started, pairs = time.monotonic(), 0
    with Progress(*columns, rate, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(name, total=parts, completed=done, pairs=0, rate=0.0)

        def advance(more: int) -> None:
            nonlocal pairs
            pairs += more
            bar.update(task, advance=1, pairs=pairs, rate=pairs / (time.monotonic() - started))

        yield advance


class PlainProgress:
    """Lines, at most one in EVERY_SECONDS but for the last."""

    def __init__(self, name: str, parts: int, done: int):
        self.name, self.parts, self.done, self.pairs = name, parts, done, 0
        self.started = self.said = time.monotonic()

    def __call__(self, pairs: int) -> None:
        self.done += 1
        self.pairs += pairs
        now = time.monotonic()
        if now - self.said >= EVERY_SECONDS or self.done == self.parts:
            self.said = now
            rate = self.pairs / (now - self.started)
            print(
                f"{self.name}: {self.done}/{self.parts} parts, {self.pairs:,} pairs, "
                f"{rate:,.0f} pairs/s",
                flush=True,
            )
