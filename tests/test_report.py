"""A study on one page: whole, self-contained, each time the same, and no name does harm."""

from __future__ import annotations

import base64
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_data import ROOT

from clipa_scaling import report, sections
from clipa_scaling.collect import load_tables
from clipa_scaling.figures.papers import PAPERS
from clipa_scaling.page import Section, render
from clipa_scaling.report import make_report

PARTS = ["Plan", "Runs", "Warnings", "Cells", "Figures", "Verdict", "Provenance"]
VOID = {"meta", "img", "br", "hr"}
HOSTILE = "<script>alert(1)</script>\"'&amp;<b>"


class Page(HTMLParser):
    """What a reader sees: headings, tables by caption, images; raises where tags do not match."""

    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.images: list[dict[str, str]] = []
        self.text = ""
        self.caption = ""
        self.feed(data.decode("utf-8"))
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes += given.items()
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(given)
        if tag == "caption":
            self.caption = ""
        if tag == "tr":
            self.tables.setdefault(self.caption, []).append([])
        if tag in ("td", "th"):
            self.tables[self.caption][-1].append("")
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes something else"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if "caption" in self.open:
            self.caption += data
        elif {"td", "th"} & set(self.open):
            self.tables[self.caption][-1][-1] += data
        elif self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings[-1] += data

    def column(self, caption: str, heading: str) -> list[str]:
        head, *rows = self.tables[caption]
        return [row[head.index(heading)] for row in rows]


@cache
def study(name: str) -> dict[str, pd.DataFrame]:
    return load_tables(ROOT / "results" / name)


@cache
def page(name: str) -> bytes:
    """Fits of tiny_law take half a minute; those of emoji, which cannot tell much, seconds."""
    return make_report(study(name), name, laws=name != "tiny_law")


@pytest.mark.parametrize(
    ("name", "more"), [("emoji", ["Laws", "Checklist"]), ("tiny_law", ["Pipelines"])]
)
def test_a_page_has_every_part_and_needs_nothing_from_outside(name: str, more: list[str]) -> None:
    found = Page(page(name))
    sections = [*PARTS, *more]
    assert set(sections) <= set(found.headings)
    targets = {value for key, value in found.attributes if key == "id"}
    links = [value for key, value in found.attributes if key == "href"]
    assert len(links) >= len(sections) and all(link[1:] in targets for link in links)
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert b"http://" not in page(name) and b"https://" not in page(name)
    assert not re.search(rb"url\(|@import|\son\w+=", page(name))
    for image in found.images:
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/png;base64" and len(image["alt"]) > 20
        assert base64.b64decode(data)[:8] == b"\x89PNG\r\n\x1a\n"


def test_tables_hold_the_studys_numbers() -> None:
    found, runs = Page(page("tiny_law")), study("tiny_law")["runs"]
    assert found.column("Every planned run", "Run") == runs["run"].tolist()
    assert found.column("What varies between runs", "values")[:2] == [
        "T32/8 · T48/8 · T64/8",
        "4 · 9 · 16",
    ]
    cells = next(name for name in found.tables if name.startswith("Zero-shot accuracy"))
    shown = dict(
        zip(found.column(cells, "Model"), found.column(cells, "16 image tokens"), strict=True)
    )
    own = runs[
        (runs["model"] == "T64/8") & (runs["image_tokens"] == 16) & (runs["kind"] == "decay")
    ]
    mean = own.loc[own["samples"] == 13440, "accuracy"].astype(float).mean()
    assert shown["T64/8, samples=13440"].startswith(f"{100 * mean:.1f} ± ")
    paths = found.column("Answers per path, with the slope d log m / d log N", "path")
    assert {"fixed D", "fixed D/N"} <= set(paths)


def test_every_figure_is_embedded(tmp_path: Path) -> None:
    from clipa_scaling import figures

    paths = figures.save_figures(study("emoji"), "emoji", tmp_path)
    drawn = {path.read_bytes() for path in paths if path.suffix == ".png"}
    shown = [
        base64.b64decode(image["src"].partition(",")[2]) for image in Page(page("emoji")).images
    ]
    assert drawn and drawn <= set(shown)


def test_a_hostile_name_is_a_name() -> None:
    runs = study("emoji")["runs"]
    first = runs["run"].iloc[0]
    tables = {
        key: rows.assign(run=rows["run"].replace(first, HOSTILE))
        for key, rows in study("emoji").items()
    }
    tables["runs"].loc[runs.index[1], "model"] = HOSTILE
    tables["runs"]["state"] = np.where(tables["runs"]["run"] == HOSTILE, "failed", runs["state"])
    tables["runs"]["reason"] = np.where(tables["runs"]["run"] == HOSTILE, HOSTILE, runs["reason"])
    found = Page(make_report(tables, HOSTILE, laws=False))
    assert found.headings[0].startswith(HOSTILE)
    assert found.column("Every planned run", "Run")[0] == HOSTILE
    assert found.column("Every planned run", "Reason")[0] == HOSTILE
    assert "script" not in found.tags and "b" not in found.tags


def test_what_cannot_be_shown_says_why() -> None:
    evals = study("emoji")["evals"].copy()
    changed = (evals["run"] == evals["run"].iloc[-1]) & (evals["name"] == "accuracy")
    evals.loc[changed, "fingerprint"] = "0" * 16
    found = Page(make_report({**study("emoji"), "evals": evals}, "mixed", laws=False))
    assert "was measured in 2 ways" in found.text
    assert "Every planned run" in found.tables and "Provenance" in found.headings


def test_left_out_runs_are_told_with_their_reasons() -> None:
    runs = study("emoji")["runs"]
    why = "a broken node (A. B., 2026-01-31)"
    marked = runs.assign(left_out=pd.Series([why], runs.index[:1], "string"))
    shown = sections.show_runs({**study("emoji"), "runs": marked})
    found = Page(render("emoji", [], [Section("runs", "Runs", shown)]))
    assert found.column("Left out of cells, figures and fits", "Left out") == [why]
    assert f"1 run left out: {why}" in found.text


def test_laws_that_cannot_be_fitted_say_why() -> None:
    found = Page(page("emoji"))
    assert "D (samples) does not vary" in found.text
    asked = found.column("Hypothesis: the form", "question")
    assert {"form", "how N is counted", "bounds"} <= set(asked)
    rows = found.column("Fitting", "question")
    assert {"objective", "starts", "tolerance", "success", "uncertainty", "validation"} <= set(rows)


@pytest.mark.slow
def test_a_study_of_sizes_lengths_and_samples_has_its_law() -> None:
    found = Page(make_report(study("tiny_law"), "tiny_law"))
    forms = next(rows for name, rows in found.tables.items() if name.startswith("forms:"))
    assert {"primary", "additive", "multiplicative"} <= {row[0] for row in forms}
    law = next(rows for name, rows in found.tables.items() if name.startswith("primary:"))
    assert {"alpha", "p_T", "beta", "q_T"} <= {row[0] for row in law}


def test_the_command_writes_the_same_bytes_again_or_says_what_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert report.main([str(ROOT / "results" / "emoji"), "--out", str(out)]) == 0
    assert out.read_bytes() == page("emoji")
    assert report.main([str(tmp_path)]) == 1
    assert "no such table; make it with" in capsys.readouterr().err


@pytest.mark.slow
def test_the_published_results_have_a_page(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert report.main([str(ROOT / "results" / "published"), "--out", str(out)]) == 0
    found = Page(out.read_bytes())
    assert b"://" not in out.read_bytes() and len(found.images) == len(PAPERS)
    final = [
        row for row in found.tables["v1 Table 11"] if row[:3] == ["S/16", "finetune", "resize"]
    ]
    assert [row[-1] for row in final] == ["56.0", "54.7", "53.9", "50.5"]  # arXiv:2305.07017
