"""The checklist: every question has an answer, and what nobody recorded says so."""

from __future__ import annotations

from dataclasses import replace

from test_rollout import FAST, make

from clipa_scaling.checklist import UNKNOWN, as_json, as_markdown, fill
from clipa_scaling.laws import additive
from clipa_scaling.solve import fit

COLUMNS = {"N": "total_params", "D": "samples", "T": "image_tokens", "y": "loss"}


def test_answers_come_from_the_fit_and_from_the_study() -> None:
    found = fit(replace(make(), columns=COLUMNS), additive(), FAST)
    items = fill(
        found,
        {"seeds": "0, 1"},
        exclusions="2 runs left out",
        uncertainty="none",
        validation="none",
    )
    told = {item.question: item.answer for item in items}
    assert all(told.values()) and len(told) == len(items)
    assert told["how N is counted"].startswith("total_params: both towers")
    assert told["seeds"] == "0, 1" and told["batch sizes"] == UNKNOWN
    assert told["predicted"] == "loss, nats" and told["exclusions"] == "2 runs left out"
    assert told["rows"] == f"{len(found.points)}, sha256 {found.points.digest()}"
    assert "sum of squares" in told["objective"] and "log y" in told["objective"]
    assert told["starts"].startswith("512,") and "8" in told["starts"]
    assert "numpy" in told["versions"]
    text = as_markdown(items)
    assert all(f"- **{item.question}**: {item.answer}" in text for item in items)
    assert sum(map(len, as_json(items).values())) == len(items)
