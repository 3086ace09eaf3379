"""The launch in two phases: intent, held, recorded, released; and healing what died in between."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from clipa_scaling import rundir
from clipa_scaling.launch import commands, packs
from clipa_scaling.launch.batch import (
    PREFIX,
    Ask,
    Batch,
    change,
    files_of,
    folder_digits,
    load_all_batches,
    load_batches,
    make_batch,
    save_batch,
)
from clipa_scaling.launch.commands import Limits
from clipa_scaling.launch.queue import Queue, refresh_queue, remember_queued
from clipa_scaling.launch.slurm import ask_for_packing, submit_held, write_pickles
from clipa_scaling.revision import take_snapshot
from clipa_scaling.rundir import RunDir
from clipa_scaling.spec import RunSpec, spec_to_json
from clipa_scaling.sweepfile import Sweep

SBATCH_SECONDS = 120.0  # for an sbatch that outlived its launcher


@dataclass(frozen=True)
class Wanted:
    """A run to submit: its spec, what its job asks for, and the failure before, if any."""

    run: str
    spec: RunSpec
    ask: Ask
    why: str = ""


@dataclass
class Submitted:
    """What a launch did: batches made, tasks left out for a limit, and what Slurm refused."""

    batches: list[Batch] = field(default_factory=list)
    left_out: int = 0
    refused: list[str] = field(default_factory=list)


def awaited(batches: Sequence[Batch], queue: Queue) -> list[str]:
    """The jobs that should still be in the queue, as far as is known."""
    return [
        job
        for batch in batches
        if batch.state in ("recorded", "released")
        for job in batch.task_jobs()
        if job not in queue.ended
    ]


def heal(runs: Path, sweep: Sweep) -> tuple[list[Batch], Queue]:
    """Settle what an earlier launch left open, by a fresh look at the queue; batches and queue.

    A batch of which only the intent is known is adopted where the queue has a job of its name, and
    void where not. A waiting job in our name of which nothing is kept is cancelled: its runs are
    planned still. Raises QueueError where the queue does not answer: nothing is settled.
    """
    batches = load_batches(runs, sweep.name)
    for batch in batches:
        if batch.state == "intent":
            wait_for_sbatch(files_of(runs, batch))
    known = awaited(load_all_batches(runs), Queue())
    queue = refresh_queue(runs, known, now=True)
    if queue.error:
        raise commands.QueueError(queue.error)
    found = {job.name: job.id.partition("_")[0] for job in queue.jobs.values()}
    settled = []
    for batch in batches:
        if batch.state == "intent" and batch.name in found:
            batch = replace(batch, state="recorded", job=found[batch.name])
            write_pickles(runs, batch, sweep.slurm)  # before it counts as whole
            save_batch(runs, batch)
        elif batch.state == "intent":
            batch = change(runs, batch, state="void")
        settled.append(batch)
    cancel_strays(runs, sweep.name, settled, queue)
    return settled, queue


def cancel_strays(runs: Path, sweep: str, batches: Sequence[Batch], queue: Queue) -> None:
    """End waiting jobs with our name and folder that no batch accounts for; work is left alone."""
    kept = {batch.name for batch in batches if batch.state != "void"}
    ours = f"{PREFIX}:{sweep}:{folder_digits(runs)}"
    strays = {
        job.id.partition("_")[0]
        for job in queue.jobs.values()
        if job.name.startswith(ours) and job.name not in kept and job.state == "PENDING"
    }
    if strays:
        commands.cancel(sorted(strays))


def wait_for_sbatch(folder: Path) -> None:
    """Until no sbatch of a dead launcher works on a batch any more: it may yet add the job."""
    deadline = time.monotonic() + SBATCH_SECONDS
    while time.monotonic() < deadline and any(str(folder) in line for line in list_sbatch()):
        time.sleep(0.2)


def list_sbatch() -> list[str]:
    """The command lines of this host's sbatch processes."""
    processes = psutil.process_iter(["name", "cmdline"])
    found = [process.info for process in processes]
    return [" ".join(info["cmdline"] or ()) for info in found if info["name"] == "sbatch"]


def submit(
    runs: Path,
    sweep: Sweep,
    wanted: Sequence[Wanted],
    batches: Sequence[Batch],
    queue: Queue,
    limits: Limits,
    by_hand: bool = False,
) -> Submitted:
    """Submit runs in arrays of equal asks, and their packing before them; then release.

    What Slurm refuses keeps back nothing else, but for packing. Raises QueueError where Slurm does
    not answer; the next call settles what is open.
    """
    done = Submitted()
    code = str(take_snapshot(rundir.find_snapshots(runs)))
    after: tuple[str, ...] = ()
    try:
        after = submit_packing(runs, sweep, batches, queue, limits, code, done) if wanted else ()
    except commands.Refused as error:
        done.refused.append(f"packing: {error}")
        wanted = ()
    room = room_left(sweep.slurm.max_submit, batches, queue)
    done.left_out = max(0, len(wanted) - room)
    for ask, some in group(wanted[:room], limits.array):
        for item in some:
            rundir.make_run(RunDir(runs / item.run), spec_to_json(item.spec))
        batch = make_batch(
            runs, sweep.name, "runs", tasks=tuple(item.run for item in some), ask=ask, code=code,
            why={item.run: item.why for item in some if item.why}, after=after,
            by_hand=by_hand,
        )  # fmt: skip
        try:
            done.batches.append(put(runs, batch, sweep))
        except commands.Refused as error:
            done.refused.append(f"{len(some)} runs: {error} (too many? see slurm.max_submit)")
    for batch in done.batches:
        remember_queued(runs, batch.name, batch.task_jobs())
    done.refused += release(runs, sweep, load_batches(runs, sweep.name), queue)
    return done


def put(runs: Path, batch: Batch, sweep: Sweep) -> Batch:
    """The first phase of one batch: its intent, the held job, the job's id."""
    save_batch(runs, batch)
    try:
        job = submit_held(runs, batch, sweep.slurm, max(1, len(batch.tasks)))
    except commands.Refused:
        change(runs, batch, state="void")
        raise
    return change(runs, batch, state="recorded", job=job)


def submit_packing(
    runs: Path,
    sweep: Sweep,
    batches: Sequence[Batch],
    queue: Queue,
    limits: Limits,
    code: str,
    done: Submitted,
) -> tuple[str, ...]:
    """The jobs that runs must wait for, submitted if nobody packs yet; none once all is packed."""
    missing = [request for request in sweep.packs if not packs.is_packed(request)]
    if not missing:
        return ()
    folders = tuple(str(request.folder) for request in missing)
    at_work = [
        batch.job
        for batch in batches
        if batch.kind == "pack" and set(batch.packs) >= set(folders) and alive(batch, queue)
    ]
    if at_work:
        return (at_work[-1],)
    for request in missing:
        packs.write_request(request)
    tasks = tuple(f"share {n}" for n in range(min(sweep.slurm.pack_tasks, limits.array)))
    ask = ask_for_packing(sweep.slurm, limits.minutes)
    batch = make_batch(
        runs, sweep.name, "pack", tasks=tasks, ask=ask, code=code, packs=folders
    )  # fmt: skip
    done.batches.append(put(runs, batch, sweep))
    return (done.batches[-1].job,)


def group(wanted: Sequence[Wanted], most: int) -> list[tuple[Ask, Sequence[Wanted]]]:
    """Runs that ask the same, in their order, in arrays of at most so many."""
    by_ask: dict[Ask, list[Wanted]] = {}
    for item in wanted:
        by_ask.setdefault(item.ask, []).append(item)
    return [
        (ask, items[start : start + most])
        for ask, items in by_ask.items()
        for start in range(0, len(items), most)
    ]


def room_left(most: int | None, batches: Sequence[Batch], queue: Queue) -> int:
    """How many more tasks may enter the queue."""
    there = sum(count_alive(batch, queue) for batch in batches if batch.kind == "runs")
    return 10**9 if most is None else max(0, most - there)


def count_alive(batch: Batch, queue: Queue) -> int:
    """The tasks of a batch that the queue, as last seen, has or may have."""
    if batch.state not in ("recorded", "released"):
        return 0
    jobs = batch.task_jobs()
    return sum(job not in queue.ended and not queue.is_gone(job) for job in jobs)


def alive(batch: Batch, queue: Queue) -> bool:
    return count_alive(batch, queue) > 0


def release(runs: Path, sweep: Sweep, batches: Sequence[Batch], queue: Queue) -> list[str]:
    """The second phase: let recorded batches start, within `max_parallel` over the whole sweep.

    What Slurm refuses keeps back nothing else; it is told.
    """
    living = [batch for batch in batches if alive(batch, queue)]
    shares = share_out(
        sweep.slurm.max_parallel,
        {batch.id: count_alive(batch, queue) for batch in living if batch.kind == "runs"},
    )
    refused = []
    for batch in living:
        share = shares.get(batch.id, 1)
        at_once = 0 if share >= count_alive(batch, queue) or batch.kind == "pack" else share
        try:
            release_one(runs, batch, share > 0, at_once)
        except commands.Refused as error:
            refused.append(f"to release job {batch.job}: {error}")
    return refused


def release_one(runs: Path, batch: Batch, may_start: bool, at_once: int) -> None:
    """Bring one batch to what it may do: so many tasks at once (0: all), or start no more."""
    if not may_start:
        if batch.state == "released":
            commands.hold(batch.job)
            change(runs, batch, state="recorded")
        return
    if at_once != batch.at_once and len(batch.tasks) > 1:
        commands.set_throttle(batch.job, at_once)
        batch = change(runs, batch, at_once=at_once)
    if batch.state == "recorded":
        commands.release(batch.job)
        change(runs, batch, state="released")


def release_stuck(batches: Sequence[Batch], queue: Queue) -> None:
    """Let jobs try again that Slurm holds because a node could not start them."""
    released = [batch for batch in batches if batch.state == "released"]
    ours = {job: batch.name for batch in released for job in batch.task_jobs()}
    for job, name in ours.items():
        queued = queue.find(job, name)
        if queued is not None and queued.reason == commands.STUCK:
            commands.release(job)


def share_out(most: int | None, sizes: Mapping[str, int]) -> dict[str, int]:
    """`most` tasks at once over batches by size, each at least one while there are; the rest none.

    A batch without a share stays held; a later call, or --follow, releases it.
    """
    if most is None or sum(sizes.values()) <= most:
        return dict(sizes)
    shares = dict.fromkeys(sizes, 0)
    for identity in list(sizes)[:most]:
        shares[identity] = 1
    left = most - sum(shares.values())
    while left > 0:
        neediest = max(sizes, key=lambda name: sizes[name] / (shares[name] + 1))
        if shares[neediest] >= sizes[neediest]:
            break
        shares[neediest] += 1
        left -= 1
    return shares
