"""Whether a decay run goes on as its parent does, and where it leaves it."""

from __future__ import annotations

from clipa_scaling.spec import RunSpec, SpecError, identity


def check_branch(spec: RunSpec, trunk: RunSpec) -> int:
    """The sample at which a decay run leaves its trunk; SpecError where it cannot be its branch."""
    if trunk.kind == "decay" or trunk.schedule == "cosine":
        message = f"kind=decay has no steady rate to leave: its parent's is {trunk.schedule}"
        raise SpecError("schedule", f"{message}; allowed: a parent with schedule: constant or wsd")
    own = {"kind", "parent", "samples", "schedule", "decay_samples", "decay_shape"}
    own.add("image_position_change")  # of weights started from: resolve() fills it in, to no effect
    mine, theirs = identity(spec), identity(trunk)
    for name in sorted((mine.keys() | theirs.keys()) - own):
        if mine.get(name) != theirs.get(name):
            message = f"{name} differs from the parent's, whose training a decay stage goes on with"
            raise SpecError(name, f"{message}; leave it out")
    leaves, last = spec.samples - spec.decay_samples, trunk.samples - trunk.decay_samples
    if leaves <= 0:
        message = (
            f"decay_samples={spec.decay_samples} is all of samples, so nothing is the parent's"
        )
        raise SpecError("decay_samples", f"{message}; allowed: below {spec.samples}")
    if leaves > last:
        message = f"samples={spec.samples} leave the parent at {leaves}, past its steady {last}"
        most = last + spec.decay_samples
        raise SpecError("samples", f"{message}; allowed: up to {most}")
    return leaves
