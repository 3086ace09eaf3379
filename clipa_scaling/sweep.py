"""The command line: `python -m clipa_scaling.sweep SWEEP.yaml` plans, prices, runs and draws."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.markup import escape

from clipa_scaling import claim, rundir
from clipa_scaling.finish import (
    FAILED,
    OK,
    STOPPED,
    WRONG,
    check_exclusions,
    check_runs_are_here,
    finish,
)
from clipa_scaling.plan import Plan, make_plan, over_budget, plan_to_json
from clipa_scaling.schema import TableError
from clipa_scaling.show import print_plan
from clipa_scaling.sweepfile import Sweep, load_sweep
from clipa_scaling.yamlfile import SweepError

if TYPE_CHECKING:
    from clipa_scaling import start

EPILOG = """\
Exit codes: 0 done or submitted, 1 a run failed, 2 a mistake in the file or its data (one line says
which), 130 stopped."""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.sweep",
        description="Plan, price and run the study that a sweep file describes, then collect its "
        "tables and draw its figures. Safe to run again at any time: finished runs stay, "
        "interrupted ones go on.",
        epilog=EPILOG,
    )
    parser.add_argument("sweep", type=Path, help="the sweep file, e.g. sweeps/mini.yaml")
    actions = parser.add_argument_group("instead of launching").add_mutually_exclusive_group()
    actions.add_argument("--plan", action="store_true", help="print the plan and price, and stop")
    actions.add_argument("--status", action="store_true", help="how every run stands")
    actions.add_argument("--logs", metavar="RUN", help="the end of a run's log")
    actions.add_argument("--cancel", action="store_true", help="end the sweep's jobs")
    actions.add_argument(
        "--collect", action="store_true", help="only collect tables and draw figures"
    )
    actions.add_argument(
        "--calibrate", action="store_true", help="measure how fast its runs train, and price by it"
    )
    parser.add_argument(
        "--minutes", type=float, help="with --calibrate: of steps at most, per speed (default: 1)"
    )
    parser.add_argument(
        "--evaluate",
        metavar="NEW.yaml",
        nargs="?",
        const="",
        help="evaluate finished runs on what they lack of the file's sets, or of those of another "
        "file that has `evals` and `evaluate`; trains nothing; with --plan: say what and the price",
    )
    parser.add_argument("--json", action="store_true", help="with --plan or --status: all of it")
    parser.add_argument("--watch", action="store_true", help="with --status: again and again")
    parser.add_argument(
        "--cluster",
        choices=["auto", "slurm", "local", "inline"],
        default="auto",
        help="where to run: slurm where there is one and this is no job of it; else local, a pool "
        "of processes here; inline: one after another in this process",
    )
    parser.add_argument(
        "--follow", action="store_true", help="on Slurm: stay, and submit what becomes due"
    )
    parser.add_argument(
        "--only",
        metavar="RUN|FIELD=VALUE",
        action="append",
        default=[],
        help="only runs whose id fits the pattern, or whose field has the value; may be repeated",
    )
    parser.add_argument("--retry", choices=["failed"], help="run failed and diverged runs again")
    parser.add_argument(
        "--accept-changed", action="store_true", help="redo finished runs whose defaults changed"
    )
    parser.add_argument("--max-parallel", type=int, help="slurm.max_parallel, also while at work")
    parser.add_argument("--jobs", type=int, help="runs at once here (default: one per GPU or core)")
    parser.add_argument("--runs", help="runs folder (default: CLIPA_RUNS, else runs/)")
    parser.add_argument("--results", type=Path, help="results folder (default: results/)")
    return parser


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.json and not (options.plan or options.status):
        parser.error("--json goes with --plan or --status")
    if options.watch and not options.status:
        parser.error("--watch goes with --status")
    if options.watch and options.json:
        parser.error("--watch draws a table; leave --json out")
    if options.minutes is not None and not options.calibrate:
        parser.error("--minutes goes with --calibrate")
    if options.minutes is not None and not 0 < options.minutes <= 60:
        parser.error(f"--minutes={options.minutes:g}: allowed: above 0, at most 60")
    if options.evaluate is not None and (
        options.status or options.logs or options.cancel or options.collect or options.calibrate
    ):
        parser.error("--evaluate goes with --plan, or alone; the others know its runs without it")
    for name in ("jobs", "max_parallel"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')}={value}: allowed: 1 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; every mistake of the user's is one line on stderr and exit code 2."""
    options = parse_arguments(arguments)
    # A SIGTERM while packing or collecting ends like Ctrl-C; the pool has its own handler.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run_command(options)
    except KeyboardInterrupt:
        if not (options.status or options.logs):
            print("stopped; the same command goes on.", file=sys.stderr)
        return STOPPED
    except (SweepError, TableError, claim.HeldError) as error:
        print(error, file=sys.stderr)
        return WRONG
    except BrokenPipeError:  # `| head` closed the pipe: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:  # a folder that cannot be made or written
        if error.filename is None:
            raise
        print(f"{error.filename}: {error.strerror}; give another folder", file=sys.stderr)
        return WRONG


def run_command(options: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 130, soft_wrap=False)
    runs = rundir.find_runs(options.runs)
    sweep = load_sweep(options.sweep, rundir.find_packs(runs), options.max_parallel)
    results = (options.results or rundir.find_project() / "results") / sweep.name
    if options.plan and options.evaluate is None:
        return show_plan(console, make_plan(sweep, runs), options.json)
    if options.collect:
        plan = make_plan(sweep, runs)
        check_runs_are_here(plan, runs, results)
        return finish(console, plan, runs, results)
    if options.status or options.logs or options.cancel:
        return look_at(console, sweep, runs, options)
    if options.calibrate:
        return calibrate_in(console, sweep, runs, options)
    return launch(console, sweep, runs, results, options)


def calibrate_in(console: Console, sweep: Sweep, runs: Path, options: argparse.Namespace) -> int:
    """--calibrate."""
    from clipa_scaling.calibrate import Asked, calibrate

    is_on_slurm = choose_cluster(options.cluster) == "slurm"
    asked = Asked(options.minutes or 1.0, options.only, is_on_slurm, options.jobs)
    return calibrate(console, sweep, runs, asked)


def look_at(console: Console, sweep: Sweep, runs: Path, options: argparse.Namespace) -> int:
    """--status, --logs or --cancel."""
    from clipa_scaling import look
    from clipa_scaling.launch.choose import matches
    from clipa_scaling.measured import with_children

    sweep = with_children(sweep, runs)

    if options.logs:
        return look.print_logs(console, sweep, runs, options.logs)
    if options.cancel:
        chosen = {run.id for run in sweep.grid.runs if options.only and matches(run, options.only)}

        def wanted(run: str) -> bool:  # also a run that the file no longer has
            named = any(fnmatchcase(run, pattern) for pattern in options.only)
            return not options.only or run in chosen or named

        return look.cancel(console, sweep, runs, wanted, packing=not options.only)
    return look.print_status(
        console, sweep, runs, lambda run: matches(run, options.only),
        as_json=options.json, watch=options.watch,
    )  # fmt: skip


def launch(
    console: Console, sweep: Sweep, runs: Path, results: Path, options: argparse.Namespace
) -> int:
    """Start what is left where it is to run."""
    from clipa_scaling import start
    from clipa_scaling.launch import choose, packs

    call = start.Launch(
        console=console,
        runs=runs,
        results=results,
        wants=lambda run: choose.matches(run, options.only),
        retry=options.retry is not None,
        accept_changed=options.accept_changed,
        jobs=options.jobs,
        follow=options.follow,
    )
    plan = make_plan(sweep, runs)
    warnings = check_exclusions(plan, results)
    for warning in warnings if options.evaluate is None else ():  # whose --json is all that it says
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    if options.only and not any(call.wants(row.planned) for row in plan.rows):
        raise SweepError(f"{sweep.path}: --only {' '.join(options.only)} fits none of its runs")
    try:
        if options.evaluate is not None:
            return evaluate(call, plan, options)
        return begin(call, plan, options.cluster)
    except packs.PackError as error:
        print(error, file=sys.stderr)
        return FAILED


def choose_cluster(asked: str) -> str:
    """Where to run: as asked, else on Slurm where there is one and this is no job of it."""
    from clipa_scaling.launch import commands

    if asked != "auto":
        return asked
    inside = "SLURM_JOB_ID" in os.environ
    return "slurm" if not inside and commands.has_slurm() else "local"


def begin(call: start.Launch, plan: Plan, cluster: str) -> int:
    """Start what is left of a plan where it is to run."""
    from clipa_scaling import start

    where = choose_cluster(cluster)
    if where == "slurm":
        return start.start_slurm(call, plan)
    return start.start_local(call, plan, inline=where == "inline")


def evaluate(call: start.Launch, plan: Plan, options: argparse.Namespace) -> int:
    """Evaluate finished runs on what they lack, or with --plan only say so."""
    from clipa_scaling import evaluating

    file = Path(options.evaluate) if options.evaluate else None
    found = evaluating.plan_missing(plan, call.runs, file, call.wants)
    if options.plan and options.json:
        return show_plan(call.console, found.plan, as_json=True)
    if options.plan and found.plan.rows:
        evaluating.print_missing(call.console, found)
        return OK
    where = options.cluster
    return evaluating.evaluate(call, plan, found, lambda call, plan: begin(call, plan, where))


def show_plan(console: Console, plan: Plan, as_json: bool) -> int:
    if as_json:
        encoded = msgspec.json.encode(plan_to_json(plan))  # ten times json's speed on 10,000 cells
        print(msgspec.json.format(encoded, indent=1).decode())
        return OK
    print_plan(console, plan)
    excess = over_budget(plan)
    if excess:
        console.print(f"[yellow]over budget:[/] {escape(excess)}")
    return OK


if __name__ == "__main__":
    sys.exit(main())
