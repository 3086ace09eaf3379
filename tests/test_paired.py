"""Runs are compared on the same examples, from the tables; what cannot be paired is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from make_data import ROOT

from clipa_scaling import schema
from clipa_scaling.collect import load_tables, make_table
from clipa_scaling.correct import pack_bits
from clipa_scaling.intervals import Seeds, compare_bits, score_interval
from clipa_scaling.paired import compare_runs, drops_from_full, end_rows, find_pairs
from clipa_scaling.schema import TableError

N = 600


def bits(run: int, tokens: int) -> np.ndarray:
    easy = np.random.default_rng(0).random(N)
    return np.asarray(easy + np.random.default_rng([run, tokens]).normal(0, 0.1, N) < tokens / 20)


def make_study(seeds: tuple[int, ...] = (0, 1), **more: Any) -> dict[str, pd.DataFrame]:
    runs, evals = [], []
    for tokens in (16, 9, 4):
        for seed in seeds:
            run = f"i{tokens}-s{seed}"
            spec = {"model": "A", "stage": "pretrain", "kind": "pretrain", "parent": ""}
            spec |= {"image_reduction": "resize", "text_reduction": "truncate"}
            row = {"run": run, "state": "done", "image_tokens": tokens, "text_tokens": 8}
            runs.append({**row, **spec, "seed": seed, "samples": 64})
            right = bits(seed, tokens)
            for samples in (32, 64):
                found = right if samples == 64 else ~right
                row = {"run": run, "samples": samples, "set": "s", "fingerprint": "f", "n": N}
                row |= {"protocol": "common", "name": "accuracy", "correct": pack_bits(found)}
                evals.append({**row, "value": float(found.mean()), **more})
    return {"runs": make_table(runs, schema.RUNS), "evals": make_table(evals, schema.EVALS)}


def test_one_pair_of_runs_has_the_score_interval_of_its_last_evaluation() -> None:
    tables = make_study()
    found = compare_runs(end_rows(tables), [("i16-s0", "i4-s0")])
    first, second = bits(0, 16), bits(0, 4)
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    assert found.difference == pytest.approx((b - c) / N, abs=1e-12)
    assert (found.low, found.high) == pytest.approx([float(x) for x in score_interval(b, c, N)])
    assert (found.first, found.second) == (first.mean(), second.mean())


def test_drops_are_from_the_full_length_cell_with_pooled_noise_of_seeds() -> None:
    drops = drops_from_full(make_study()).set_index("image_tokens")
    assert drops.index.tolist() == [9, 4] and drops["seeds"].tolist() == [2, 2]
    cells = {tokens: np.stack([bits(seed, tokens) for seed in (0, 1)]) for tokens in (16, 9, 4)}
    seeds = {tokens: (cells[16].mean(axis=1) - cells[tokens].mean(axis=1)) for tokens in (9, 4)}
    pooled = Seeds(float(np.mean([seeds[9].var(ddof=1), seeds[4].var(ddof=1)])), 2)
    for tokens in (9, 4):
        wanted = compare_bits(cells[16], cells[tokens], pooled=pooled)
        assert drops["drop"][tokens] == pytest.approx(seeds[tokens].mean())
        assert drops["low"][tokens] == pytest.approx(wanted.low)
        assert drops["high"][tokens] == pytest.approx(wanted.high)
    single = drops_from_full(make_study(seeds=(0,))).set_index("image_tokens")
    pair = compare_bits(bits(0, 16), bits(0, 4))
    assert (single["low"][4], single["high"][4]) == (pair.low, pair.high)


def test_runs_left_out_have_no_drop_and_give_none() -> None:
    tables = make_study()
    runs = tables["runs"]
    gone = runs.assign(left_out=pd.Series("no", runs.index, "string").where(runs["seed"] == 1))
    assert drops_from_full({**tables, "runs": gone})["seeds"].tolist() == [1, 1]
    full = runs.assign(
        left_out=pd.Series("no", runs.index, "string").where(runs["image_tokens"] > 9)
    )
    assert drops_from_full({**tables, "runs": full}).empty


@pytest.mark.parametrize(
    ("name", "value"),
    [("fingerprint", "g"), ("protocol", "paper"), ("evaluation", "e"), ("clusters", "5")],
)
def test_other_examples_are_refused(name: str, value: str) -> None:
    tables = make_study()
    other = tables["evals"]["run"] == "i4-s0"
    evals = tables["evals"].assign(**{name: tables["evals"][name].mask(other, value)})
    if name == "protocol":  # no common one left to choose
        evals["protocol"] = evals["protocol"].replace("common", "own")
    with pytest.raises(TableError, match=f"^i4-s0: {name}={value} where i16-s0 has"):
        compare_runs(end_rows({**tables, "evals": evals}), [("i16-s0", "i4-s0")])


def test_a_measure_without_bits_is_refused() -> None:
    tables = make_study()
    with pytest.raises(TableError, match="i16-s0: has no bits of single examples"):
        compare_runs(end_rows(tables, measure="loss"), [("i16-s0", "i4-s0")])


def test_patterns_name_cells_and_pair_by_seed() -> None:
    tables = make_study()
    assert find_pairs(tables, "i16*", "i4*") == [("i16-s0", "i4-s0"), ("i16-s1", "i4-s1")]
    assert find_pairs(tables, "i16-s0", "i16-s1") == [("i16-s0", "i16-s1")]
    for first, second, said in (
        ("i8*", "i4*", "'i8\\*' fits no done run"),
        ("i*", "i4*", "fits 6 runs that differ in more than their seed"),
    ):
        with pytest.raises(TableError, match=said):
            find_pairs(tables, first, second)


def test_the_command_prints_a_line() -> None:
    """The committed study: 36 tokens beat 4 in the largest model, two seeds on 2,048 pictures."""
    results = ROOT / "results" / "mini"
    command = [sys.executable, "-m", "clipa_scaling.paired", str(results)]
    runs = ["pretrain-T64-8-i36-*", "pretrain-T64-8-i4-*"]
    done = subprocess.run([*command, *runs], capture_output=True, text=True, cwd=ROOT)
    tables = load_tables(Path(results))
    cells = tables["runs"][tables["runs"]["model"] == "T64/8"].groupby("image_tokens")["accuracy"]
    wanted = 100 * (cells.mean()[36] - cells.mean()[4])
    assert done.returncode == 0, done.stderr
    assert f"= {wanted:+.2f} points, 95 % interval +" in done.stdout
    assert done.stdout.endswith("over examples and 2 seeds\n")
    wrong = subprocess.run([*command, "x", "y"], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2 and wrong.stderr.startswith("'x' fits no done run")
