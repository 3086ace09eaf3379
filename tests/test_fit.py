"""The command on studies and on the papers' tables: what it prints, saves and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from clipa_scaling.analysis import analyse, fit_deltas, say
from clipa_scaling.collect import load_tables, save_tables
from clipa_scaling.fit import choose_all, main, read_arguments
from clipa_scaling.fittables import parameter_table
from clipa_scaling.fitted import Fit
from clipa_scaling.laws import per_size
from clipa_scaling.paperstudy import paper_tables
from clipa_scaling.points import Chosen, make_points
from clipa_scaling.schema import TableError
from clipa_scaling.solve import Options, Points, fit

MINI = Path(__file__).resolve().parents[1] / "results" / "mini"
QUICK = ["--starts", "256", "--draws", "0"]


@pytest.fixture(scope="module")
def resize(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    out = tmp_path_factory.mktemp("fit") / "resize.json"
    assert main(["--published", "v1 Table 11: resize", *QUICK, "--save", str(out)]) == 0
    held: dict[str, object] = json.loads(out.read_text())
    return held


def test_a_constant_axis_is_named_and_the_form_per_size_stands_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(MINI), *QUICK]) == 0
    out = capsys.readouterr().out
    assert "primary: cannot be fitted: D (samples) does not vary: 24576" in out
    assert "shown instead: per_size" in out
    assert "## Fitting" in out and "largest D: not held out" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_papers_deltas(resize: dict[str, dict[str, dict[str, float]]]) -> None:
    # Reference: residual bootstraps of the same form, N = 22, 86, 304 M.
    expected = {"accuracy": (0.27, 0.21, 0.32), "-log error": (0.13, 0.08, 0.20)}
    expected["logit"] = (0.22, 0.16, 0.28)
    for scale, (value, low, high) in expected.items():
        item = resize["delta_by_scale"][scale]
        assert item["estimate"] == pytest.approx(value, abs=0.01)
        assert item["low"] == pytest.approx(low, abs=0.04)
        assert item["high"] == pytest.approx(high, abs=0.04)
    assert "larger models lose less on every scale" in str(resize["sentence"])


SIZE_OF_ROW, LENGTH = np.repeat([22e6, 86e6, 304e6], 5), np.tile([16, 36, 49, 100, 196.0], 3)
LEVEL = np.repeat([0.43, 0.36, 0.31], 5)


def test_a_delta_that_is_not_identified_has_no_numbers() -> None:
    """The smallest model alone loses anything: delta has no upper end."""
    lost = np.repeat([0.01, 0.0, 0.0], 5) * (LENGTH / 196) ** -0.8
    y = LEVEL + lost + np.random.default_rng(2).normal(0, 0.001, 15)
    points = Points({"N": SIZE_OF_ROW, "T": LENGTH}, y, columns={"y": "accuracy"})
    facts = {name: "x" for name in ("measure", "set", "protocol", "evaluator", "stage")}
    chosen = Chosen(points, np.repeat(["S", "B", "L"], 5), facts)
    options = Options(scale="logit", starts=256)
    found = analyse(chosen, laws=[per_size()], options=options, draws=0)
    assert {item.reason for item in found.deltas.values()} == {"no upper end below 10"}
    assert "delta = – (not identified: no upper end below 10) on accuracy" in say(found)
    assert "is open: not every scale identifies delta" in say(found)
    table = parameter_table(found)
    estimates, ends = (list(table.columns[at].cells)[-3:] for at in (1, 2))
    assert estimates == ends == ["–"] * 3


def test_a_delta_of_a_refit_that_is_not_settled_is_none() -> None:
    """A step at the shortest length: k and gamma trade against each other."""
    y = LEVEL + 0.05 * (LENGTH < 20) + np.random.default_rng(1).normal(0, 0.002, 15)
    points = Points({"N": SIZE_OF_ROW, "T": LENGTH}, y)
    deltas = fit_deltas(fit(points, per_size(), Options(scale="logit", starts=256)))
    assert len(deltas) == 3
    for item in deltas.values():
        assert item.reason.startswith("the refit is not settled (ridge: k")


def test_what_is_saved_is_the_fit_itself(resize: dict[str, object]) -> None:
    text = json.dumps(resize["fit"])
    stored = Fit.from_json(text)  # its digest is checked
    points = make_points(paper_tables("v1 Table 11", "resize"))
    assert stored.points.digest() == points.digest() == resize["digest"]
    assert resize["digest"] in str(resize["checklist"])
    again = stored.predict(stored.points.x)
    assert np.abs(again - stored.points.y).mean() < 0.002
    assert len(re.findall(r"\d", str(resize["fit"]["params"]["gamma"]))) >= 8  # type: ignore[index]


def test_the_checklist_is_filled_in(resize: dict[str, dict[str, dict[str, str]]]) -> None:
    groups = resize["checklist"]
    assert len(groups) == 4
    assert all(answer for items in groups.values() for answer in items.values())
    fitting = groups["Fitting"]
    assert "Huber" in fitting["objective"] and "256, evenly spread" in fitting["starts"]
    assert groups["Training set-up"]["learning rates"].startswith("not recorded")
    assert "image_params" in groups["Hypothesis: the form"]["how N is counted"]
    assert "shortest T" in fitting["validation"]


def test_with_and_without_exclusions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {name: table for name, table in load_tables(MINI).items() if name != "pipelines"}
    save_tables(tables, tmp_path)
    why = "because: a broken node, by: A. B., date: 2026-01-31"
    entry = f"{{run: {tables['runs']['run'].iloc[0]}, {why}}}"
    (tmp_path / "exclusions.yaml").write_text(f"- {entry}\n")
    out = tmp_path / "fit.json"
    assert main([str(tmp_path), *QUICK, "--save", str(out)]) == 0
    rows = {row["choice"]: row for row in json.loads(out.read_text())["sensitivity"]}
    assert rows["as fitted"]["rows"] == 23 and rows["with the runs left out"]["rows"] == 24
    assert "1 run left out: a broken node" in capsys.readouterr().out


def test_a_count_that_only_some_runs_have_is_no_other_choice() -> None:
    tables = {name: table for name, table in load_tables(MINI).items() if name != "pipelines"}
    runs = tables["runs"]
    total = runs["total_params"].mask(runs["model"] == runs["model"].iloc[0])
    tables["runs"] = runs.assign(total_params=total)
    _, others, _ = choose_all(tables, read_arguments([str(MINI)]), {})
    assert list(others) == ["N = text_params", "N = nonembedding_params"]
    with pytest.raises(TableError, match=r"have no total_params \(N\)"):
        choose_all(tables, read_arguments([str(MINI), "--size", "total_params"]), {})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name one: a folder"),
        (["nowhere"], "no such table"),
        (["--published", "v1 Table 11"], "no reduction ''; allowed: 'v1 Table 11: random'"),
        ([str(MINI), "--where", "model"], "allowed: COLUMN=VALUE"),
        ([str(MINI), "--where", "model=B/16"], "no such run; there are: T32/8"),
        ([str(MINI), "--measure", "nonsense"], "no finished, annealed run has nonsense"),
        ([str(MINI), "--delta", "-1"], "must be positive"),
        ([str(MINI), "--law", "nonsense"], "law 'nonsense' is unknown; registered: primary"),
        ([str(MINI), "--register", "nowhere.py"], "--register nowhere.py: no such file"),
        ([str(MINI), "--register", str(MINI / "runs.csv")], "runs.csv: SyntaxError:"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_an_unsettled_law_is_told_without_point_estimates(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Under truncation, the floor of the additive form runs into its bound.
    assert main(["--published", "v1 Table 12: truncate", "--law", "additive", *QUICK]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "status: at bound: E (error left over) at 0" in out
    sentence = out[out.index("Over 15 runs") : out.index("held-out runs are missed")]
    assert "additive is shown, but bounded predicts better" in out
    assert "is not settled (at bound" in sentence and "alpha in [" in sentence
    assert "alpha = " not in sentence and "E = " not in sentence.partition(" in [")[2]
