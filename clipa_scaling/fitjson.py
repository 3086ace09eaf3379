"""An analysis as JSON: everything that a fit of a study found, for programs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from clipa_scaling.analysis import Analysis, say, tell_better
from clipa_scaling.checklist import as_json
from clipa_scaling.profile import Interval


def to_json(analysis: Analysis) -> str:
    """17 digits; null is unknown. The fit holds its rows and their sha256 (`Fit.from_json`)."""
    held: dict[str, Any] = {
        "sentence": say(analysis),
        "law_asked": analysis.asked,
        "law_asked_refused_because": analysis.why or None,
        "facts": dict(analysis.chosen.facts),
        "exclusions": analysis.exclusions,
        "digest": analysis.chosen.points.digest(),
        "fit": None if analysis.fit is None else json.loads(analysis.fit.to_json()),
        "intervals": {name: interval_json(item) for name, item in analysis.intervals.items()},
        "delta_by_scale": {name: interval_json(item) for name, item in analysis.deltas.items()},
        "tournament": records(analysis.tournament.table()),
        "warnings": [
            text for text in (*analysis.tournament.warnings, tell_better(analysis)) if text
        ],
        "rollouts": records(analysis.tournament.rollouts),
        "sensitivity": records(analysis.sensitivity),
        "checklist": as_json(analysis.checklist),
    }
    return json.dumps(held, indent=1, allow_nan=False) + "\n"


def interval_json(item: Interval) -> dict[str, Any]:
    ends = {"estimate": item.estimate, "low": item.low, "high": item.high}
    return {**{key: plain(value) for key, value in ends.items()}, "reason": item.reason or None}


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): plain(value) for name, value in row.items()} for row in table.to_dict("records")
    ]


def plain(value: Any) -> Any:
    """JSON has no word for what is not finite: infinite in words, unknown is null."""
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return None
        return float(value) if np.isfinite(value) else str(float(value))
    return value.item() if isinstance(value, np.generic) else value
