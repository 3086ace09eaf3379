"""One law under every choice that a paper makes silently: a row each, so that all can be seen.

After arXiv:2502.18969, section 5, where such choices move exponents more than their printed errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from clipa_scaling.fitted import SCALES
from clipa_scaling.lawform import LawError
from clipa_scaling.lawterms import AMPLITUDES
from clipa_scaling.points import LOSS
from clipa_scaling.solve import Fit, Options, Points, fit

UNITS = {*AMPLITUDES.values(), "k", "a", "d"}  # of variables: another N moves them anyhow
LEVELS = re.compile(r"c\d+")  # of single sizes
WORST = 0.05  # of the rows are dropped
BASE = "as fitted"


def find_keys(names: Sequence[str]) -> list[str]:
    """The parameters that mean the same whatever a variable's unit: exponents, floors, kappa."""
    kept = [name for name in names if name not in UNITS and not LEVELS.fullmatch(name)]
    return kept or list(names)


def vary(
    found: Fit, models: np.ndarray | None, others: Mapping[str, Points]
) -> Iterator[tuple[str, Points, Options]]:
    """Every choice: its name, points and options."""
    points, options = found.points, found.options
    default: Literal["noise"] | None = None if points.columns.get("y") == LOSS else "noise"
    yield BASE, points, options
    if np.isfinite(found.delta):
        for told, factor in (("delta x 10", 10.0), ("delta / 10", 0.1)):
            yield told, points, replace(options, delta=found.delta * factor)
    yield "least squares", points, replace(options, delta=np.inf)
    for scale in SCALES:
        bounded = scale != "logit" or ((points.y > 0) & (points.y < 1)).all()
        if scale != options.scale and bounded:
            yield f"scale {scale}", points, replace(options, scale=scale, delta=default)
    if points.noise is not None:
        yield "all rows alike", replace(points, noise=None), options
    worst = max(1, round(WORST * len(points)))
    order = np.argsort(-np.abs(found.residuals))
    yield (
        f"less {worst} worst residual{'s' * (worst > 1)}",
        points.take(np.sort(order[worst:])),
        options,
    )
    for name, other in others.items():
        yield name, other, options
    if models is not None and len(set(models)) > 1:
        for model in dict.fromkeys(models):
            yield f"without {model}", points.take(models != model), options


def sensitivity(
    found: Fit, models: np.ndarray | None = None, others: Mapping[str, Points] | None = None
) -> pd.DataFrame:
    """The key parameters under each choice: delta, scale, rows, variables.

    models: of each row, to leave each out. others: name -> the same study chosen otherwise, as with
    another N, or with what exclusions leave out. Columns: `choice`, `rows`, `status`, parameters.
    """
    keys = find_keys(found.law.names)
    rows = []
    for name, points, options in vary(found, models, others or {}):
        row: dict[str, object] = {"choice": name, "rows": len(points)}
        try:
            again = found if name == BASE else fit(points, found.form, options)
        except LawError as error:
            rows.append({**row, "status": str(error)})
            continue
        told = again.status.kind if again.status.kind != "not identified" else str(again.status)
        values = {key: again.params.get(key, float("nan")) for key in keys}
        rows.append({**row, "status": told, **values})
    return pd.DataFrame(rows, columns=["choice", "rows", "status", *keys])


def find_spans(table: pd.DataFrame) -> pd.DataFrame:
    """The least and largest value of each parameter over all choices that gave one."""
    keys = list(table.columns[3:])
    return table[keys].astype(float).agg(["min", "max"])
