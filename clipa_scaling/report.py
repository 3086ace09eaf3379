"""A study as one self-contained HTML page: plan, tables, figures, laws, verdict, checklist.

python -m clipa_scaling.report results/NAME [--out FILE.html] [--no-laws]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from xml.etree.ElementTree import Element

from clipa_scaling import findings, sections
from clipa_scaling.analysis import Analysis
from clipa_scaling.exclusions import load_study
from clipa_scaling.inverse import judge_study
from clipa_scaling.page import Section, paragraph, render
from clipa_scaling.papersections import paper_sections
from clipa_scaling.published import FOLDER
from clipa_scaling.rundir import write_bytes
from clipa_scaling.schema import TableError
from clipa_scaling.sections import Tables
from clipa_scaling.verdict import Verdict, say


class Study:
    """A study's tables and what is found out about them, once and when it is asked for."""

    def __init__(self, tables: Tables, name: str) -> None:
        self.tables, self.name = tables, name

    @cached_property
    def analysis(self) -> Analysis:
        return findings.analyse_study(self.tables)

    @cached_property
    def verdicts(self) -> list[Verdict]:
        return judge_study(self.tables)


SECTIONS: Mapping[str, Callable[[Study], list[Element]]] = {
    "Plan": lambda study: sections.show_plan(study.tables),
    "Runs": lambda study: sections.show_runs(study.tables),
    "Warnings": lambda study: sections.show_warnings(study.tables),
    "Cells": lambda study: sections.show_cells(study.tables),
    "Pipelines": lambda study: sections.show_pipelines(study.tables),
    "Tuned": lambda study: sections.show_tuned(study.tables),
    "Figures": lambda study: sections.show_figures(study.tables, study.name),
    "Laws": lambda study: findings.show_laws(study.analysis),
    "Verdict": lambda study: findings.show_verdicts(study.verdicts),
    "Checklist": lambda study: findings.show_checklist(study.analysis),
    "Provenance": lambda study: findings.show_provenance(study.tables, study.name),
}
OF_TABLES = ("Pipelines", "Tuned")  # which not every study has
OF_LAWS = ("Laws", "Checklist")


def make_report(tables: Tables, name: str, *, laws: bool = True) -> bytes:
    """The page of a study's tables; the same tables and versions give the same bytes.

    laws: fit them, which takes longer than all the rest.
    """
    study = Study(tables, name)
    absent = {title for title in OF_TABLES if title.lower() not in tables}
    absent |= set() if laws else set(OF_LAWS)
    made = [make_section(title, study) for title in SECTIONS if title not in absent]
    return render(f"{name}: a study of CLIP scaling", summarise(study), made)


def make_paper_report(folder: Path) -> bytes:
    """The page of results/published."""
    summary = (
        "What CLIPA (arXiv:2305.07017) and CLIPA-v2 (arXiv:2306.15658) print, and what follows."
    )
    return render("Published results", [summary], paper_sections(folder))


def make_section(title: str, study: Study) -> Section:
    """A section, or the reason why the tables do not allow it."""
    try:
        return Section(title.lower(), title, SECTIONS[title](study))
    except ValueError as error:
        told = paragraph(f"Not shown: {error}", class_="warning")
        return Section(title.lower(), title, [told])


def summarise(study: Study) -> list[str]:
    """What was run, and the sentence of each verdict."""
    told = [sections.summarise(study.tables)]
    try:
        return told + [say(verdict) for verdict in study.verdicts]
    except ValueError:  # which the section on the verdict tells
        return told


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 where there are no tables."""
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.report", description="Write a study as one HTML page."
    )
    parser.add_argument("results", type=Path, help="a folder of tables, such as results/NAME")
    parser.add_argument("--out", type=Path, help="by default report.html in that folder")
    parser.add_argument("--no-laws", action="store_true", help="leave out the fits: seconds")
    given = parser.parse_args(arguments)
    folder = given.results.resolve()
    try:
        if folder == FOLDER:
            page = make_paper_report(folder)
        else:
            page = make_report(load_study(folder), folder.name, laws=not given.no_laws)
    except (FileNotFoundError, TableError) as error:
        print(error, file=sys.stderr)
        return 1
    out = given.out or given.results / "report.html"
    write_bytes(out, page)
    print(f"{out}: {len(page) / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
