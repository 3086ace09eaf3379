"""The command line: `python -m clipa_scaling.sweep SWEEP.yaml` plans, prices, runs and draws."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape

from clipa_scaling import claim, rundir
from clipa_scaling.launch import local, packs
from clipa_scaling.plan import (
    Plan,
    PlanRow,
    changed_defaults,
    is_saved,
    make_plan,
    over_budget,
    plan_to_json,
    save_plan,
    sweep_folder,
)
from clipa_scaling.schema import TableError
from clipa_scaling.show import count_states, print_plan
from clipa_scaling.spec import spec_to_json
from clipa_scaling.sweepfile import load_sweep
from clipa_scaling.yamlfile import SweepError

OK, FAILED, WRONG, STOPPED = 0, 1, 2, 130
SETTLED_BADLY = ("failed", "diverged")  # would end so again, hence run again only when asked
BAD = (*SETTLED_BADLY, "lost")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.sweep",
        description="Plan, price and run the study that a sweep file describes, then collect its "
        "tables and draw its figures. Safe to run again at any time: finished runs stay, "
        "interrupted ones go on.",
        epilog="Exit codes: 0 done, 1 a run failed, 2 a mistake in the file or its data (one line "
        "says which), 130 stopped.",
    )
    parser.add_argument("sweep", type=Path, help="the sweep file, e.g. sweeps/mini.yaml")
    parser.add_argument("--plan", action="store_true", help="print the plan and price, and stop")
    parser.add_argument("--json", action="store_true", help="with --plan: every cell, as JSON")
    parser.add_argument(
        "--collect", action="store_true", help="only collect tables and draw figures"
    )
    parser.add_argument("--retry", choices=["failed"], help="run failed and diverged runs again")
    parser.add_argument(
        "--accept-changed", action="store_true", help="redo finished runs whose defaults changed"
    )
    parser.add_argument("--jobs", type=int, help="runs at once (default: one per GPU or core)")
    parser.add_argument("--runs", help="runs folder (default: CLIPA_RUNS, else runs/)")
    parser.add_argument("--results", type=Path, help="results folder (default: results/)")
    options = parser.parse_args(arguments)
    if options.json and not options.plan:
        parser.error("--json goes with --plan")
    if options.jobs is not None and options.jobs < 1:
        parser.error(f"--jobs={options.jobs}: allowed: 1 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; every mistake of the user's is one line on stderr and exit code 2."""
    options = parse_arguments(arguments)
    # A SIGTERM while packing or collecting ends like Ctrl-C; the pool has its own handler.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run_command(options)
    except KeyboardInterrupt:
        print("stopped; the same command goes on.", file=sys.stderr)
        return STOPPED
    except (SweepError, TableError, claim.HeldError) as error:
        print(error, file=sys.stderr)
        return WRONG
    except packs.PackError as error:
        print(error, file=sys.stderr)
        return FAILED
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
    sweep = load_sweep(options.sweep, rundir.find_packs(runs))
    plan = make_plan(sweep, runs)
    results = (options.results or rundir.find_project() / "results") / sweep.name
    if options.plan:
        return show_plan(console, plan, options.json)
    if options.collect:
        check_runs_are_here(plan, runs, results)
        return finish(console, plan, runs, results)
    todo = choose(plan, options.retry)
    if not todo:
        if not (is_saved(plan, runs) and (results / "runs.csv").exists()):
            return finish(console, plan, runs, results)
        print_nothing_to_do(console, plan, results)
        return print_ended_badly(console, plan, runs)
    refuse(plan, runs, options.accept_changed)
    return launch(console, plan, runs, results, options, todo)


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


def check_runs_are_here(plan: Plan, runs: Path, results: Path) -> None:
    """Raise SweepError where collecting would empty tables made from another runs folder."""
    here = any((runs / row.planned.id).is_dir() for row in plan.rows)
    if not here and (results / "runs.csv").exists():
        raise SweepError(
            f"{shown(runs)}: holds none of the {len(plan.rows)} runs of {plan.sweep.path}, and "
            f"collecting would empty the tables in {shown(results)}; name their folder with --runs"
        )


def choose(plan: Plan, retry: str | None) -> list[PlanRow]:
    """The runs to launch: what is left, failed runs only when asked for."""
    settled = {"done"} if retry else {"done", *SETTLED_BADLY}
    return [
        row
        for row in plan.rows
        if row.state.name not in settled and row.planned.spec.kind == "pretrain"
    ]


def print_nothing_to_do(console: Console, plan: Plan, results: Path) -> None:
    states = [*(row.state.name for row in plan.rows), *("excluded" for _ in plan.excluded)]
    where = shown(results)
    console.print(
        f"nothing to do: {count_states(states)}. Tables and figures: {escape(where)}",
        soft_wrap=True,
    )
    later = sum(row.planned.spec.kind != "pretrain" for row in plan.left)
    if later:
        console.print(f"{later} runs of later stages are not started: this version pretrains only.")


def refuse(plan: Plan, runs: Path, accept_changed: bool) -> None:
    """Raise SweepError where nothing may be launched: no data, over budget, changed defaults."""
    if plan.sweep.missing:
        raise SweepError(plan.sweep.missing)
    excess = over_budget(plan)
    if excess:
        raise SweepError(excess)
    for row in plan.left:
        if row.planned.spec.kind == "pretrain" and row.planned.spec.gpus > 1:
            raise SweepError(
                f"{plan.sweep.path}: gpus={row.planned.spec.gpus}: a local run uses one device; "
                "allowed: 1"
            )
    changed = None if accept_changed else changed_defaults(plan, runs)
    if changed:
        raise SweepError(changed)


def launch(
    console: Console,
    plan: Plan,
    runs: Path,
    results: Path,
    options: argparse.Namespace,
    todo: list[PlanRow],
) -> int:
    """Pack what is not packed, run what is left, collect; the exit code."""
    folder = runs / ".sweeps" / ".launches"  # no sweep's name begins with a dot
    mine = claim.take(f"runs folder {shown(runs)}", folder, folder, {"sweep": plan.sweep.name})
    try:
        with claim.keep_alive(folder):
            states = work(console, plan, runs, options.jobs, todo)
    finally:
        rundir.write_json(mine / "exit.json", {})
    if states is None:
        return stopped(console)
    code = finish(console, make_plan(plan.sweep, runs), runs, results)
    for identity, state in states.items():
        if state.name == "failed" and state.attempt == 0:  # before it could write so in its folder
            console.print(f"failed {identity}: {state.reason}", markup=False, soft_wrap=True)
            code = FAILED
    if any(state.name in ("planned", "stopped") for state in states.values()):
        return stopped(console)
    return code


def work(
    console: Console, plan: Plan, runs: Path, jobs: int | None, todo: list[PlanRow]
) -> dict[str, rundir.RunState] | None:
    """Pack, then run; the runs' final states, or None when stopped while packing."""
    print_plan(console, plan)
    if not packs.make_packs(plan.sweep.packs, local.count_cores()):
        return None
    check_batches(plan)
    save_plan(plan, runs)
    # The longest first, so that the last slot to end ends early.
    todo = sorted(todo, key=lambda row: row.cost.train_flops, reverse=True)
    for row in todo:
        rundir.make_run(rundir.RunDir(runs / row.planned.id), spec_to_json(row.planned.spec))
    logs = sweep_folder(runs, plan.sweep.name) / "logs"
    planned = [row.planned for row in todo]
    return local.run_pool(runs, planned, local.find_slots(jobs), logs, console)


def check_batches(plan: Plan) -> None:
    """Raise SweepError where a batch would hold a pair twice, now that the pairs are counted."""
    for row in plan.left:
        spec = row.planned.spec
        head = rundir.read_json(Path(spec.pack) / "pack.json")
        if head is not None and spec.batch_size > head["pairs"]:
            raise SweepError(
                f"{plan.sweep.path}: batch_size={spec.batch_size} is more than the "
                f"{head['pairs']:,} pairs of the data; allowed: up to that, so that no batch "
                "holds a pair twice"
            )


def stopped(console: Console) -> int:
    console.print("stopped; the same command goes on.")
    return STOPPED


def finish(console: Console, plan: Plan, runs: Path, results: Path) -> int:
    """Collect the tables, draw the figures, print the outcome; FAILED if a run ended badly."""
    # Slow to import, and a call with nothing to do must stay quick.
    from clipa_scaling import collect, figures, outcome

    changed = changed_defaults(plan, runs)
    tables = collect.collect(plan, runs)
    otherwise = collect.evaluated_otherwise(plan, tables)
    if otherwise:
        console.print(
            f"[yellow]warning:[/] {otherwise} done runs were evaluated on other sets or with other "
            "prompts than the file now asks for; their evaluations stay what they were"
        )
    collect.save_tables(tables, results)
    if changed is None:  # else a later launch could no longer tell what it would redo
        save_plan(plan, runs)
    paths = figures.save_figures(tables, plan.sweep.name, results / "figures")
    outcome.print_outcome(console, tables)
    where = escape(shown(results))
    console.print(f"Tables: {where}/{{runs,evals,curves}}.csv", soft_wrap=True)
    for path in paths:
        console.print(f"Figure: {escape(shown(path))}", soft_wrap=True)
    return print_ended_badly(console, plan, runs)


def print_ended_badly(console: Console, plan: Plan, runs: Path) -> int:
    """A line for every run that failed, diverged or was lost; FAILED if there is one."""
    ended = [row for row in plan.rows if row.state.name in BAD]
    for row in ended:
        reason = escape(f"{row.planned.id}: {row.state.reason}")
        attempt = rundir.RunDir(runs / row.planned.id).last_attempt()
        where = escape(f" (log: {shown(attempt / 'log')})") if attempt else ""
        console.print(f"[red]{row.state.name}[/] {reason}{where}", soft_wrap=True)
    if any(row.state.name in SETTLED_BADLY for row in ended):
        console.print("To run failed runs again: --retry failed")
    return FAILED if ended else OK


def shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(main())
