"""Laws of a study: `python -m clipa_scaling.fit results/NAME` fits, prints, saves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from runpy import run_path
from typing import Literal

import pandas as pd
from rich.console import Console

from clipa_scaling.analysis import DRAWS, analyse
from clipa_scaling.compared import SIZES
from clipa_scaling.exclusions import load_study, tell_left_out
from clipa_scaling.fitjson import to_json
from clipa_scaling.fittables import print_analysis
from clipa_scaling.lawform import LawError
from clipa_scaling.laws import LAWS
from clipa_scaling.paperstudy import paper_tables, read_name
from clipa_scaling.points import LOSS, Chosen, choose_points
from clipa_scaling.rundir import write_bytes
from clipa_scaling.schema import TableError
from clipa_scaling.solve import Options, Points

LEAST_STARTS = 64


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.fit",
        description="Fit laws to a study: forms compared, one with intervals, rollouts, choices, "
        "and the checklist of what a reader needs to fit again.",
    )
    parser.add_argument("results", type=Path, nargs="?", help="a folder such as results/NAME")
    parser.add_argument("--published", metavar="TABLE", help="a table of the papers instead, as "
                        "'v1 Table 11: resize'")  # fmt: skip
    parser.add_argument("--law", default="primary", help=f"the one to look at: {', '.join(LAWS)}, "
                        "or one of yours")  # fmt: skip
    parser.add_argument("--register", type=Path, metavar="FILE.py", help="a file of yours that "
                        "registers laws (docs/laws.md)")  # fmt: skip
    parser.add_argument("--measure", help="by default the study's main one; `loss` is a loss")
    parser.add_argument("--set", help="by default the first with the measure")
    parser.add_argument("--stage", help="by default the last finetunes, else pretrain and decay")
    parser.add_argument("--protocol", help="by default common, else the only one")
    parser.add_argument("--size", choices=SIZES, default=SIZES[0], help="what N counts")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE",
                        help="only such runs, as image_reduction=resize; repeatable")  # fmt: skip
    parser.add_argument("--scale", choices=("logit", "raw", "log"), help="of residuals; by default "
                        "logit, of a loss log")  # fmt: skip
    parser.add_argument("--delta", type=read_delta, help="of Huber's function, on the scale; by "
                        "default noise, 1.345 standard deviations; of a loss 1e-3")  # fmt: skip
    parser.add_argument("--worst", type=float, help="E0, the error of guessing: 1 - 1/classes, or "
                        "ln(batch) of a loss; by default 1 (imagenet1k .999)")  # fmt: skip
    parser.add_argument("--starts", type=int, default=Options.starts, help="of each search")
    parser.add_argument("--draws", type=int, default=DRAWS, help="of prediction intervals; 0: none")
    parser.add_argument("--seed", type=int, default=0, help="of starts and draws")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="everything, 17 digits")
    given = parser.parse_args(arguments)
    if given.starts < LEAST_STARTS or given.draws < 0:
        told = f"--starts {given.starts} --draws {given.draws}"
        parser.error(f"{told}: allowed: {LEAST_STARTS} starts or more, and 0 draws or more")
    if given.save is not None and not given.save.resolve().parent.is_dir():
        parser.error(f"--save {given.save}: no such folder; make it first")
    return given


def read_delta(text: str) -> float | Literal["noise"]:
    return "noise" if text == "noise" else float(text)


def read_tables(given: argparse.Namespace) -> dict[str, pd.DataFrame]:
    if (given.results is None) == (given.published is None):
        raise TableError("name one: a folder such as results/NAME, or --published TABLE, not both")
    if given.published is not None:
        return paper_tables(*read_name(given.published))
    return load_study(given.results)


def register_laws(path: Path) -> None:
    """Run a user's file; TableError for what is wrong in it, in a line."""
    if not path.is_file():
        raise TableError(f"--register {path}: no such file")
    try:
        run_path(str(path))
    except (SyntaxError, NameError, TypeError, ImportError, AttributeError) as error:
        raise TableError(f"--register {path}: {type(error).__name__}: {error}") from error


def read_where(given: Sequence[str]) -> dict[str, str]:
    for item in given:
        if "=" not in item:
            raise TableError(f"--where {item}: allowed: COLUMN=VALUE, as image_reduction=resize")
    return {name: value for name, _, value in (item.partition("=") for item in given)}


def choose_all(
    tables: dict[str, pd.DataFrame], given: argparse.Namespace, where: Mapping[str, str]
) -> tuple[Chosen, dict[str, Points], str]:
    """The points asked for; the same under other counts of N and with what was left out; a word."""

    def choose(size: str, left_out: bool = False) -> Chosen:
        return choose_points(
            tables, columns={"N": size}, measure=given.measure, eval_set=given.set,
            stage=given.stage, protocol=given.protocol, where=where, left_out=left_out,
        )  # fmt: skip

    others = {}
    for size in SIZES:
        if size != given.size and tables["runs"][size].notna().any():
            try:
                points = choose(size).points
            except TableError:  # a count of some runs alone; what is wrong with all is told below
                continue
            if "N" in points.x:
                others[f"N = {size}"] = points
    told = tell_left_out(tables["runs"])
    if told:
        others["with the runs left out"] = choose(given.size, left_out=True).points
    return choose(given.size), others, told or "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 where there are no tables, or none that can be fitted."""
    given = read_arguments(arguments)
    try:
        if given.register is not None:
            register_laws(given.register)
        tables = read_tables(given)
        chosen, others, exclusions = choose_all(tables, given, read_where(given.where))
        scale = given.scale or ("log" if chosen.points.columns["y"] == LOSS else "logit")
        options = Options(scale=scale, delta=given.delta, starts=given.starts, seed=given.seed)
        analysis = analyse(
            chosen, law=given.law, options=options, worst=given.worst, draws=given.draws,
            others=others, exclusions=exclusions,
        )  # fmt: skip
    except (FileNotFoundError, TableError, LawError) as error:
        print(error, file=sys.stderr)
        return 1
    print_analysis(Console(), analysis)
    if given.save is not None:
        write_bytes(given.save, to_json(analysis).encode())
        print(f"saved: {given.save}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
