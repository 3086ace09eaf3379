"""What every form says of the papers' cells that it has not seen: `python bench/extrapolate.py`.

Held out of each reduction of arXiv:2305.07017, Tables 11 and 12, finetuned: the shortest length of
all sizes; the largest size; and the largest size at all short lengths, its full one known. Writes
bench/extrapolate.csv, a row for each form and both naive baselines; errors in points of accuracy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from clipa_scaling.laws import LAWS
from clipa_scaling.paperstudy import PAPERS, list_reductions, paper_tables
from clipa_scaling.points import choose_points
from clipa_scaling.rollout import rollout
from clipa_scaling.solve import Options
from clipa_scaling.tournament import adapt

OUT = Path(__file__).with_suffix(".csv")
SPLITS = ("shortest T", "shortest S", "largest N", "largest N at short T", "largest N at short S")
OPTIONS = Options(scale="logit", delta="noise")


def extrapolate(paper: str, reduction: str, draws: int) -> pd.DataFrame:
    """`rollout.rollout` of the cells of one reduction, errors in points, the best of each split."""
    chosen = choose_points(paper_tables(paper, reduction))
    forms = [form for form, why in (adapt(law, chosen.points) for law in LAWS.values()) if not why]
    rows = rollout(chosen.points, forms, OPTIONS, draws=draws)
    rows = rows[rows["split"].isin(SPLITS) & (rows["form"] != "")].copy()
    for name in ("error", "bias", "drop_error"):
        rows[name] = (100 * rows[name].astype(float)).round(2)
    rows["factor"] = rows["factor"].round(2)
    rows["covered"] = rows["covered"].astype(float).round(2)
    least = rows.groupby("split")["error"].transform("min")
    rows.insert(0, "reduction", reduction)
    rows.insert(0, "table", paper)
    return rows.assign(best=(rows["error"] == least).map({True: "best", False: ""}))


SPLIT_WORDS = {
    "shortest T": "shortest length",
    "shortest S": "shortest length",
    "largest N": "drops of the largest size",
    "largest N at short T": "largest size at short lengths",
    "largest N at short S": "largest size at short lengths",
}


def as_markdown(table: pd.DataFrame) -> str:
    """Errors in points, the best in bold; of the largest size alone those of its drops."""
    forms = list(dict.fromkeys(table["form"]))
    lines = ["| held out | table | " + " | ".join(forms) + " |", "|---" * (2 + len(forms)) + "|"]
    is_drop = table["split"] == "largest N"
    shown = table.assign(
        shown=table["error"].where(~is_drop, table["drop_error"]),
        words=table["split"].map(SPLIT_WORDS),
    )
    order = list(dict.fromkeys(SPLIT_WORDS.values()))
    shown = shown.sort_values("words", key=lambda words: words.map(order.index), kind="stable")
    for (words, paper, reduction), rows in shown.groupby(
        ["words", "table", "reduction"], sort=False
    ):
        errors = rows.set_index("form")["shown"]
        cells = [say(errors.get(form), errors.min()) for form in forms]
        number = str(paper).removeprefix("v1 Table ")
        lines.append(f"| {words} | {number}, {reduction} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def say(error: float | None, least: float) -> str:
    if error is None or pd.isna(error):
        return "–"
    return f"**{error:.2f}**" if error == least else f"{error:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=400)
    draws = parser.parse_args().draws
    found = [
        extrapolate(paper, reduction, draws)
        for paper in PAPERS
        for reduction in list_reductions(paper)
    ]
    table = pd.concat(found, ignore_index=True)
    table.to_csv(OUT, index=False)
    print(as_markdown(table))


if __name__ == "__main__":
    main()
