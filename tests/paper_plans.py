"""The plans of the recipes in sweeps/, without their data; each is made once."""

from __future__ import annotations

from functools import cache
from typing import Any

from make_data import ROOT

from clipa_scaling.plan import Plan, make_plan, plan_to_json
from clipa_scaling.sweepfile import load_sweep


@cache
def make(name: str) -> Plan:
    """A recipe's plan, without its data."""
    nowhere = ROOT / "no/such/folder"
    return make_plan(load_sweep(ROOT / f"sweeps/{name}.yaml", nowhere / "packs"), nowhere)


@cache
def plan(name: str) -> dict[str, Any]:
    """As `--plan --json` prints it."""
    return plan_to_json(make(name))


def specs(name: str, stage: str) -> list[dict[str, Any]]:
    return [cell["spec"] for cell in plan(name)["cells"] if cell["spec"]["stage"] == stage]
