"""Why a plan may not be launched: no data, over budget, changed defaults, no state to leave."""

from __future__ import annotations

from pathlib import Path

from clipa_scaling import rundir
from clipa_scaling.extras import MissingPackage, check_loggers, check_tokenizers
from clipa_scaling.keptplan import changed_defaults
from clipa_scaling.plan import Plan, PlanRow, over_budget
from clipa_scaling.rundir import RunDir
from clipa_scaling.yamlfile import SweepError


def refuse(plan: Plan, runs: Path, accept_changed: bool, here: bool = True) -> None:
    """Raise SweepError where nothing may be launched: no data, over budget, changed defaults."""
    if plan.sweep.missing:
        raise SweepError(plan.sweep.missing)
    try:
        check_loggers(row.planned.spec for row in plan.left)
        check_tokenizers(row.planned.spec for row in plan.left)
    except MissingPackage as error:
        raise SweepError(f"{plan.sweep.path}: {error}") from None
    excess = over_budget(plan)
    if excess:
        raise SweepError(excess)
    for row in plan.left:
        spec = row.planned.spec
        if spec.kind == "decay":
            check_trunk(plan, row, runs)
        if here and spec.gpus > 1:
            raise SweepError(
                f"{plan.sweep.path}: gpus={spec.gpus}: a run here uses one device; allowed: 1, or "
                "a cluster"
            )
    changed = None if accept_changed else changed_defaults(plan, runs)
    if changed:
        raise SweepError(changed)


def check_trunk(plan: Plan, row: PlanRow, runs: Path) -> None:
    """SweepError for a decay run whose parent is done and kept no state that it could leave."""
    spec = row.planned.spec
    trunk = RunDir(runs / spec.parent)
    leaves = spec.samples - spec.decay_samples
    kept = trunk.kept_states()
    if trunk.done.exists() and not any(samples <= leaves for samples in kept):
        listed = ", ".join(map(str, kept)) or "none"
        raise SweepError(
            f"{plan.sweep.path}: stage {spec.stage}: {spec.parent} is done and kept no state at "
            f"sample {leaves} or before (kept: {listed}); plan decay stages before their parent is "
            "trained, remove its folder, or give another seed"
        )


def check_batches(plan: Plan) -> None:
    """Raise SweepError where a batch would hold a pair twice, now that the pairs are counted."""
    for row in plan.left:
        spec = row.planned.spec
        if spec.kind == "evaluate":
            continue
        head = rundir.read_json(Path(spec.pack) / "pack.json")
        if head is not None and spec.batch_size > head["pairs"]:
            raise SweepError(
                f"{plan.sweep.path}: batch_size={spec.batch_size} is more than the "
                f"{head['pairs']:,} pairs of the data; allowed: up to that, so that no batch "
                "holds a pair twice"
            )
