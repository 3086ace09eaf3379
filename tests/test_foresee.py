"""What is foreseen of a sweep, against made-up studies and against what can be said by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from make_data import ROOT

from clipa_scaling.advise import main
from clipa_scaling.assumed import assume, learn
from clipa_scaling.changes import best_additions, best_drops, find_additions, find_drops, weigh
from clipa_scaling.compared import Compared, find_compared
from clipa_scaling.foresee import Reckoning, Scatter, draw_values, measure_scatter, reckon
from clipa_scaling.judge import judge
from clipa_scaling.layout import Layout, redesign
from clipa_scaling.planned import compare, read_study
from clipa_scaling.slopes import FIXED_D
from clipa_scaling.worlds import Design, inverse, make_study

SMALL = Design(lengths=(196, 49, 16), seeds=2)
EXACT = Scatter(logits=1e-4, degrees=math.inf)


def planned(design: Design = SMALL) -> Compared:
    [compared] = find_compared(make_study(inverse, np.random.default_rng(0), design))
    return replace(compared, runs=compared.runs.assign(done=False))


def test_without_noise_the_slope_is_that_of_the_assumed_law() -> None:
    """m = t^-e at every D, so that d log m / d log N is strength log t: here of a quarter."""
    compared = planned(replace(SMALL, lengths=(196, 49), pictures=0))
    truth = assume(compared, strength=0.12)
    [found, *_] = reckon(compared, truth, EXACT)
    assert found.slope == pytest.approx(-0.12 * math.log(4), abs=2e-3)


def test_the_width_in_closed_form_is_the_scatter_of_the_slope() -> None:
    compared = planned()
    truth = assume(compared)
    scatter = Scatter(logits=0.02, degrees=math.inf)
    reckoning = Reckoning(compared, truth, scatter)
    half = next(reckoning.follow(way).half for way in reckoning.ways if way.path == FIXED_D)
    slopes, halves = [], []
    for world in range(24):
        values = draw_values(compared, truth, scatter, np.random.default_rng(world))
        made = replace(compared, runs=compared.runs.assign(value=values))
        answer = judge(made, draws=40, scales=("logit",), with_drops=False).answers[0]
        slopes.append(answer.slope)
        halves.append((answer.high - answer.low) / 2)
    # A standard deviation of 24 is known to 15 %.
    assert half == pytest.approx(reckoning.quantile * np.std(slopes, ddof=1), rel=0.35)
    assert half == pytest.approx(np.median(halves), rel=0.35)


def test_four_times_the_seeds_halve_the_noise() -> None:
    few, many = planned(replace(SMALL, seeds=2)), planned(replace(SMALL, seeds=8))
    truth, widths = assume(few), []
    few, many = (replace(c, runs=c.runs.assign(n=10**12)) for c in (few, many))
    for compared in (few, many):
        found = Reckoning(compared, truth, EXACT)
        by_path = {way.path: way for way in found.ways}
        spread = found.follow(by_path[FIXED_D]).half
        noisy = Reckoning(compared, truth, Scatter(logits=2e-4, degrees=math.inf))
        # What scales differ by is the same in both, and no noise.
        widths.append((noisy.follow(by_path[FIXED_D]).half - spread) / found.quantile)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.02)


def test_finished_runs_teach_the_law() -> None:
    compared = planned()
    truth = replace(assume(compared), a=0.5, b=0.9, alpha=0.5, exponent=0.6, strength=0.2)
    runs = compared.runs.assign(value=truth.accuracy(compared.runs), n=10**9)
    found = learn(assume(compared), runs, 1e-3, keep_strength=False)
    assert found.strength == pytest.approx(0.2, abs=2e-3)
    assert found.accuracy(runs) == pytest.approx(truth.accuracy(runs), abs=1e-4)
    kept = learn(assume(compared, strength=0.0), runs, 1e-3, keep_strength=True)
    assert kept.strength == pytest.approx(0, abs=1e-3)


def test_a_sweep_of_one_sample_count_lacks_samples(tmp_path: Path) -> None:
    study = read_study(ROOT / "sweeps" / "inverse.yaml", tmp_path)
    [compared] = compare(study)
    truth = assume(compared)
    keys = [item.key for item in reckon(compared, truth, Scatter())[0].missing]
    assert keys == ["samples", "seeds"]
    added = weigh(find_additions(Layout(study)), compared, truth, Scatter())
    helped = [item for item in added if "samples" not in item.lacks]
    assert all("samples" in item.change.what for item in helped)
    # More samples than the one count leave m a bound: short lengths lie below the reference's.
    assert {item.change.what for item in helped if math.isfinite(item.after)} == {
        "1.28B, 640M samples", "1.28B, 640M samples at full length", "5.12B, 10.2B samples"
    }  # fmt: skip
    best, *_ = best_additions(added)
    assert best.change.what == "1.28B, 640M samples at full length"


def test_a_change_costs_what_its_runs_cost(tmp_path: Path) -> None:
    study = read_study(ROOT / "sweeps" / "tiny_law.yaml", tmp_path)
    own = [
        row.cost.gpu_hours
        for row in study.rows
        if (spec := row.planned.spec).model == "T64/8"
        and spec.image_tokens == 16
        and spec.seed == 0
    ]
    layout = Layout(study)
    added = {change.what: change for change in find_additions(layout)}
    dropped = {change.what: change for change in find_drops(layout)}
    assert added["a seed of T64/8 at 16"].hours == pytest.approx(math.fsum(own))
    assert dropped["a seed of T64/8 at 16"].hours == pytest.approx(-math.fsum(own))
    # Without its longest branch a trunk is shorter: .8 of 8,960 samples in place of .8 of 13,440.
    trunks = [
        row.planned.spec.samples
        for row in dropped["13.4K samples"].study.rows
        if row.planned.spec.kind == "pretrain"
    ]
    assert {*trunks} == {7168}


def test_a_changed_comparison_is_that_of_the_changed_study(tmp_path: Path) -> None:
    study = read_study(ROOT / "sweeps" / "tiny_law.yaml", tmp_path)
    [compared] = compare(study)
    cells = ["model", "size", "length", "samples", "seed"]
    layout = Layout(study)
    added = {change.what: change for change in find_additions(layout)}
    names = ("a seed of T48/8 at 9", "2.77K samples", "model T96/8")
    for change in [*list(find_drops(layout))[::9], *(added[name] for name in names)]:
        [expected] = compare(change.study)
        rows = [
            each.runs.sort_values(cells).reset_index(drop=True)
            for each in (redesign(compared, change.study), expected)
        ]
        assert rows[0][cells].to_numpy().tolist() == rows[1][cells].to_numpy().tolist()
        roots = [each.groupby("root")["samples"].nunique().to_numpy() for each in rows]
        assert sorted(roots[0]) == sorted(roots[1])
        assert rows[0]["flops"].to_numpy() == pytest.approx(rows[1]["flops"].to_numpy(), rel=1e-6)


def test_results_replace_assumptions_and_what_is_paid_is_no_saving(tmp_path: Path) -> None:
    results = ROOT / "results" / "tiny_law"
    study = read_study(ROOT / "sweeps" / "tiny_law.yaml", tmp_path, results=results)
    [compared] = compare(study)
    assert compared.runs["done"].all()
    assert study.pictures == 2048
    scatter = measure_scatter(compared)
    assert scatter.degrees > 10
    assert 0.2 < scatter.logits < 0.7  # ten points at an accuracy of a third, as its README says
    assert list(find_drops(Layout(study))) == []


def test_what_widens_nothing_is_dropped_before_what_does(tmp_path: Path) -> None:
    study = read_study(ROOT / "sweeps" / "law.yaml", tmp_path)
    [compared] = compare(study)
    drops = [item for item in find_drops(Layout(study)) if item.what.endswith("B samples")]
    found = best_drops(weigh(drops, compared, assume(compared), Scatter()), [])
    rates = [max(item.rate, 0) for item in found]
    assert rates == sorted(rates)
    assert all(item.change.hours < 0 for item in found)


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = str(ROOT / "sweeps" / "inverse.yaml")
    assert main(["sweep", sweep, "--worlds", "0"]) == 0
    told = capsys.readouterr().out
    assert "it lacks: samples, seeds" in told.replace("\n", " ")
    assert max(map(len, told.splitlines())) <= 100


def test_the_command_gives_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(ROOT / "sweeps" / "mini.yaml"), "--worlds", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["missing"][FIXED_D].keys() == {"samples"}
    assert found["drops"] == []  # without an interval, nothing says what a run is good for


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["sweep", "nowhere.yaml"], "nowhere.yaml"),
        (["sweep", "TINY", "--results", "MINI"], "none of its 24 runs"),
        (["budget", "MINI", "--flops", "1e15"], "has not varied samples"),
        (["budget", "nowhere", "--flops", "1e15"], "no such table"),
        (["budget", "MINI", "--flops", "1e15", "--law", "power"], "predicts no recipe"),
    ],
)
def test_mistakes_are_one_line(
    given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"TINY": "sweeps/tiny_law.yaml", "MINI": "results/mini"}
    assert main([str(ROOT / places[word]) if word in places else word for word in given]) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.count("\n") == 1
