"""Tables and fits -> one matplotlib Figure per function; nothing is fitted here.

python -m clipa_scaling.figures RESULTS_DIR… draws the figures of committed tables again.
"""

from __future__ import annotations

from clipa_scaling.figures.study import (
    accuracy_vs_image_tokens,
    accuracy_vs_samples,
    cost_against_earlier,
    save_figures,
)
from clipa_scaling.figures.style import COLOURS, MARKERS, save_figure

__all__ = [
    "COLOURS",
    "MARKERS",
    "accuracy_vs_image_tokens",
    "accuracy_vs_samples",
    "cost_against_earlier",
    "save_figure",
    "save_figures",
]
