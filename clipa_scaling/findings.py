"""Tables -> the sections of a report on what follows from the runs: laws, verdict, provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from xml.etree.ElementTree import Element

import pandas as pd

from clipa_scaling.analysis import Analysis, analyse
from clipa_scaling.analysis import say as say_fit
from clipa_scaling.bundle import read_versions
from clipa_scaling.figures.verdict import save_verdict
from clipa_scaling.fit import choose_all, read_arguments
from clipa_scaling.fittables import (
    group_reasons,
    parameter_table,
    rollout_table,
    sensitivity_table,
    tournament_table,
)
from clipa_scaling.page import bullets, paragraph, table, tag, terminal_table
from clipa_scaling.sections import Tables, draw_figures
from clipa_scaling.verdict import Verdict, say
from clipa_scaling.verdicttable import list_tables, tell_conditions

# Verdict


def show_verdicts(verdicts: Sequence[Verdict]) -> list[Element]:
    """Each verdict with all that it rests on, and its figures."""
    if not verdicts:
        return [
            paragraph(
                "No verdict: it needs runs of two sizes, lengths and sample counts at least, and "
                "three of each for an answer."
            )
        ]
    parts = []
    for number, verdict in enumerate(verdicts, 1):
        suffix = f"_{number}" if len(verdicts) > 1 else ""
        parts += show_verdict(verdict)
        parts += draw_figures(partial(save_verdict, verdict, suffix=suffix))
    return parts


def show_verdict(verdict: Verdict) -> list[Element]:
    compared = verdict.compared
    told = "".join(f", {name}={value}" for name, value in compared.settings.items())
    question = f"Does a larger model need fewer {compared.length.replace('_', ' ')}?"
    where = f"{compared.measure} on {compared.eval_set}, stage {compared.stage}{told}"
    robust = ", robust" if verdict.robust else ""
    return [
        tag("h3", f"{question} {verdict.answer.capitalize()}{robust}."),
        paragraph(where, class_="note"),
        paragraph(say(verdict), class_="quote"),
        table(list_answers(verdict), "Answers per path, with the slope d log m / d log N"),
        bullets(tell_conditions(verdict)),
        *map(terminal_table, list_tables(verdict)),
    ]


def list_answers(verdict: Verdict) -> pd.DataFrame:
    rows = []
    exponents = verdict.nu.drop_duplicates("path").set_index("path")["answer"]
    for item in verdict.answers:
        known = not math.isnan(item.low)
        rows.append(
            {
                "path": item.path,
                "answer": item.answer,
                "by the tolerated length": exponents.get(item.path),
                "slope": f"{item.slope:.3f} [{item.low:.3f}, {item.high:.3f}]" if known else None,
                "scales agree": item.agrees if known else None,
                "lacks": "; ".join(f"{lack.key}: {lack.because}" for lack in item.missing),
            }
        )
    return pd.DataFrame(rows)


# Laws


def analyse_study(tables: Tables) -> Analysis:
    """All forms fitted, as `python -m clipa_scaling.fit` does, but for prediction intervals."""
    chosen, others, exclusions = choose_all(tables, read_arguments([]), {})
    return analyse(chosen, others=others, exclusions=exclusions, draws=0)


def show_laws(analysis: Analysis) -> list[Element]:
    """The sentence, forms compared, one law with intervals, what was held out, other choices."""
    parts = [paragraph(say_fit(analysis), class_="quote")]
    if analysis.why and analysis.fit is not None:
        instead = f"{analysis.asked} cannot be fitted: {analysis.why}; shown is the form "
        parts.append(paragraph(instead + analysis.fit.law.name + ".", class_="warning"))
    parts += [paragraph(line, class_="warning") for line in analysis.tournament.warnings]
    parts.append(terminal_table(tournament_table(analysis)))
    refused = group_reasons(analysis.tournament.reasons)
    if refused:
        told = [f"{', '.join(names)}: {reason}" for reason, names in refused]
        parts += [paragraph("Forms that do not apply here:"), bullets(told)]
    if analysis.fit is not None:
        parts += [
            terminal_table(make(analysis))
            for make in (parameter_table, rollout_table, sensitivity_table)
        ]
    return parts


def show_checklist(analysis: Analysis) -> list[Element]:
    """What a reader needs to fit again, a table per group of (Mis)Fitting's questions."""
    if not analysis.checklist:
        return [paragraph("No law was fitted, so that there is nothing to fit again.")]
    parts = [paragraph("What a reader needs to fit again, as arXiv:2502.18969 asks for it.")]
    groups = dict.fromkeys(item.group for item in analysis.checklist)
    return parts + [
        table(
            pd.DataFrame(
                [
                    (item.question, item.answer)
                    for item in analysis.checklist
                    if item.group == group
                ],
                columns=["question", "answer"],
            ),
            group,
        )
        for group in groups
    ]


# Provenance


def show_provenance(tables: Tables, name: str) -> list[Element]:
    """What the page was made of: digests of the tables, versions and revision; what ran them."""
    runs = tables["runs"]
    files = {f"{name}/{key}.csv": to_csv(rows) for key, rows in tables.items()}
    counts = [
        {"what": field, "which": str(value), "runs": count}
        for field in ("revision", "device", "host_cpu", "data_fingerprint")
        for value, count in runs[field].value_counts(sort=False).items()
    ]
    return [
        show_digests(files),
        table(pd.DataFrame(counts, columns=["what", "which", "runs"]), "What the runs ran on"),
        show_versions(),
    ]


def to_csv(rows: pd.DataFrame) -> bytes:
    """As collect.save_tables writes it, so that sha256sum of the file gives the digest."""
    return rows.to_csv(index=False, lineterminator="\n").encode()


def show_digests(files: Mapping[str, bytes]) -> Element:
    rows = [
        {"file": name, "lines": content.count(b"\n"), "SHA-256": sha256(content).hexdigest()}
        for name, content in files.items()
    ]
    return table(pd.DataFrame(rows), "Tables this page was made from")


def show_versions() -> Element:
    versions = pd.DataFrame(read_versions().items(), columns=["package", "version"])
    return table(versions, "What made this page")
