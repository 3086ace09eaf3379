"""The model card of an exported run: how to load it, what it is, what it reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipa_scaling import schema
from clipa_scaling.rundir import RunDir, read_json
from clipa_scaling.spec import RunSpec, identity

HEAD = """\
---
library_name: open_clip
pipeline_tag: zero-shot-image-classification
tags: [clip]
---
# {run}

A CLIP of size {model}, trained with clipa_scaling on {samples:,} samples. With this folder's path:

```python
import open_clip

model, _, transform = open_clip.create_model_and_transforms("local-dir:FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:FOLDER")
```

Pictures of {size} px, texts of {text} tokens{changed}. The transform takes the shorter side
to {size} px and the centre square, bicubic.
"""


def write_card(spec: RunSpec, target: RunSpec, run: RunDir) -> str:
    """Markdown; `target` has the lengths that were exported."""
    own = (spec.image_size, spec.text_tokens)
    other = own != (target.image_size, target.text_tokens)
    changed = f"; trained with {own[0]} px and {own[1]} tokens" if other else ""
    head = HEAD.format(
        run=run.path.name,
        model=spec.model,
        samples=spec.samples,
        size=target.image_size,
        text=target.text_tokens,
        changed=changed,
    )
    return "\n".join([head, *results(spec, run), "", *fields_of(spec)]) + "\n"


def results(spec: RunSpec, run: RunDir) -> list[str]:
    """A table of the run's evaluations at its end, as it was trained."""
    rows = (read_json(run.evals) or {}).get("rows", [])
    last = [row for row in rows if row["samples"] == spec.samples]
    if not last:
        return ["## Results", "", "None: the run was evaluated on nothing."]
    lines = ["## Results", "", "| set | protocol | measure | value | n |", "|---|---|---|---|---|"]
    for row in last:
        cells = (row["set"], row["protocol"], row["name"], show(row["value"]), row["n"])
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def fields_of(spec: RunSpec) -> list[str]:
    """A table of what determined the weights, defaults included."""
    values: Mapping[str, Any] = {name: getattr(spec, name) for name in schema.SPEC}
    named = {**values, **identity(spec)}
    lines = ["## Spec", "", "| field | value |", "|---|---|"]
    shown = {name: show(value) for name, value in named.items() if value not in ("", ())}
    return lines + [f"| {name} | {value} |" for name, value in shown.items()]


def show(value: Any) -> str:
    """A value in a cell of a table."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str("unknown" if value is None else value).replace("|", "\\|")
