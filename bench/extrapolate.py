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
    least = rows.groupby("split")["error"].transform("min")
    rows.insert(0, "reduction", reduction)
    rows.insert(0, "table", paper)
    return rows.assign(best=(rows["error"] == least).map({True: "best", False: ""}))


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
    wide = table.pivot_table(
        index="form", columns=["split", "table", "reduction"], values="error", sort=False
    )
    print(wide.T.round(2).to_string(na_rep=""))


if __name__ == "__main__":
    main()
