"""A verdict's figures show its tables: maps of m and gain, T_e with bounds, slopes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipa_scaling.compared import find_compared
from clipa_scaling.figures.plotted import read_plotted
from clipa_scaling.figures.verdict import multiplier_maps, slopes_by_path, tolerated_lengths
from clipa_scaling.inverse import judge
from clipa_scaling.verdict import Verdict
from clipa_scaling.worlds import Design, inverse, make_study


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    """Of a study with an inverse law; S/16 has bounds at the fewest samples."""
    [compared] = find_compared(make_study(inverse, np.random.default_rng(0), Design()))
    return judge(compared, draws=200)


def test_maps_hold_every_m_and_gain_at_their_places(verdict: Verdict) -> None:
    drawn = read_plotted(multiplier_maps(verdict))
    table = verdict.multipliers
    assert len(drawn) == 2 * len(table) == 2 * 3 * 4 * 5
    for name, column in (("m: samples needed", "m"), ("G: compute saved", "gain")):
        own = drawn[(drawn["series"] == name) & (drawn["panel"] == "1 G samples")]
        shown = {(row.y, int(str(row.x))): row.value for row in own.itertuples()}
        at = table[table["samples"] == 1_000_000_000]
        keys = zip(at["model"], at["image_tokens"], strict=True)
        assert shown == pytest.approx(dict(zip(keys, at[column], strict=True)))


def test_numbers_in_maps_carry_their_bounds(verdict: Verdict) -> None:
    """At the fewest samples every m is only known to be larger than 1, every gain smaller."""
    figure = multiplier_maps(verdict)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == 12 and all(text.startswith(">1") for text in texts)
    below = [axes for axes in figure.axes if axes.get_title() == "125 M samples"][1]
    assert all(text.get_text().startswith("<") for text in below.texts)


def test_a_number_is_bold_where_its_interval_leaves_out_1(verdict: Verdict) -> None:
    table = verdict.multipliers.copy()
    table.loc[table["model"] == "L/16", ["low", "gain_low"]] = 0.5
    figure = multiplier_maps(replace(verdict, multipliers=table))
    above, below = (axes for axes in figure.axes if axes.get_title() == "1 G samples")
    at = table[table["samples"] == 1_000_000_000]
    for axes, column in ((above, "m"), (below, "gain")):
        bold = [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"]
        told = at.loc[at["model"] != "L/16", column]
        assert sorted(bold) == sorted(f"{value:.2g}" for value in told) and len(bold) == 8


def test_tolerated_lengths_are_those_of_the_verdict(verdict: Verdict) -> None:
    drawn = read_plotted(tolerated_lengths(verdict))
    table = verdict.tolerated
    for samples, name in ((500_000_000, "500 M"), (2_000_000_000, "2 G")):
        own = drawn[drawn["panel"].str.startswith("fixed D\n") & (drawn["series"] == name)]
        at = table[(table["path"] == "fixed D") & (table["samples"] == samples)]
        at = at.sort_values("size")
        assert own["x"].tolist() == at["size"].tolist()
        assert own["y"].tolist() == pytest.approx(at["tokens"].tolist())
    nu = verdict.nu[verdict.nu["path"] == "fixed D"].iloc[0]
    line = drawn[drawn["panel"].str.startswith("fixed D\n") & (drawn["series"] == "ν")]
    slope = np.polyfit(np.log(line["x"].astype(float)), np.log(line["y"].astype(float)), 1)[0]
    assert slope == pytest.approx(-nu["nu"])


def test_slopes_stand_with_their_intervals(verdict: Verdict) -> None:
    figure = slopes_by_path(verdict)
    drawn = read_plotted(figure)
    pooled = verdict.slopes[(verdict.slopes["scale"] == "logit") & verdict.slopes["low"].notna()]
    own = drawn[drawn["series"] == "logit"]
    assert own["x"].tolist() == pytest.approx(pooled["slope"].tolist())
    assert own["low"].tolist() == pytest.approx(pooled["low"].tolist())
    assert own["high"].tolist() == pytest.approx(pooled["high"].tolist())
    assert "below 0" in figure.axes[0].get_xlabel()
