"""The papers' cells predicted: the committed table is what the code says, and the docs quote it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from clipa_scaling.lawform import LAWS
from clipa_scaling.paperstudy import paper_tables
from clipa_scaling.points import make_points
from clipa_scaling.rollout import BASELINES
from clipa_scaling.tournament import compete

ROOT = Path(__file__).resolve().parents[1]
DOCS = (ROOT / "docs" / "laws.md").read_text()


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("extrapolate", ROOT / "bench" / "extrapolate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table(bench: ModuleType) -> pd.DataFrame:
    return pd.read_csv(bench.OUT)


def test_the_committed_table_is_what_the_code_says(bench: ModuleType, table: pd.DataFrame) -> None:
    again = bench.extrapolate("v1 Table 11", "resize", draws=0)
    kept = table[(table["table"] == "v1 Table 11") & (table["reduction"] == "resize")]
    assert list(again["form"]) == list(kept["form"])
    for name in ("error", "bias", "drop_error"):
        np.testing.assert_allclose(again[name], kept[name], atol=0.02)


def test_the_docs_quote_it(bench: ModuleType, table: pd.DataFrame) -> None:
    assert bench.as_markdown(table) in DOCS
    lines = [line for line in bench.as_markdown(table).splitlines()[2:]]
    names = [name.strip() for name in bench.as_markdown(table).splitlines()[0].split("|")[1:-1]]
    won = [
        any("**" in cell for name, cell in zip(names, row.split("|")[1:-1], strict=True)
            if name in BASELINES)
        for row in lines
    ]  # fmt: skip
    assert f"in {sum(won)} of the {len(lines)} rows" in DOCS
    drops = table[(table["reduction"] == "resize") & (table["split"] == "largest N")]
    errors = drops.set_index("form")["drop_error"]
    told = f"to {errors['per_size']:.2f} points, where copying B/16's drops is off by"
    assert f"{told} {errors['nearest run']:.2f}" in " ".join(DOCS.split())


@pytest.fixture
def own_law() -> Iterator[str]:
    [code] = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    before = set(LAWS)
    exec(code, {})
    [name] = set(LAWS) - before
    yield name
    del LAWS[name]


def test_the_law_of_the_docs_enters_the_tournament(own_law: str) -> None:
    points = make_points(paper_tables("v1 Table 11", "resize"))
    found = compete(points, [LAWS[own_law], LAWS["multiplicative"]])
    params = found.fits[own_law].params
    # The same as a multiplicative law without its floor, which is near 0 here: alpha q = gamma.
    nested = found.fits["multiplicative"].params
    assert 0 < params["alpha"] < 0.3 and 0 < params["q"] < 2
    assert params["alpha"] * params["q"] == pytest.approx(nested["gamma"], rel=0.5)
    assert own_law in found.table()["form"].tolist()
