"""A pool of processes on this machine: one process per run, slots by GPU or core."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.live import Live

from clipa_scaling.claim import load_owner, signal_owner
from clipa_scaling.grid import Planned
from clipa_scaling.launch.retry import common_error
from clipa_scaling.revision import take_snapshot
from clipa_scaling.rundir import HELD, RunDir, RunState, find_snapshots, read_state
from clipa_scaling.show import clock, count_states, live_table, plain_line

LOOK_SECONDS = 0.25
LINE_SECONDS = 15.0  # between plain lines, where there is no terminal
STOP_SECONDS = 120.0  # assumed: ample for a step, an evaluation batch and a checkpoint


@dataclass(frozen=True)
class Slot:
    """A place for one run: the environment that keeps it to its share of the machine."""

    name: str
    environment: dict[str, str]


def find_slots(wanted: int | None = None) -> list[Slot]:
    """One slot per visible GPU, else one per core; `wanted` at most. Cores are shared out."""
    gpus, cores = visible_gpus(), count_cores()
    places = [(f"gpu{gpu}", gpu) for gpu in gpus] or [(f"core{n}", "") for n in range(cores)]
    places = places[:wanted]
    threads = str(max(1, cores // len(places)))
    return [
        Slot(name, {"OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": gpu})
        for name, gpu in places
    ]


def count_cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0))


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    masked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if masked is not None:
        return [name for name in masked.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(index) for index in range(len(lines))] if listed.returncode == 0 else []


class Pool:
    """Runs at work and in waiting.

    A run that another process works on, as one does whose launcher was killed, is adopted: it keeps
    a slot until it ends, and waits again when it ended unfinished.
    """

    def __init__(self, runs: Path, planned: Sequence[Planned], slots: Sequence[Slot], logs: Path):
        self.runs, self.planned, self.logs = runs, planned, logs
        self.code = take_snapshot(find_snapshots(runs))
        self.waiting = deque(planned)
        self.free = list(slots)
        self.working: dict[str, tuple[subprocess.Popen[bytes] | None, Slot]] = {}
        self.states = {item.id: read_state(RunDir(runs / item.id)) for item in planned}
        self.by_id = {item.id: item for item in planned}
        self.begun: dict[str, int] = {}  # attempts of a run before we started it
        self.ended: set[str] = set()
        self.stopping = False

    def start_waiting(self) -> None:
        """Fill the free slots."""
        while self.free and not self.stopping:
            item = next((item for item in self.waiting if self.is_due(item)), None)
            if item is None:
                return
            self.waiting.remove(item)
            slot = self.free.pop(0)
            running = read_state(RunDir(self.runs / item.id)).name == "running"
            self.working[item.id] = (None if running else self.start(item, slot), slot)

    def is_due(self, item: Planned) -> bool:
        """Whether a run's parent, if it has one, is done, and the runs before did not all die of
        one error."""
        parent = item.spec.parent
        return self.common_error is None and (
            not parent or RunDir(self.runs / parent).done.exists()
        )

    @property
    def common_error(self) -> str | None:
        """What the first several runs to end here all died of."""
        return common_error(self.states[identity] for identity in self.ended)

    def start(self, item: Planned, slot: Slot) -> subprocess.Popen[bytes]:
        self.begun[item.id] = self.attempts(item.id)
        with open(self.log(item.id), "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "clipa_scaling.train.loop", str(self.runs / item.id)],
                cwd=self.code,  # where `-m` looks first
                env=os.environ | {"PYTHONSAFEPATH": ""} | slot.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C reaches this pool alone
            )

    def log(self, identity: str) -> Path:
        """Where a run's process writes until its attempt has a log of its own."""
        return self.logs / f"{identity}.log"

    def attempts(self, identity: str) -> int:
        """How often a run was taken up."""
        last = RunDir(self.runs / identity).last_attempt()
        return int(last.name) if last is not None else 0

    def look(self) -> None:
        """Note progress and take back the slots of runs that ended."""
        for identity, (process, slot) in list(self.working.items()):
            code = None if process is None else process.poll()
            state = read_state(RunDir(self.runs / identity))
            if code == HELD:
                self.working[identity] = (None, slot)
            elif process is None and state.name != "running":
                self.end(identity, state)
                if state.name in ("stopped", "lost") and not self.stopping:
                    self.waiting.append(self.by_id[identity])
            elif process is not None and code is not None:
                took = self.attempts(identity) > self.begun[identity]
                if not (took or self.stopping or state.name == "done"):
                    reason = f"exit code {code} before it started; see {self.log(identity)}"
                    state = RunState("failed", state.samples, reason)
                self.end(identity, state)
            else:  # also one that is starting, whose folder still tells of the attempt before
                self.states[identity] = replace(state, name="running", reason="")

    def end(self, identity: str, state: RunState) -> None:
        self.states[identity] = state
        self.ended.add(identity)
        self.free.append(self.working.pop(identity)[1])

    def stop(self) -> None:
        """Ask every run to save and leave; nothing new is started."""
        self.stopping = True
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End what did not leave; the next start resumes from the last checkpoint."""
        self.signal(signal.SIGKILL)
        for process, _ in self.working.values():
            if process is not None:
                process.wait()

    def signal(self, number: int) -> None:
        for identity, (process, _) in self.working.items():
            attempt = RunDir(self.runs / identity).last_attempt()
            if process is not None:
                process.send_signal(number)
            elif attempt is not None:
                signal_owner(load_owner(attempt), number)

    def rows(self) -> list[tuple[Planned, RunState]]:
        return [(item, self.states[item.id]) for item in self.planned]


def run_pool(
    runs: Path, planned: Sequence[Planned], slots: Sequence[Slot], logs: Path, console: Console
) -> dict[str, RunState]:
    """Work through the runs; their final states. Ctrl-C stops cleanly, a second one at once."""
    logs.mkdir(parents=True, exist_ok=True)
    pool = Pool(runs, planned, slots, logs)
    interrupts: list[float] = []

    def interrupt(*_: object) -> None:
        interrupts.append(time.monotonic())

    old = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Display(console, pool) as show:
            pool.start_waiting()
            while pool.working:
                if interrupts and not pool.stopping:
                    pool.stop()
                    show("stopping: every run saves and leaves; Ctrl-C again ends them at once")
                overdue = interrupts and time.monotonic() - interrupts[0] > STOP_SECONDS
                if len(interrupts) > 1 or overdue:
                    pool.kill()
                pool.look()
                pool.start_waiting()
                show(None)
                time.sleep(LOOK_SECONDS)
            if pool.waiting and pool.common_error:
                show(
                    "the first runs to end all failed alike, so no more are started: "
                    f"{pool.common_error}; once mended: --retry failed"
                )
    finally:
        pool.kill()
        for number, handler in old.items():
            signal.signal(number, handler)
    return pool.states


class Display:
    """A live table on a terminal; elsewhere a line now and then, and one whenever a run ends."""

    def __init__(self, console: Console, pool: Pool):
        self.console, self.pool = console, pool
        can_draw = console.is_terminal and not console.is_dumb_terminal
        self.live = Live(console=console, auto_refresh=False) if can_draw else None
        self.began = self.last = time.monotonic()
        self.told: set[str] = set()

    def __enter__(self) -> Callable[[str | None], None]:
        if self.live:
            self.live.start()
        return self.show

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.show(None)
            self.live.stop()

    def show(self, message: str | None) -> None:
        rows = [(item.id, item.spec, state) for item, state in self.pool.rows()]
        title = f"{count_states(state.name for *_, state in rows)}; {clock(self.elapsed)}"
        if message:
            self.say(message)
        if self.live:
            most = max(4, self.console.height - 6)
            self.live.update(live_table(title, rows, most), refresh=True)
            return
        for identity, _, state in rows:
            if identity in self.pool.ended - self.told:
                self.told.add(identity)
                ending = f": {state.reason}" if state.reason else ""
                self.say(f"{state.name} {identity}{ending}")
        if time.monotonic() - self.last > LINE_SECONDS:
            self.last = time.monotonic()
            self.say(plain_line(clock(self.elapsed), rows))

    def say(self, line: str) -> None:
        """A line as it is: brackets in an error are no markup."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began
