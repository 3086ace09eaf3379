"""Decode a data set once: shards to memory-mapped uint8 pixels and caption ids, part by part.

    python -m clipa_scaling.train.pack PACK_DIR… [--workers N]

Each PACK_DIR holds a request.json. Any kill, then the same command: the same pack, bit for bit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipa_scaling.rundir import read_json, write_bytes, write_json
from clipa_scaling.source import DataError, fingerprint
from clipa_scaling.taggers import classes_mark
from clipa_scaling.train.class_names import name_classes
from clipa_scaling.train.packed import ARRAYS, classes_of, part_path
from clipa_scaling.train.part import LISTED, read_classed, write_part
from clipa_scaling.train.pieces import Piece, Request, list_pieces, load_request
from clipa_scaling.train.progress import show_progress
from clipa_scaling.vocabulary import FILE, find_vocabulary, name_pack

HOPELESS = 1_000  # pictures, none of them usable: no need to read on to call it off
LOSSES = ("unreadable", "no_picture")  # the second was never meant as a pair
BAD_DATA, STOPPED = 2, 130  # exit status; the second as shells say Ctrl-C

Totals = dict[str, Any]
Share = tuple[int, int]  # which of how many: parts are dealt out in turn
ALL: Share = (0, 1)
LATE_SECONDS = 10.0  # assumed: what a shared file system may be late


def pack(pack_dir: Path, workers: int, share: Share = ALL) -> None:
    """Make the pack that a folder's request.json asks for, or find it made.

    With a share of the parts only, the pack is whole once the last of the shares is.

    A finished pack may be asked for word classes later, and is not otherwise touched by that.

    DataError where data is missing, torn, changed since planning, or too much of it unreadable.
    """
    started = time.time()
    request = load_request(pack_dir)
    head = read_json(pack_dir / "pack.json")
    is_packed = head is not None and is_whole(pack_dir, head, request)
    if is_packed and is_classed(pack_dir, head, request):
        check_losses(head, request)
        return
    pieces = [None] * len(head["parts"]) if is_packed else check_pieces(request)
    if request.vocab and not is_packed:
        write_bytes(pack_dir / FILE, Path(request.vocab).read_bytes())
    parts = make_parts(pack_dir, pieces, request, workers, share)
    if parts is None:
        return
    if not is_packed:
        head = make_head(parts, request)
    check_losses(head, request)
    remove_remains(pack_dir, started)  # before the pack says that it is whole: nobody comes again
    if request.tagger:
        mark = {"tagger": request.tagger, "parts": len(parts)}
        write_json(pack_dir / classes_mark(request.tagger), mark)
    if not is_packed:
        write_json(pack_dir / "pack.json", head)


def is_whole(pack_dir: Path, head: Mapping[str, Any], request: Request) -> bool:
    """Whether a pack says it is finished and all its parts are there."""
    there = set(os.listdir(pack_dir))
    parts = range(len(head["parts"]))
    wanted = {part_path(pack_dir, n, what).name for n in parts for what in (*ARRAYS, "json")}
    wanted |= {FILE} if request.vocab else set()
    return head["fingerprint"] == request.fingerprint and wanted <= there


def is_classed(pack_dir: Path, head: Mapping[str, Any], request: Request) -> bool:
    """Whether the word classes asked for, if any, are all there."""
    if not request.tagger:
        return True
    what, parts = classes_of(request.tagger), range(len(head["parts"]))
    wanted = {part_path(pack_dir, number, what).name for number in parts}
    return wanted | {classes_mark(request.tagger)} <= {*os.listdir(pack_dir)}


def check_pieces(request: Request) -> list[Piece]:
    """The pieces of the data, if it is still what was planned and can give what is needed."""
    source = request.source
    if source.kind in ("folder", "objectnet") and request.needs == "captions":
        message = "class folders hold no captions; use shards, or task: classify"
        raise DataError(f"{source.where}: {message}")
    pieces = list_pieces(source)
    labels = {file.label for piece in pieces if isinstance(piece, tuple) for file in piece}
    name_classes(sorted(labels - {""}))  # refused before hours of decoding
    now = fingerprint(source, request.store_px)
    if request.vocab:
        now = name_pack(now, find_vocabulary(request.vocab))
    if now != request.fingerprint:
        raise DataError(
            f"{source.where}: fingerprint={now} is not the planned {request.fingerprint}, the data "
            "changed since; launch again to plan with it as it is"
        )
    return pieces


def make_parts(
    pack_dir: Path, pieces: Sequence[Piece | None], request: Request, workers: int, share: Share
) -> list[Mapping[str, Any]] | None:
    """Every part's json, in order, the missing parts of a share written by a pool of processes.

    None while parts of other shares are missing. Called off early, with some parts missing, only
    where nothing at all is usable.
    """
    found = [read_classed(pack_dir, number, request) for number in range(len(pieces))]
    parts = {number: part for number, part in enumerate(found) if part is not None}
    missing = [number for number, part in enumerate(found) if part is None]
    left = [number for number in missing if number % share[1] == share[0]]
    usable, lost = sum(part["pairs"] for part in parts.values()), 0
    if left:
        with (
            start_pool(min(workers, len(left)), request) as pool,
            show_progress(
                f"packing {Path(request.source.where).name}", len(pieces), len(parts)
            ) as advance,
        ):
            jobs = {
                pool.submit(write_part, pack_dir, number, pieces[number], request): number
                for number in left
            }
            for job in as_completed(jobs):
                parts[jobs[job]] = part = job.result()
                advance(part["pairs"])
                usable += part["pairs"]
                lost += part["unreadable"]["count"]
                if not usable and lost >= HOPELESS:
                    return list(parts.values())
    deadline = time.monotonic() + LATE_SECONDS  # of the last two to end, one must see the other's
    while (
        share != ALL and time.monotonic() < deadline and not all_there(pack_dir, missing, request)
    ):
        time.sleep(1)
    for number in missing:
        found_now = parts.get(number) or read_classed(pack_dir, number, request)
        if found_now is None:
            return None
        parts[number] = found_now
    return [parts[number] for number in sorted(parts)]


def all_there(pack_dir: Path, numbers: list[int], request: Request) -> bool:
    whats = ("json", classes_of(request.tagger)) if request.tagger else ("json",)
    return all(part_path(pack_dir, n, what).exists() for n in numbers for what in whats)


@contextmanager
def start_pool(workers: int, request: Request) -> Iterator[ProcessPoolExecutor]:
    """A pool whose waiting tasks are dropped when its user leaves early.

    Its processes are forked from a server that has nothing but the imports: plain fork would copy
    the progress bar's and the pool's threads in mid-step, spawn would import in each.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["PIL.Image", "clipa_scaling.train.part"])
    draws = request.source.kind == "scenes"
    pool = ProcessPoolExecutor(workers, context, initializer=enter_worker, initargs=(draws,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def enter_worker(draws: bool) -> None:
    """Make a process of the pool end with its parent, quietly, and use one core."""
    if draws:  # PIL has one thread anyway; OpenCV, which paints scenes, one per core
        import cv2

        cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    warnings.filterwarnings("ignore", module="PIL")  # on odd pictures, per picture
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker"
    parent.join()
    os._exit(1)  # a killed parent cannot tell its workers, and they would wait for ever


def make_head(parts: Sequence[Mapping[str, Any]], request: Request) -> Totals:
    """What pack.json says: sums over the parts, their sizes, and the class names."""
    sums = ("pairs", "captions", "real_tokens", "cut_captions")
    names = {name for part in parts for name in part["labels"] or ()}
    return {
        "fingerprint": request.fingerprint,
        "store_px": request.store_px,
        "needs": request.needs,
        **{name: sum(part[name] for part in parts) for name in sums},
        **{name: add_losses([part[name] for part in parts]) for name in LOSSES},
        "class_names": sorted(names),
        "parts": [part["pairs"] for part in parts],
    }


def add_losses(losses: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The parts' losses of one kind as one."""
    first = [entry for loss in losses for entry in loss["first"]]
    return {"count": sum(loss["count"] for loss in losses), "first": first[:LISTED]}


def check_losses(head: Mapping[str, Any], request: Request) -> None:
    """DataError when nothing is usable, or more is lost than the request allows."""
    where, pairs = request.source.where, head["pairs"]
    lost, bare = (head[name]["count"] for name in LOSSES)
    entries = [entry for name in LOSSES for entry in head[name]["first"]]
    first = "; ".join(f"{key}: {reason}" for key, reason in entries[:3])
    if pairs == 0:
        raise DataError(
            f"{where}: not one usable pair among {lost + bare:,} samples "
            f"({first or 'none found'}); name the caption or label field that the data has"
        )
    share = lost / (lost + pairs)
    if share > request.max_unreadable:
        raise DataError(
            f"{where}: {share:.2%} of {lost + pairs:,} pairs are unreadable, above max_unreadable="
            f"{request.max_unreadable:.2%} ({first}); repair them or raise data.max_unreadable"
        )


def remove_remains(pack_dir: Path, before: float) -> None:
    """Remove temporary files that killed packers left; newer ones may be another launcher's."""
    for path in pack_dir.glob(".*.tmp"):
        try:
            if path.stat().st_mtime < before:
                path.unlink()
        except FileNotFoundError:
            continue


def main() -> int:
    """Exit status: 0 packed, 1 a worker died, 2 the data is at fault, 130 stopped; in one line."""
    parser = argparse.ArgumentParser(prog="python -m clipa_scaling.train.pack", description=__doc__)
    parser.add_argument("pack_dirs", type=Path, nargs="+", metavar="PACK_DIR")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument(
        "--workers", type=int, default=cores, help="processes (default: %(default)s)"
    )
    parser.add_argument(
        "--share", type=read_share, default=ALL, metavar="I/N", help="only the I-th of N shares"
    )
    options = parser.parse_args()
    for pack_dir in options.pack_dirs:
        code = report_pack(pack_dir.resolve(), options.workers, options.share)
        if code:
            return code
    return 0


def read_share(text: str) -> Share:
    """`2/8`: the third of eight, counted from 0."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: I/N with I below N, such as 0/8")
    return int(index), int(count)


def report_pack(pack_dir: Path, workers: int, share: Share) -> int:
    """Pack one folder; what went wrong in one line on standard error, and main's exit status."""
    try:
        pack(pack_dir, workers, share)
    except DataError as error:
        request = read_json(pack_dir / "request.json") or {}
        place = request.get("place")
        print(f"{place}: {error}" if place else error, file=sys.stderr)
        return BAD_DATA
    except BrokenProcessPool:
        print(
            f"{pack_dir}: a worker was killed, perhaps for memory; run the same command "
            "again, with fewer --workers",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"{pack_dir}: stopped; the same command goes on from here", file=sys.stderr)
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
