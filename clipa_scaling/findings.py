"""Tables -> the sections of a report on what follows from the runs: laws, verdict, provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from xml.etree.ElementTree import Element

import pandas as pd

from clipa_scaling.bundle import read_versions
from clipa_scaling.compared import find_compared
from clipa_scaling.inverse import judge
from clipa_scaling.page import bullets, paragraph, table, tag
from clipa_scaling.show import si
from clipa_scaling.verdict import MISFIT, Verdict, say, say_value

Tables = dict[str, pd.DataFrame]

SEVERAL = ("model", "length", "samples")  # of each two at least, or there is nothing to judge


def find_verdicts(tables: Tables) -> list[Verdict]:
    """One for each comparison that a study holds, without those of one size, length or count."""
    return [
        judge(compared)
        for compared in find_compared(tables)
        if all(compared.runs[name].nunique() > 1 for name in SEVERAL)
    ]


# Verdict


def show_verdicts(verdicts: Sequence[Verdict]) -> list[Element]:
    """Each verdict with all that it rests on."""
    if not verdicts:
        return [
            paragraph(
                "No verdict: it needs runs of two sizes, lengths and sample counts at least, and "
                "three of each for an answer."
            )
        ]
    return [part for verdict in verdicts for part in show_verdict(verdict)]


def show_verdict(verdict: Verdict) -> list[Element]:
    compared = verdict.compared
    told = "".join(f", {name}={value}" for name, value in compared.settings.items())
    question = f"Does a larger model need fewer {compared.length.replace('_', ' ')}?"
    where = f"{compared.measure} on {compared.eval_set}, stage {compared.stage}{told}"
    robust = ", robust" if verdict.robust else ""
    parts = [
        tag("h3", f"{question} {verdict.answer.capitalize()}{robust}."),
        paragraph(where, class_="note"),
        paragraph(say(verdict), class_="quote"),
        table(list_answers(verdict), "Answers per path: slope d log m / d log N"),
    ]
    if verdict.missing:
        lacks = [f"{item.key}: {item.because}" for item in verdict.missing]
        parts += [paragraph("What the design lacks:"), bullets(lacks)]
    if len(verdict.multipliers):
        parts.append(table(list_multipliers(verdict), "m, times the samples, with 95 % intervals"))
    if verdict.slopes["low"].notna().any():
        parts.append(table(list_slopes(verdict), "d log m / d log N, per scale and length"))
    parts.append(paragraph(verdict.noise, class_="note"))
    if not all("lr" in names.split(" | ") for names in compared.runs["tuned"]):
        parts.append(paragraph(MISFIT, class_="warning"))
    return parts


def list_answers(verdict: Verdict) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": [item.path for item in verdict.answers],
            "answer": [item.answer for item in verdict.answers],
            "slope": [f"{item.slope:.3f}" for item in verdict.answers],
            "low": [f"{item.low:.3f}" for item in verdict.answers],
            "high": [f"{item.high:.3f}" for item in verdict.answers],
            "scales agree": [item.agrees for item in verdict.answers],
        }
    )


def list_multipliers(verdict: Verdict) -> pd.DataFrame:
    """A row for each length and sample count, a column for each model."""
    length, rows = verdict.compared.length, verdict.multipliers
    names = ("m", "low", "high", "bound")
    shown = rows.assign(shown=[*map(say_value, *(rows[name] for name in names))])
    models = list(dict.fromkeys(shown["model"]))
    wide = shown.pivot(index=[length, "samples"], columns="model", values="shown")[models]
    wide = wide.sort_index(ascending=[False, True]).reset_index()
    return wide.assign(samples=[si(float(count)) for count in wide["samples"]])


def list_slopes(verdict: Verdict) -> pd.DataFrame:
    slopes = verdict.slopes
    pairs = slopes[["slope", "low", "high"]].to_numpy(float)
    shown = [f"{slope:.3f} [{low:.3f}, {high:.3f}]" for slope, low, high in pairs]
    lengths = ["pooled" if tokens == 0 else str(tokens) for tokens in slopes["length"]]
    frame = slopes.assign(shown=shown, tokens=lengths)
    keys = frame[["path", "tokens"]].drop_duplicates()
    wide = frame.pivot(index=["path", "tokens"], columns="scale", values="shown")
    wide = wide.loc[
        list(keys.itertuples(index=False, name=None)), list(dict.fromkeys(slopes["scale"]))
    ]
    return wide.reset_index()


# Provenance


def show_provenance(tables: Tables, name: str) -> list[Element]:
    """What the page was made of: digests of the tables, versions and revision; what ran them."""
    runs = tables["runs"]
    digests = [
        {
            "table": f"{name}/{key}.csv",
            "rows": len(rows),
            "SHA-256": hashlib.sha256(to_csv(rows)).hexdigest(),
        }
        for key, rows in tables.items()
    ]
    counts = [
        {"what": field, "value": str(value), "runs": count}
        for field in ("revision", "device", "host_cpu", "data_fingerprint")
        for value, count in runs[field].value_counts(sort=False).items()
    ]
    versions = pd.DataFrame(read_versions().items(), columns=["package", "version"])
    return [
        table(pd.DataFrame(digests), "Tables this page was made from"),
        table(pd.DataFrame(counts, columns=["what", "value", "runs"]), "What the runs ran on"),
        table(versions, "What made this page"),
    ]


def to_csv(rows: pd.DataFrame) -> bytes:
    """As collect.save_tables writes it, so that sha256sum of the file gives the digest."""
    return rows.to_csv(index=False, lineterminator="\n").encode()
