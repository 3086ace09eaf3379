"""Advice: `python -m clipa_scaling.advise sweep SWEEP.yaml` says what a plan will answer;
`python -m clipa_scaling.advise budget results/NAME` what to train for a budget."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from clipa_scaling.advicetable import print_outlook
from clipa_scaling.assumed import ACCURACY, SEED_SD
from clipa_scaling.compared import LENGTHS
from clipa_scaling.foresee import WORLDS
from clipa_scaling.lawform import LawError
from clipa_scaling.outlook import Assumptions, look_ahead, to_json
from clipa_scaling.planned import read_study
from clipa_scaling.rundir import find_runs
from clipa_scaling.schema import TableError
from clipa_scaling.slopes import PATHS
from clipa_scaling.worlds import EXPONENT, PER_SIZE
from clipa_scaling.yamlfile import SweepError

OK, WRONG = 0, 2


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.advise",
        description="What to plan, and what to train.",
        epilog="Exit codes: 0; 2 a mistake in what was given (one line says which).",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="sweep|budget")
    add_sweep(kinds.add_parser("sweep", help="what a planned sweep will answer, before it runs"))
    return parser


def add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", type=Path, help="the sweep file, e.g. sweeps/law.yaml")
    parser.add_argument("--results", type=Path, help="tables of its runs that have finished, "
                        "results/NAME: they replace what is assumed")  # fmt: skip
    parser.add_argument("--length", choices=LENGTHS, help="by default what the sweep varies most")
    parser.add_argument("--path", choices=PATHS, default=PATHS[0], help="changes are weighed on it")
    parser.add_argument("--strength", type=float, default=PER_SIZE, help="of the inverse law "
                        "assumed: -d log m / d log N is that times log(T_full / T); "
                        f"default {PER_SIZE}")  # fmt: skip
    parser.add_argument("--exponent", type=float, default=EXPONENT, help="of m = (T_full / T)^e at "
                        f"the middle size; default {EXPONENT}")  # fmt: skip
    parser.add_argument("--accuracy", type=float, default=ACCURACY, help="of the middle size at "
                        f"the middle samples and full length; default {ACCURACY}")  # fmt: skip
    parser.add_argument("--seed-sd", type=float, default=SEED_SD, help="of an accuracy over seeds, "
                        f"a fraction of 1; default {SEED_SD}")  # fmt: skip
    parser.add_argument("--worlds", type=int, default=WORLDS, help="studies made up for each truth;"
                        f" 0: the closed form alone, in a second; default {WORLDS}")  # fmt: skip
    parser.add_argument("--runs", help="runs folder, for measured speeds (default: CLIPA_RUNS)")
    parser.add_argument("--json", action="store_true", help="all of it as data")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser()
    given = parser.parse_args(arguments)
    if given.kind == "sweep":
        limits = {"accuracy": (0, 1), "seed_sd": (0, 0.5)}
        for name, (low, high) in limits.items():
            value = getattr(given, name)
            if not low < value < high:
                option = f"--{name.replace('_', '-')}"
                parser.error(f"{option}={value:g}: allowed: between {low} and {high}")
        if given.worlds < 0:
            parser.error(f"--worlds={given.worlds}: allowed: 0 or more")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 2 with one line on stderr for a mistake in what was given."""
    given = parse_arguments(arguments)
    try:
        return advise_sweep(given)
    except (SweepError, TableError, LawError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return WRONG
    except BrokenPipeError:  # `| head` closed the pipe: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def advise_sweep(given: argparse.Namespace) -> int:
    study = read_study(given.sweep, find_runs(given.runs), given.length, given.results)
    assumptions = Assumptions(
        given.accuracy, given.exponent, given.strength, given.seed_sd, given.path, given.worlds
    )
    outlook = look_ahead(study, assumptions)
    if given.json:
        print(json.dumps(to_json(outlook), indent=1, allow_nan=False))
    else:
        print_outlook(make_console(), outlook)
    return OK


def make_console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 100, soft_wrap=False)


if __name__ == "__main__":
    sys.exit(main())
