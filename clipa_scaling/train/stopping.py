"""Stop signals become a flag that is looked at between steps."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


class StopFlag:
    """Set by SIGTERM, SIGUSR2 or SIGINT; a save in progress is never cut short."""

    def __init__(self) -> None:
        self.is_set = False

    def listen(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._set)

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True
