"""Advice: `python -m clipa_scaling.advise sweep SWEEP.yaml` says what a plan will answer;
`python -m clipa_scaling.advise budget results/NAME` what to train for a budget."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from clipa_scaling import recipetable
from clipa_scaling.advicetable import print_outlook
from clipa_scaling.analysis import WORST
from clipa_scaling.assumed import ACCURACY, SEED_SD
from clipa_scaling.changes import FAMILIES
from clipa_scaling.compared import LENGTHS, SIZES, find_starts
from clipa_scaling.exclusions import load_study
from clipa_scaling.fit import read_where
from clipa_scaling.foresee import WORLDS
from clipa_scaling.lawform import LawError
from clipa_scaling.models import load_model
from clipa_scaling.outlook import Assumptions, look_ahead, to_json
from clipa_scaling.planned import read_study
from clipa_scaling.points import Chosen, choose_points
from clipa_scaling.pricing import Budget, read_pricing
from clipa_scaling.recipe import DRAWS, check_roles, choose_law, find_recipe
from clipa_scaling.rundir import find_runs
from clipa_scaling.schema import TableError
from clipa_scaling.slopes import PATHS
from clipa_scaling.solve import Fit
from clipa_scaling.split import find_split
from clipa_scaling.tournament import Tournament
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
    add_budget(kinds.add_parser("budget", help="what to train for a budget, by a study's law"))
    return parser


def add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, help="a study's tables, such as results/NAME")
    budget = parser.add_argument_group("the budget, one of").add_mutually_exclusive_group(
        required=True
    )
    budget.add_argument("--dollars", type=float)
    budget.add_argument("--gpu-hours", type=float)
    budget.add_argument("--flops", type=float)
    parser.add_argument("--dollars-per-gpu-hour", type=float, help="with --dollars")
    parser.add_argument("--device", help="of cost.py, e.g. h100-80gb; by default the study's kind")
    parser.add_argument("--utilisation", type=float, help="share of its peak; by default that of "
                        "measured runs, else the device's assumption")  # fmt: skip
    parser.add_argument("--law", help="a form, by default the one that predicts held-out runs best")
    parser.add_argument("--fit", type=Path, metavar="FIT.json", help="a law that clipa_scaling.fit "
                        "saved, in place of fitting")  # fmt: skip
    parser.add_argument("--models", help="B/16,L/16 or `all` of the family; by default the study's")
    parser.add_argument("--measure", help="by default the study's main one")
    parser.add_argument("--set", help="by default the first with the measure")
    parser.add_argument("--stage", help="by default the last finetunes, else pretrain and decay")
    parser.add_argument("--size", choices=SIZES, default=SIZES[0], help="what N counts")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE",
                        help="only such runs, as image_reduction=resize; repeatable")  # fmt: skip
    parser.add_argument(
        "--worst", type=float, help="E0, the error of guessing; see clipa_scaling.fit"
    )
    parser.add_argument("--draws", type=int, default=DRAWS, help="of the band")
    parser.add_argument("--json", action="store_true", help="all of it as data")


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
    if (given.dollars is None) != (given.dollars_per_gpu_hour is None):
        parser.error("--dollars goes with --dollars-per-gpu-hour")
    for name in ("dollars", "gpu_hours", "flops", "dollars_per_gpu_hour"):
        value = getattr(given, name)
        if value is not None and not 0 < value < math.inf:
            parser.error(f"--{name.replace('_', '-')}={value:g}: allowed: above 0")
    if given.draws < 20:
        parser.error(f"--draws={given.draws}: allowed: 20 or more")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 2 with one line on stderr for a mistake in what was given."""
    given = parse_arguments(arguments)
    try:
        return advise_sweep(given) if given.kind == "sweep" else advise_budget(given)
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


def advise_budget(given: argparse.Namespace) -> int:
    tables = load_study(given.results)
    chosen = choose_points(
        tables, columns={"N": given.size}, measure=given.measure, eval_set=given.set,
        stage=given.stage, where=read_where(given.where),
    )  # fmt: skip
    worst = WORST.get(chosen.facts.get("set", "")) if given.worst is None else given.worst
    found: tuple[Fit, str, Tournament | None]
    if given.fit is not None:
        found = check_roles(read_fit(given.fit)), f"read from {given.fit}", None
    else:
        found = choose_law(chosen, given.law, worst)
    if given.flops is not None:
        budget = Budget(given.flops, "FLOPs")
    else:
        price = given.dollars_per_gpu_hour
        amount = given.gpu_hours if price is None else given.dollars / price
        budget = Budget(amount, "GPU-hours", math.nan if price is None else price)
    runs = tables["runs"][tables["runs"]["run"].isin(sources(tables, chosen))]
    recipe = find_recipe(
        chosen,
        read_pricing(runs, budget.unit, given.device, given.utilisation),
        budget,
        find_split(tables, given.measure),
        found,
        models=choose_models(given.models, list(dict.fromkeys(map(str, chosen.models)))),
        text_tokens=int(runs["text_tokens"].mode().iloc[0]),
        batch_size=int(runs["batch_size"].mode().iloc[0]),
        draws=given.draws,
    )
    if given.json:
        print(json.dumps(recipetable.to_json(recipe), indent=1, allow_nan=False))
    else:
        recipetable.print_recipe(make_console(), recipe)
    return OK


def sources(tables: dict[str, pd.DataFrame], chosen: Chosen) -> set[str]:
    """The runs from scratch behind the points: a finetune's own settings price no pretraining."""
    assert chosen.points.run is not None
    return {start for start, _ in find_starts(tables["runs"], pd.Series(chosen.points.run))}


def read_fit(path: Path) -> Fit:
    """A law that `fit --save` wrote, or `Fit.to_json`."""
    if not path.is_file():
        raise TableError(f"{path}: no such file; give what fit --save wrote")
    try:
        held = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise TableError(f"{path}: is no JSON ({error.msg}); give what fit --save wrote") from None
    law = held.get("fit", held)
    if not isinstance(law, dict) or "theta" not in law:
        raise TableError(f"{path}: holds no fitted law; give what fit --save wrote")
    return Fit.from_json(json.dumps(law))


def choose_models(asked: str | None, own: list[str]) -> list[str]:
    """Names as `load_model` reads them; `all`: the family of the study's, at its patch."""
    if asked is None:
        return own
    if asked == "all":
        size, _, patch = own[0].partition("/")
        family = next((each for each in FAMILIES if size in each), (size,))
        return [f"{name}/{patch}" for name in family]
    names = [name.strip() for name in asked.split(",")]
    for name in names:
        try:
            load_model(name)
        except ValueError as error:
            raise TableError(f"--models: {error}") from None
    return names


def make_console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 100, soft_wrap=False)


if __name__ == "__main__":
    sys.exit(main())
