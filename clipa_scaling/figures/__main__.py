"""Draw the figures of committed tables: python -m clipa_scaling.figures RESULTS_DIR…"""

from __future__ import annotations

import sys
from pathlib import Path

from clipa_scaling.collect import load_tables
from clipa_scaling.figures.papers import save_papers
from clipa_scaling.figures.study import save_figures
from clipa_scaling.figures.verdict import save_verdicts
from clipa_scaling.published import FOLDER
from clipa_scaling.schema import TableError


def draw(folder: Path) -> list[Path]:
    """The figures of a study, or of the papers in results/published."""
    if folder.resolve() == FOLDER:
        return save_papers(folder / "figures")
    tables, figures = load_tables(folder), folder / "figures"
    return [
        *save_figures(tables, folder.resolve().name, figures),
        *save_verdicts(tables, figures),
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
