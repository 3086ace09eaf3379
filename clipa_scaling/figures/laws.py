"""Tables -> the figures of the law fitted to them, if one can be: `fits` and `reach`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from clipa_scaling.analysis import Analysis, analyse
from clipa_scaling.bootstrap import bootstrap
from clipa_scaling.figures import fits, reach
from clipa_scaling.figures.style import save_figure
from clipa_scaling.fit import choose_all, read_arguments
from clipa_scaling.lawform import LawError
from clipa_scaling.profile import profile
from clipa_scaling.rollout import predict_splits
from clipa_scaling.schema import TableError
from clipa_scaling.solve import Options
from clipa_scaling.tournament import BASELINE, FEW_KEPT, FEW_STARTS

DRAWS = 100  # what a pair of parameters needs to show a ridge
# Seconds instead of minutes, and the same minima on results/: figures are drawn often.
QUICK = Options(scale="logit", starts=FEW_STARTS, keep=FEW_KEPT)


def save_laws(
    tables: dict[str, pd.DataFrame], name: str, folder: Path, stem: str = "law"
) -> list[Path]:
    """Fit the study's law and draw it; the paths of the PNGs, none where there is no law.

    The log-linear baseline alone is none. Takes up to half a minute of one core.
    """
    try:
        chosen, others, exclusions = choose_all(tables, read_arguments([]), {})
        found = analyse(chosen, options=QUICK, draws=0, others=others, exclusions=exclusions)
    except (LawError, TableError):
        return []
    if found.fit is None or found.fit.law.name == BASELINE:
        return []
    return [
        save_figure(figure, folder / f"{stem}_{kind}")
        for kind, figure in draw_laws(found, name).items()
    ]


def draw_laws(found: Analysis, title: str) -> dict[str, Figure]:
    """Every figure of an analysis, by name. Errors: ValueError where it has no fit."""
    fit, chosen = found.fit, found.chosen
    if fit is None:
        raise LawError(f"nothing to draw: {found.why}")
    held = predict_splits(
        fit.points, fit.form, replace(fit.options, starts=FEW_STARTS, keep=FEW_KEPT)
    )
    known = [name for name, item in found.intervals.items() if item.estimate == item.estimate]
    drawn = {
        "predicted": fits.predicted_vs_actual(fit, chosen.models, held, title),
        "residuals": fits.residuals(fit, chosen.models, title),
        "draws": fits.pairs(bootstrap(fit, DRAWS), title),
        "profiles": fits.profiles([profile(fit, name) for name in known], fit.law, title),
        "rollout": reach.rollout_errors(found.tournament.rollouts, fit.points, title),
        "sensitivity": fits.forest(found.sensitivity, found.intervals, title),
    }
    if "C" in fit.points.x:
        drawn["frontier"] = reach.frontier(fit.points, title)
    return drawn
