"""The verdict on studies whose truth is known, and on designs that cannot give one."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import binom

from clipa_scaling.collect import save_tables
from clipa_scaling.compared import Compared, find_compared
from clipa_scaling.inverse import judge, main, print_verdicts
from clipa_scaling.slopes import COMPUTE_OPTIMAL, FIXED_D, FIXED_RATIO, POOLED
from clipa_scaling.verdict import NO, UNDETERMINED, YES, Verdict, say
from clipa_scaling.verdicttable import print_verdict
from clipa_scaling.worlds import (
    FALSE_LAW,
    HIDDEN_LAW,
    NULLS,
    Design,
    Law,
    additive,
    inverse,
    make_study,
    scatter,
    size_independent,
)

Tables = dict[str, pd.DataFrame]
EXACT = Design(seed_sd=0, pictures=0, seeds=1)
SMALL = Design(lengths=(196, 49, 16), seeds=2)
# Far enough in D that each size is the best use of some compute.
WIDE = replace(SMALL, samples=tuple(125_000_000 * 4**step for step in range(7)))


def study(law: Law, design: Design = SMALL, seed: int = 0, tuned: bool = False) -> Tables:
    return make_study(law, np.random.default_rng(seed), design, tuned)


def compare(tables: Tables) -> Compared:
    [compared] = find_compared(tables)
    return compared


def pooled(verdict: Verdict, path: str) -> list[float]:
    """The slope on every scale."""
    chosen = verdict.slopes[(verdict.slopes["path"] == path) & (verdict.slopes["length"] == POOLED)]
    return [float(value) for value in chosen["slope"]]


def redraw(compared: Compared, law: Law, design: Design, count: int) -> Iterator[Compared]:
    """The same study with other noise."""
    runs = compared.runs
    trunks = list(runs.groupby("root", sort=False).groups.values())
    columns = (runs[name].to_numpy(float) for name in ("size", "length", "samples"))
    size, length, samples = columns
    truth = law(size, length, samples, np.full(len(runs), 1e-3))
    for world in range(count):
        rng, values = np.random.default_rng(100 + world), np.empty(len(runs))
        for trunk in trunks:
            values[trunk] = scatter(truth[trunk], rng, design)
        yield replace(compared, runs=runs.assign(value=values))


# Truths without noise


def test_slopes_are_those_of_the_law_on_every_scale() -> None:
    verdict = judge(compare(study(inverse, EXACT)), seed_sd=1e-6, draws=20)
    found = verdict.slopes[(verdict.slopes["length"] != POOLED) & verdict.slopes["slope"].notna()]
    assert len(found) == 2 * 3 * 4
    wanted = -0.12 * np.log(196 / found["length"].to_numpy(float))
    assert found["slope"].to_numpy() == pytest.approx(wanted, abs=0.003)
    assert (verdict.answer, verdict.robust) == (YES, False)
    assert say(verdict).count("unknown at compute-optimal") == 1


def test_robust_are_three_paths_and_scales_that_agree() -> None:
    design = replace(WIDE, seed_sd=0, pictures=0, seeds=1)
    for law, answer in ((inverse, YES), (size_independent, NO)):
        verdict = judge(compare(study(law, design)), seed_sd=1e-6, draws=20)
        assert [item.answer for item in verdict.answers] == [answer] * 3
        assert (verdict.answer, verdict.robust) == (answer, True)
        assert len(judge(compare(study(law, design)), draws=20, scales=("logit",)).answers) == 3
    alone = judge(compare(study(inverse, design)), seed_sd=1e-6, draws=20, scales=("logit",))
    assert (alone.answer, alone.robust) == (YES, False)


def test_along_the_compute_optimal_path_an_additive_law_costs_larger_models_more() -> None:
    """Their D is larger, and m grows with D; two sizes tell the slope, but answer nothing."""
    design = replace(WIDE, seed_sd=0, pictures=0, seeds=1)
    verdict = judge(compare(study(additive, design)), seed_sd=1e-6, draws=20)
    [item] = [item for item in verdict.answers if item.path == COMPUTE_OPTIMAL]
    assert item.answer == UNDETERMINED and item.low > 0.1
    [lack] = item.missing
    assert lack.because.startswith("2 sizes are optimal at a compute inside the grid: S/16 is too")


def test_multipliers_are_those_of_the_law() -> None:
    table = judge(compare(study(inverse, EXACT)), seed_sd=1e-6, draws=20).multipliers
    exponent = 0.4 - 0.12 * np.log(table["image_params"] / 86e6)
    truth = (196 / table["image_tokens"]) ** exponent
    known = table["bound"] == ""
    assert table.loc[known, "m"].to_numpy() == pytest.approx(truth[known].to_numpy(), rel=0.01)
    below = table[table["bound"] == ">"]
    assert len(below) and (truth[below.index] > below["m"] - 1e-9).all()


def test_an_additive_law_has_no_slope_at_fixed_d_and_a_rising_one_at_fixed_d_over_n() -> None:
    verdict = judge(compare(study(additive, EXACT)), seed_sd=1e-6, draws=20)
    assert pooled(verdict, FIXED_D) == pytest.approx([0, 0, 0], abs=5e-4)
    assert min(pooled(verdict, FIXED_RATIO)) > 0.1
    assert [item.answer for item in verdict.answers] == [NO, NO, UNDETERMINED]
    assert (verdict.answer, verdict.robust) == (NO, False)


def test_a_change_of_scale_moves_slopes_by_a_hundredth_of_their_interval() -> None:
    """Interpolation is all that is left of the scale, in steps of two in D."""
    for law in (*NULLS.values(), inverse):
        verdict = judge(compare(study(law)), draws=100)
        for item in verdict.answers[:2]:
            slopes = pooled(verdict, item.path)
            assert max(slopes) - min(slopes) < 0.02 * (item.high - item.low)
            assert item.agrees


# Truths with noise


@pytest.mark.parametrize("name", NULLS)
def test_without_an_inverse_law_yes_is_rare(name: str) -> None:
    """At most 5 % on any path, of m or of T_e, up to what 25 worlds may show once in a thousand."""
    worlds, law = 25, NULLS[name]
    design = SMALL if name == "multiplicative" else WIDE  # its optimum is at no size
    answers: Counter[tuple[str, str, str]] = Counter()
    for compared in redraw(compare(study(law, design)), law, design, worlds):
        verdict = judge(compared, draws=100, scales=("logit",))
        answers.update(("m", item.path, item.answer) for item in verdict.answers)
        told = zip(verdict.nu["path"], verdict.nu["answer"], strict=True)
        answers.update(("nu", path, answer) for path, answer in told)
        answers["all", "paths", verdict.answer] += 1
    for number, path, answer in answers:
        if answer == YES:
            assert answers[number, path, YES] <= binom.ppf(0.999, worlds, 0.05), (number, path)


def test_an_inverse_law_is_found() -> None:
    answers = [
        judge(compared, draws=150, scales=("logit",)).answer
        for compared in redraw(compare(study(inverse)), inverse, SMALL, 10)
    ]
    assert answers.count(YES) >= 9


def test_single_runs_and_assumed_noise_serve_too() -> None:
    alone = replace(SMALL, decay=False)
    assert judge(compare(study(inverse, alone)), draws=100).answer == YES
    one = replace(SMALL, seeds=1)
    verdict = judge(compare(study(inverse, one)), draws=100, seed_sd=0.004)
    assert verdict.answer == YES and "assumed: 0.4 points" in verdict.noise


# A rate for all that fits some better


@pytest.mark.parametrize(
    ("law", "one_rate", "tuned"), [(FALSE_LAW, YES, UNDETERMINED), (HIDDEN_LAW, UNDETERMINED, YES)]
)
def test_a_misfit_of_rates_makes_or_hides_a_law_and_tuning_mends_it(
    law: Law, one_rate: str, tuned: str
) -> None:
    found = [judge(compare(study(law, Design(), 1, mend)), draws=200) for mend in (False, True)]
    assert [verdict.answer for verdict in found] == [one_rate, tuned]
    slope = found[1].answers[0].slope
    assert abs(slope - (0 if law is FALSE_LAW else -0.18)) < 0.06
    buffer = io.StringIO()
    for verdict in found:
        print_verdict(Console(file=buffer, width=200), verdict)
    assert buffer.getvalue().count("lr was not tuned for every cell") == 1


def test_a_misfit_shifts_the_slope_by_what_its_formula_says() -> None:
    verdict = judge(compare(study(FALSE_LAW, EXACT)), seed_sd=1e-6, draws=20)
    found = verdict.slopes[
        (verdict.slopes["length"] != POOLED) & (verdict.slopes["path"] == FIXED_D)
    ]
    wanted = 2 * 0.6 * 0.3 * 0.3 * np.log(found["length"].to_numpy(float) / 196)
    assert found["slope"].to_numpy() == pytest.approx(wanted, abs=0.01)


def test_stages_that_search_rates_do_not_count() -> None:
    tables = study(size_independent, tuned=True)
    runs = tables["runs"]
    assert (runs["stage"] == "tune").any()
    cells = compare(tables).runs
    assert len(cells) == (runs["stage"] == "decay").sum() == 3 * 3 * 5 * 2


# What a design lacks


@pytest.mark.parametrize(
    ("design", "key", "because"),
    [
        (replace(SMALL, samples=SMALL.samples[:1]), "samples", "S/16 has 1 at full length"),
        (replace(SMALL, samples=SMALL.samples[:2]), "samples", "S/16 has 2 at full length"),
        (replace(SMALL, models=("S/16", "B/16")), "model", "only S/16, B/16"),
        (replace(SMALL, lengths=(196, 49)), "image_tokens", "only 49, 196"),
        (replace(SMALL, lengths=(196,)), "image_tokens", "only 196"),
        (replace(SMALL, seeds=1), "seeds", "no cell has two"),
    ],
)
def test_a_design_that_cannot_answer_says_what_it_lacks(
    design: Design, key: str, because: str
) -> None:
    verdict = judge(compare(study(inverse, design)), draws=50)
    assert [(item.key, item.because.startswith(because)) for item in verdict.missing] == [
        (key, True)
    ]
    assert {item.answer for item in verdict.answers} == {UNDETERMINED} == {verdict.answer}
    assert all(item.missing == verdict.missing for item in verdict.answers)
    assert not verdict.robust and f"it lacks: {key}." in say(verdict)


def test_sizes_further_apart_than_sample_counts_share_no_ratio() -> None:
    design = replace(SMALL, samples=tuple(10**9 + step * 10**8 for step in range(4)))
    verdict = judge(compare(study(size_independent, design)), draws=50)
    assert not verdict.missing
    [lack] = verdict.answers[1].missing
    assert (lack.key, verdict.answers[1].answer) == ("samples", UNDETERMINED)
    assert "no D/N is shared" in lack.because


# What people see


def test_a_sentence_that_a_paper_could_print() -> None:
    verdict = judge(compare(study(inverse)), draws=100)
    told = say(verdict)
    assert told.startswith("Over 3 sizes (S/16, B/16, L/16), 3 lengths and 5 sample counts, the")
    assert "m, fall as the model grows: d log m / d log N = -0." in told
    assert "on accuracy, -log error and logit alike; unknown at compute-optimal. " in told
    assert "stays within 1.25 go with N to the power of -0." in told
    assert not math.isnan(verdict.answers[1].low)


def test_the_command_prints_multipliers_slopes_verdict_and_sentence(
    tmp_path: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    save_tables(study(inverse), tmp_path)  # type: ignore[arg-type]
    assert main([str(tmp_path), "--draws", "200"]) == 0
    out = capsys.readouterr().out
    for wanted in (
        "m, times the samples",
        "> 1.00",
        "pooled",
        "fixed D: yes",
        "compute-optimal: undetermined",
        "S/16 is too large for the most compute that its neighbours share",
        "G, compute of the full length",
        "exponent of N in the drop",
        "verdict: yes",
    ):
        assert wanted in " ".join(out.split())
    assert main([str(tmp_path), "--measure", "text_to_image_r1"]) == 1
    told = capsys.readouterr().err
    assert "run has text_to_image_r1 at its end; the tables have accuracy on imagenet1k" in told
    assert main([f"{tmp_path}/none"]) == 1


def narrow(verdict: Verdict) -> str:
    """As a terminal of 80 columns shows it."""
    buffer = io.StringIO()
    print_verdict(Console(file=buffer, width=80), verdict)
    return buffer.getvalue()


def test_numbers_without_an_interval_are_not_shown() -> None:
    """Of the path and, elsewhere, of the last scale alone."""
    verdict = judge(compare(study(inverse)), draws=50)
    slopes, nu = verdict.slopes.copy(), verdict.nu.copy()
    for table, name in ((slopes, "slope"), (nu, "nu")):
        table[name] = 0.777
        lacks = (table["path"] == FIXED_RATIO) | (table["scale"] == "-log error")
        table.loc[lacks, ["low", "high"]] = np.nan
    out = narrow(replace(verdict, slopes=slopes, nu=nu))
    lines = [" ".join(line.split()) for line in out.split("\n")]
    fixed = [line for line in lines if line.startswith("fixed D ") and "0.777" in line]
    ratio = [line for line in lines if line.startswith("fixed D/N ") and "no interval" in line]
    assert len(fixed) == len(ratio) == 2 + 1 + 1  # lengths, pooled, nu
    assert all(line.count("0.777") == 2 and "] 0.777 – " in line for line in fixed)
    assert all("– (no interval) – – " in line and "0.777" not in line for line in ratio)


def test_a_sweep_ends_with_a_verdict_only_where_all_axes_vary() -> None:
    for design, says in ((SMALL, True), (replace(SMALL, samples=SMALL.samples[:1]), False)):
        buffer = io.StringIO()
        print_verdicts(Console(file=buffer), study(inverse, design))
        assert ("verdict: " in buffer.getvalue()) == says
