"""A study as one self-contained HTML page: plan, tables, figures, verdict, provenance.

python -m clipa_scaling.report results/NAME [--out FILE.html]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from clipa_scaling import findings, sections
from clipa_scaling.collect import load_tables
from clipa_scaling.page import Section, paragraph, render
from clipa_scaling.rundir import write_bytes
from clipa_scaling.schema import TableError
from clipa_scaling.sections import Tables
from clipa_scaling.verdict import Verdict, say


def make_report(tables: Tables, name: str) -> bytes:
    """The page of a study's tables; the same tables and versions give the same bytes."""
    verdicts: list[Verdict] = []

    def judge() -> list[Element]:
        verdicts.extend(findings.find_verdicts(tables))
        return findings.show_verdicts(verdicts)

    drawn: list[tuple[str, str, Callable[[], list[Element]]]] = [
        ("plan", "Plan", lambda: sections.show_plan(tables)),
        ("runs", "Runs", lambda: sections.show_runs(tables)),
        ("warnings", "Warnings", lambda: sections.show_warnings(tables)),
        ("cells", "Cells", lambda: sections.show_cells(tables)),
        ("pipelines", "Pipelines", lambda: sections.show_pipelines(tables)),
        ("tuned", "Tuned values", lambda: sections.show_tuned(tables)),
        ("figures", "Figures", lambda: sections.show_figures(tables, name)),
        ("verdict", "Verdict", judge),
        ("provenance", "Provenance", lambda: findings.show_provenance(tables, name)),
    ]
    parts = [
        make_section(key, title, show)
        for key, title, show in drawn
        if key in tables or key not in ("pipelines", "tuned")
    ]
    summary = [sections.summarise(tables), *map(say, verdicts)]
    return render(f"{name}: a study of CLIP scaling", summary, parts)


def make_section(key: str, title: str, show: Callable[[], list[Element]]) -> Section:
    """A section, or the reason why the tables do not allow it."""
    try:
        return Section(key, title, show())
    except ValueError as error:
        return Section(key, title, [paragraph(f"Not shown: {error}", class_="warning")])


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 where there are no tables."""
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.report", description="Write a study as one HTML page."
    )
    parser.add_argument("results", type=Path, help="a folder of tables, such as results/NAME")
    parser.add_argument("--out", type=Path, help="by default report.html in that folder")
    given = parser.parse_args(arguments)
    name = given.results.resolve().name
    try:
        page = make_report(load_tables(given.results), name)
    except (FileNotFoundError, TableError) as error:
        print(error, file=sys.stderr)
        return 1
    out = given.out or given.results / "report.html"
    write_bytes(out, page)
    print(f"{out}: {len(page) / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
