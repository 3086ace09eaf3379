"""Draw the figures of committed tables: python -m clipa_scaling.figures RESULTS_DIR…"""

from __future__ import annotations

import sys
from pathlib import Path

from clipa_scaling.exclusions import load_study
from clipa_scaling.figures.laws import save_laws
from clipa_scaling.figures.papers import save_papers
from clipa_scaling.figures.study import save_figures
from clipa_scaling.figures.verdict import save_verdicts
from clipa_scaling.paperstudy import paper_tables
from clipa_scaling.published import FOLDER
from clipa_scaling.schema import TableError


def draw(folder: Path) -> list[Path]:
    """The figures of a study and of its law, or of the papers in results/published."""
    drawn = folder / "figures"
    if folder.resolve() == FOLDER:
        resized = paper_tables("v1 Table 11", "resize")
        laws = save_laws(resized, "v1 Table 11, resize", drawn, "v1_table_11_resize")
        return save_papers(drawn) + laws
    tables, name = load_study(folder), folder.resolve().name
    return [
        *save_figures(tables, name, drawn),
        *save_verdicts(tables, drawn),
        *save_laws(tables, name, drawn),
    ]


def main(folders: list[str]) -> int:
    """0, or 1 at the first folder without tables."""
    for name in folders:
        try:
            paths = draw(Path(name))
        except (FileNotFoundError, TableError) as error:
            print(error, file=sys.stderr)
            return 1
        for path in paths:
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
