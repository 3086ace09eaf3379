"""Stop signals become a flag that is looked at between steps, by all ranks after the same one."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any

from clipa_scaling.train.world import World

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
MEETING_SECONDS = 1.0  # between two looks of several ranks; steps may slow down to twice that


class StopFlag:
    """Set by SIGTERM, SIGUSR2 or SIGINT; a save in progress is never cut short.

    number: the signal that came first, None before any.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.before: dict[int, Any] = {}

    @property
    def is_set(self) -> bool:
        return self.number is not None

    def listen(self) -> None:
        for number in SIGNALS:
            self.before[number] = signal.signal(number, self._set)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __enter__(self) -> StopFlag:
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.restore()

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number


class Meetings:
    """Ranks compare notes after the same step on each, about MEETING_SECONDS apart.

    The cadence, in steps, follows from seconds that all agreed on, so it is the same on all. One
    process alone meets itself after every step.
    """

    def __init__(self, world: World):
        self.world = world
        self.every, self.steps = 1, 0
        self.last = time.monotonic()

    def compare(self, *values: float) -> list[float]:
        """The largest of each value over the ranks when they meet after this step, else zeros."""
        if self.world.size == 1:
            return list(values)
        self.steps += 1
        if self.steps < self.every:
            return [0.0] * len(values)
        *agreed, seconds = self.world.largest(*values, time.monotonic() - self.last)
        wanted = int(self.every * MEETING_SECONDS / max(seconds, 1e-3))
        self.every, self.steps = max(1, min(2 * self.every, wanted)), 0
        self.last = time.monotonic()
        return agreed
