"""The command, which kills itself: -m tests.slurm.killed_launcher POINT SWEEP OPTIONS…

POINT is `module:function:before:2:word`: at the second call of the function whose last argument
contains the word, before it begins or `after` it ended. Points may be several, joined by commas:
the first reached kills.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from clipa_scaling import sweep


def wrap(function: Callable[..., Any], when: str, call: int, word: str) -> Callable[..., Any]:
    """The function, which ends this process at one of its calls."""
    calls = 0

    def killing(*values: Any, **named: Any) -> Any:
        nonlocal calls
        calls += word in str(values[-1:])
        reached = calls == call
        if reached and when == "before":
            die()
        result = function(*values, **named)
        if reached:
            die()
        return result

    return killing


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def set_point(point: str) -> None:
    module, function, when, call, *word = point.split(":")
    owner: Any = importlib.import_module(module)
    *outer, name = function.split(".")
    for part in outer:
        owner = getattr(owner, part)
    killing = wrap(getattr(owner, name), when, int(call), word[0] if word else "")
    is_static = isinstance(vars(owner).get(name), staticmethod)
    setattr(owner, name, staticmethod(killing) if is_static else killing)


if __name__ == "__main__":
    for given in sys.argv[1].split(","):
        set_point(given)
    sys.exit(sweep.main(sys.argv[2:]))
