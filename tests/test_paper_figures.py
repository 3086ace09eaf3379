"""The papers' figures show the papers' numbers; their CSVs are what was drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_data import ROOT
from matplotlib.figure import Figure
from matplotlib.text import Text

from clipa_scaling.figures import papers
from clipa_scaling.figures.plotted import read_plotted
from clipa_scaling.figures.style import PAGE, SMALL, save_figure
from clipa_scaling.published import FOLDER


def points(figure: Figure, **where: object) -> list[tuple[float, float]]:
    rows = read_plotted(figure)
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return list(zip(rows["x"].tolist(), rows["y"].tolist(), strict=True))


def test_figure_4_has_table_11s_drops() -> None:
    """arXiv:2305.07017, Table 11, resize: S/16 from 56.7 to 56.0, 54.7, 53.9, 50.5."""
    drawn = points(papers.figure_4(), panel="resize", series="S/16")
    assert drawn == [(16, 6.2), (36, 2.8), (49, 2.0), (100, 0.7), (196, 0.0)]
    grid = points(papers.figure_4(), panel="grid", series="L/16")
    assert [x for x, _ in grid] == [49, 98, 196], "not tried below 49"


def test_figure_7_starts_from_32_tokens_of_the_same_way() -> None:
    """Table 12, syntax: L/16 68.3 at 32, 68.8, 69.0, 68.4, 66.3 at 16, 8, 6, 4."""
    drawn = points(papers.figure_7(), panel="syntax", series="L/16")
    assert drawn == [(4, 2.0), (6, -0.1), (8, -0.7), (16, -0.5), (32, 0.0)]


def test_figure_8_has_digitised_and_counted_compute() -> None:
    figure = papers.figure_8()
    digitised = points(figure, series="H/14")
    counted = points(figure, series="H/14, counted here")
    assert len(points(figure, series="L/16")) == 5 and len(digitised) == 3
    # Printed labels: 72.8 at 0.876e11 GFLOPs x samples (arXiv:2305.07017, Figure 8).
    assert max(digitised) == pytest.approx((0.8759e20, 0.728), abs=2e-3)
    for (printed, _), (ours, _) in zip(sorted(digitised), sorted(counted), strict=True):
        assert ours / printed == pytest.approx(1.03, abs=0.015), "docs/compute.md: 2 to 4 % above"


def test_figures_9_and_10_are_table_11_again() -> None:
    sizes = points(papers.figure_9(), series="16")
    assert [y for _, y in sizes] == [6.2, 4.3, 3.0]
    assert [round(x / 1e6) for x, _ in sizes] == [22, 86, 304]
    seen = points(papers.figure_10(), series="B/16")
    assert seen[-1] == (196 * 2.56e9, 0.642)


def test_the_second_papers_figures() -> None:
    """arXiv:2306.15658: Figure 1 has 81.1 and 81.8 for H-14, Figure 2 1.81 for S/16 at 50 %."""
    bars = [round(y, 3) for _, y in points(papers.figure_1_v2(), series="CLIPA-v2")]
    assert bars == [0.803, 0.811, 0.818]
    masks = dict(points(papers.figure_2_v2(), series="S/16"))
    assert masks[50] == 1.81 and masks[100] == 0
    assert dict(points(papers.figure_2_v2(), series="H/14"))[80] == -0.11, "better than unmasked"


def test_cost_has_all_three_axes() -> None:
    figure = papers.cost_vs_accuracy()
    rows = read_plotted(figure)
    assert rows["x_is"].nunique() == 3
    best = rows[(rows["series"] == "OpenCLIP") & rows["x_is"].str.startswith("Dollars")]
    assert best["x"].max() == 366_105


@pytest.mark.parametrize("name", papers.PAPERS)
def test_committed_csvs_are_what_is_drawn(name: str, tmp_path: Path) -> None:
    committed = ROOT / "results" / "published" / "figures" / f"{name}.csv"
    read_plotted(papers.PAPERS[name](FOLDER)).to_csv(
        tmp_path / "now.csv", index=False, float_format="%.10g"
    )
    assert committed.read_text() == (tmp_path / "now.csv").read_text(), "make figures"


@pytest.mark.parametrize("name", papers.PAPERS)
def test_letters_are_large_enough_in_print_and_stay_on_the_page(name: str) -> None:
    figure = papers.PAPERS[name](FOLDER)
    figure.draw_without_rendering()
    assert figure.get_figwidth() <= PAGE, "print would shrink it"
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        assert float(text.get_fontsize()) >= SMALL, text.get_text()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box is not None
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= -0.01, "cut by the page's edge"


def test_lines_differ_without_colour() -> None:
    for axes in papers.figure_4().axes:
        styles = {(line.get_marker(), line.get_linestyle()) for line in axes.lines}
        assert len(styles) == len(axes.lines) == 3
    assert [bar.get_hatch() for bar in papers.figure_1_v2().axes[0].patches[:6:3]] == ["", "//"]


def test_titles_name_the_paper_and_take_a_dollar_as_it_is() -> None:
    for draw in papers.PAPERS.values():
        assert "arXiv:230" in draw(FOLDER).get_suptitle()
    title = papers.cost_vs_accuracy()._suptitle  # type: ignore[attr-defined]
    assert not title.get_parse_math() and "$1.14" in title.get_text()


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    for stem in (tmp_path / "first", tmp_path / "again"):
        save_figure(papers.figure_9(), stem)
    for kind in ("png", "pdf", "csv"):
        first, again = (tmp_path / f"{stem}.{kind}" for stem in ("first", "again"))
        assert first.read_bytes() == again.read_bytes(), f"{kind}s differ"
