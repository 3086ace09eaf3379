"""What a sweep file with a wrong `tune` block is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuned_sweep import HEAD, load, tuned_text

from clipa_scaling.yamlfile import SweepError

WRONG = {
    "over: [1e-3, 2e-3]": "tune.lr.over: 2 values make no parabola; allowed: 3 or more",
    "over: [1e-3, 0, 2e-3]": "tune.lr.over.1: 0.0 is not positive; allowed: above 0",
    "over: [1e-3, 4e-3, 2e-3]": "tune.lr.over.2: 0.002 does not rise above 0.004; allowed: rising",
    "over: [1e-3, 4e-3, x]": "lr='x' is not allowed; allowed: a value of type float",
    "per: [model]": "tune.lr.per.0: model is no axis; allowed: image_tokens",
    "at_samples: 2048": "2,048 is more than the 1,024 samples of T32/8 at image_tokens=1",
    "measure: acuracy": "tune.lr.measure: 'acuracy' is no measure; nearest: accuracy",
    "extend: -1": "tune.lr.extend: -1; allowed: 0 or more",
    "seeds: [0, 0]": "tune.lr.seeds.1: 0 stands twice; remove one",
    "transfer_samples: 100": "100 is not above at_samples; allowed: more than 250, or 0",
    "set: {lr: 1e-3}": "tune.lr.set.lr: is tuning's own to say; remove it",
    "until: 3": "tune.lr.until: unknown key; allowed: over",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_block_is_one_line_with_its_place(tmp_path: Path, wrong: str) -> None:
    body = {"over": "[1e-3, 2e-3, 4e-3]", "at_samples": "250", "per": "[image_tokens]"}
    key, _, value = wrong.partition(": ")
    lines = "".join(f"    {name}: {told}\n" for name, told in (body | {key: value}).items())
    with pytest.raises(SweepError) as caught:
        load(tmp_path, HEAD + "tune:\n  lr:\n" + lines)
    assert WRONG[wrong] in str(caught.value) and "\n" not in str(caught.value)
    number = int(str(caught.value).split(":")[1])
    assert (HEAD + "tune:\n  lr:\n" + lines).splitlines()[number - 1].strip().startswith(key)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("axes: {", "axes: {lr: [1e-3, 2e-3], ", "tune.lr: is an axis too"),
        ("{lr: {over", "{seed: {over", "tune.seed: is no field that can be tuned"),
        ("  evals:\n", "  evals: {}\n", "tune.lr: has nothing to judge by; add an evaluation set"),
        (", per: [image_tokens]", "", "tune.lr: has no per; allowed: over, at_samples, per"),
        ("name: tuned\n", "name: tuned\nstages: {tune: {kind: decay, parent: pretrain}}\n",
         "stages.tune: is the name of tuning's own runs"),
    ],
)  # fmt: skip
def test_a_block_that_does_not_fit_the_file_is_one_line(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    text = tuned_text().replace(before, after, 1)
    if "evals: {}" in after:
        text = "".join(line for line in text.splitlines(True) if "seed: " not in line)
    with pytest.raises(SweepError, match=said):
        load(tmp_path, text)
