"""What one run is: rules, identity, golden ids."""

import re
from dataclasses import fields, replace
from typing import Any

import pytest

from clipa_scaling import schema
from clipa_scaling.resolve import resolve
from clipa_scaling.spec import (
    RunSpec,
    SpecError,
    check_type,
    identity,
    legacy_values,
    run_id,
    spec_from_json,
    spec_to_json,
)

BASE: dict[str, Any] = {
    "model": "B/16",
    "image_tokens": 49,
    "samples": 1000,
    "batch_size": 64,
    "lr": 1e-3,
    "data_fingerprint": "0123456789abcdef",
    "store_px": 256,
}


def test_derived_fields_are_filled_in_and_samples_are_whole_steps() -> None:
    spec = resolve(BASE)
    assert (spec.image_size, spec.position_tokens, spec.eval_image_tokens) == (112, 49, 49)
    assert (spec.samples, spec.steps) == (1024, 16)
    masked = resolve(BASE | {"image_reduction": "random", "image_tokens": 37})
    assert (masked.image_size, masked.position_tokens, masked.eval_image_tokens) == (224, 196, 196)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_tokens": 37}, "image_tokens=37 is no square, as resize needs; nearest: 36, 49"),
        ({"image_tokens": 0}, "image_tokens=0 is below 1; nearest: 1"),
        (
            {"image_size": 128},
            "image_size=128 does not give image_tokens=49 at patch 16; allowed: 112, or leave it "
            "out",
        ),
        (
            {"image_reduction": "random", "image_tokens": 197},
            "image_tokens=197 is more than image_size 224 at patch 16 has; allowed: 1 to 196",
        ),
        (
            {"image_reduction": "random", "image_size": 230},
            "image_size=230 is no multiple of patch 16; nearest: 224",
        ),
        ({"text_tokens": 2}, "text_tokens=2 is out of range; allowed: 3 to 77"),
        ({"lr": 0.0}, "lr=0.0 is not positive; allowed: above 0"),
        ({"seed": -1}, "seed=-1 is negative; allowed: 0 or more"),
        (
            {"wandb": "team/"},
            "wandb='team/' is not allowed; allowed: project or entity/project, of letters, "
            "digits, spaces, _, - and .",
        ),
        ({"gpus": 3}, "gpus=3 does not divide batch_size=64; nearest below: 2"),
        ({"gpus": 65}, "gpus=65 does not divide batch_size=64; nearest below: 64"),
        ({"warmup_samples": 2000}, "warmup_samples=2000 is more than samples; allowed: 0 to 1000"),
    ],
)
def test_a_broken_rule_says_value_rule_and_way_out(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(BASE | change)
    assert str(caught.value) == message


def test_a_missing_field_says_where_to_set_it() -> None:
    with pytest.raises(SpecError, match=r"^lr is not set; set it under fixed:, axes: or a rule$"):
        resolve({name: value for name, value in BASE.items() if name != "lr"})


def test_types_are_checked_and_whole_floats_are_integers() -> None:
    assert check_type("samples", 4e9) == 4_000_000_000
    assert check_type("lr", 1) == 1.0
    with pytest.raises(SpecError, match=r"samples='many' is not allowed; allowed: .* type int"):
        check_type("samples", "many")
    with pytest.raises(SpecError, match=r"image_reduction='grids'.*allowed: resize, random, grid"):
        check_type("image_reduction", "grids")
    assert check_type("fresh_weights", ["visual.proj"]) == ("visual.proj",)
    with pytest.raises(SpecError, match=r"lr=nan is not finite"):
        check_type("lr", float("nan"))


GOLDEN = {
    "pretrain-B-16-i49-t32-1.02K-s0-9173461aa5": {},
    "pretrain-B-16-i37-t16-1.02K-s3-4c89037276": {
        "image_reduction": "random",
        "image_tokens": 37,
        "text_tokens": 16,
        "seed": 3,
    },
}


@pytest.mark.parametrize("golden", GOLDEN)
def test_ids_stay_what_they_were(golden: str) -> None:
    """To accept a change: every finished run elsewhere gets a new id, so first give the new field
    a `legacy` value in its metadata; only if no run may keep its id, copy the printed one here."""
    assert run_id(resolve(BASE | GOLDEN[golden])) == golden


def test_what_does_not_determine_the_weights_is_no_part_of_the_id() -> None:
    spec = resolve(BASE)
    beside: dict[str, Any] = {
        "gpus": 8,
        "grad_checkpointing": True,
        "eval_every_samples": 64,
        "pack": "/elsewhere",
        "tensorboard": True,
        "wandb": "team/demo",
    }
    beside |= {"checkpoint_every_samples": 64, "log_every_samples": 64, "eval_batch": 32}
    assert run_id(replace(spec, **beside)) == run_id(spec)


@pytest.mark.parametrize("name", sorted(legacy_values()))
def test_every_field_of_the_identity_moves_the_id(name: str) -> None:
    spec = resolve(BASE)
    value = getattr(spec, name)
    other: Any = ("x",) if value == () else value + ("x" if isinstance(value, str) else 1)
    changed: dict[str, Any] = {name: other}
    assert run_id(replace(spec, **changed)) != run_id(spec)


def test_every_identity_field_is_a_column_and_the_other_way_round() -> None:
    assert set(legacy_values()) == set(schema.SPEC)


def test_a_field_added_later_is_left_out_under_its_legacy_value() -> None:
    assert "schedule" in identity(resolve(BASE)) and "objective" not in identity(resolve(BASE))
    assert identity(resolve(BASE | {"grad_clip": 1.0}))["grad_clip"] == 1.0


def test_json_keeps_a_spec_and_refuses_another_versions() -> None:
    spec = resolve(BASE)
    assert spec_from_json(spec_to_json(spec)) == spec
    with pytest.raises(ValueError, match=r"unknown fields \['new'\]; written by another version"):
        spec_from_json(spec_to_json(spec) | {"new": 1})


def test_every_field_is_read_somewhere() -> None:
    from pathlib import Path

    import clipa_scaling

    package = Path(clipa_scaling.__file__).parent
    text = "".join(path.read_text() for path in package.rglob("*.py") if path.name != "schema.py")
    descriptive = {"tokenizer", "pixels", "schedule", "text_reduction", "parent"}  # one value yet
    for item in fields(RunSpec):
        reads = re.search(rf"\.{item.name}\b", text)
        assert reads or item.name in descriptive, f"{item.name} is never read"


def test_fields_without_effect_do_not_tell_runs_apart() -> None:
    plain = run_id(resolve(BASE))
    for idle in (
        {"color_jitter_share": 0.5},
        {"decay_shape": "linear"},
        {"text_position_change": "extend"},
    ):
        assert run_id(resolve(BASE | idle)) == plain
    jittered = BASE | {"color_jitter": 0.3}
    assert run_id(resolve(jittered | {"color_jitter_share": 0.5})) != run_id(resolve(jittered))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"parent": "p", "kind": "finetune", "image_start": "w.pt"},
            "image_start=w.pt has no meaning beside a parent, whose weights a stage takes; "
            "allowed: in the first stage",
        ),
        (
            {"fresh_weights": ("visual.proj",)},
            "fresh_weights is for runs that start from other weights; leave it out",
        ),
        ({"micro_batch": 24}, "micro_batch=24 does not divide the 64 pairs of a device; nearest "
         "below: 16"),
        ({"decay_samples": 64}, "decay_samples=64 needs schedule=wsd; set it, or leave this out"),
        (
            {"model": "ConvNeXt-T/16", "image_reduction": "grid"},
            "image_reduction=grid is for ViTs, and ConvNeXt-T/16 is none; allowed: resize",
        ),
    ],
)  # fmt: skip
def test_fields_that_do_not_fit_each_other(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(BASE | change)
    assert str(caught.value) == message
