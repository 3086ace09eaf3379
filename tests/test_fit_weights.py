"""Another model's weights: tables at other lengths, what must fit, what may stay fresh."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import resize_pos_embed, resize_text_pos_embed

from clipa_scaling.models import load_model
from clipa_scaling.train.ending import Refused
from clipa_scaling.train.fit_weights import fit_weights
from clipa_scaling.train.model import Build, make_model
from clipa_scaling.train.positions import IMAGE_TABLE, TEXT_TABLE, treatments

Weights = dict[str, torch.Tensor]


def make(side: int, text_tokens: int = 8, seed: int = 0, **options: Any) -> open_clip.CLIP:
    return make_model(load_model("T32/8"), 8 * side, text_tokens, 1000, seed, Build(**options))


def copy(model: open_clip.CLIP) -> Weights:
    return {name: value.clone() for name, value in model.state_dict().items()}


def fit(model: open_clip.CLIP, theirs: Weights, **how: Any) -> Weights:
    """The model's weights after the fit, itself left as it was before."""
    initial = copy(model)
    fit_weights(model, theirs, "it", **how)
    after = copy(model)
    model.load_state_dict(initial)
    return after


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_interpolate_is_open_clips_own(side: int) -> None:
    theirs, model = copy(make(3, 8)), make(side, 12, seed=1)
    want = dict(theirs)
    resize_pos_embed(want, model)
    resize_text_pos_embed(want, model)
    after = fit(model, theirs)
    assert after.keys() == want.keys()
    assert all(torch.equal(after[name], want[name]) for name in want)


def test_extend_keeps_the_corner_and_the_prefix_and_leaves_the_rest_fresh() -> None:
    theirs, model = copy(make(2, 8)), make(3, 32, seed=1)
    fresh = copy(model)
    after = fit(model, theirs, image_change="extend", text_change="extend")
    image = after[IMAGE_TABLE]
    old, own, new = (
        t[1:].view(side, side, 32)
        for t, side in (
            (theirs[IMAGE_TABLE], 2),
            (fresh[IMAGE_TABLE], 3),
            (image, 3),
        )
    )
    assert torch.equal(image[0], theirs[IMAGE_TABLE][0])
    assert torch.equal(new[:2, :2], old)
    assert torch.equal(new[2], own[2]) and torch.equal(new[:, 2], own[:, 2])
    assert torch.equal(after[TEXT_TABLE][:8], theirs[TEXT_TABLE])
    assert torch.equal(after[TEXT_TABLE][8:], fresh[TEXT_TABLE][8:])

    back = fit(make(1, 4, seed=2), after, image_change="extend", text_change="extend")
    assert torch.equal(back[IMAGE_TABLE], image[:2])
    assert torch.equal(back[TEXT_TABLE], theirs[TEXT_TABLE][:4])


@pytest.mark.parametrize("ours", ["learned", "sincos"])
@pytest.mark.parametrize("parents", ["learned", "sincos"])
def test_every_change_works_between_learned_and_fixed_positions(parents: str, ours: str) -> None:
    theirs = copy(make(2, image_position=parents))
    model, codes = make(5, seed=1, image_position=ours), make(5, image_position="sincos")
    tables = {
        change: fit(model, theirs, image_change=change)[IMAGE_TABLE]
        for change in ("interpolate", "recompute", "extend")
    }
    assert torch.equal(tables["recompute"], codes.state_dict()[IMAGE_TABLE])
    both = (parents, ours) == ("sincos", "sincos")
    # A small grid's codes are the corner of a large one's: this is how CLIPA's JAX code goes on.
    assert torch.equal(tables["extend"], tables["recompute"]) == both
    assert not torch.equal(tables["interpolate"], tables["extend"])
    kinds = treatments(model, theirs)
    learned = [("interpolate", "interpolate"), ("extend", "interpolate")]
    recompute = ("recompute", "interpolate")
    assert (
        kinds
        == {
            ("learned", "learned"): learned,
            ("learned", "sincos"): [learned[0], recompute, learned[1]],
            ("sincos", "learned"): [learned[0], recompute, learned[1]],
            ("sincos", "sincos"): [learned[0], recompute],
        }[parents, ours]
    )


def test_only_what_changes_its_length_is_treated_in_several_ways() -> None:
    theirs = copy(make(2, 8))
    assert treatments(make(2, 8), theirs) == [("interpolate", "interpolate")]
    texts = [("interpolate", change) for change in ("interpolate", "extend")]
    assert treatments(make(2, 32), theirs) == texts
    assert treatments(make(3, 4), theirs) == [
        (image, text) for image in ("interpolate", "extend") for text in ("interpolate", "extend")
    ]
    net = make_model(load_model("ConvNeXt-A/16"), 64, 8, 1000, 0)
    larger = make_model(load_model("ConvNeXt-A/16"), 96, 32, 1000, 1)
    assert treatments(larger, copy(net)) == texts
    assert all(
        torch.equal(value, net.state_dict()[name])
        for name, value in fit(larger, copy(net)).items()
        if name != TEXT_TABLE
    )


def test_a_chain_of_lengths_keeps_every_other_weight() -> None:
    """As 84 to 224 to 336 px at a patch of 14: 6, 16 and 24 patches a side; text 8 to 32."""
    weights = first = copy(make(6, 8))
    for side, text_tokens in ((16, 32), (24, 32)):
        weights = fit(make(side, text_tokens, seed=side), weights, text_change="extend")
        assert len(weights[IMAGE_TABLE]) == side**2 + 1
    for name, value in first.items():
        if name not in (IMAGE_TABLE, TEXT_TABLE):
            assert torch.equal(weights[name], value), name
    assert torch.equal(weights[IMAGE_TABLE][0], first[IMAGE_TABLE][0])
    assert torch.equal(weights[TEXT_TABLE][:8], first[TEXT_TABLE])


def test_treatments_can_be_tried_in_turn_on_one_model() -> None:
    theirs, model = copy(make(2, 8)), make(3, 32, seed=1)
    initial = copy(model)
    want = {
        pair: fit(make(3, 32, seed=1), theirs, image_change=pair[0], text_change=pair[1])
        for pair in treatments(model, theirs)
    }
    assert len(want) == 4
    for pair in [*want, *reversed(want)]:
        changes = {"image_change": pair[0], "text_change": pair[1]}
        fit_weights(model, theirs, "it", initial=initial, **changes)
        assert treatments(model, theirs, initial) == list(want)
        after = model.state_dict()
        assert all(torch.equal(after[name], want[pair][name]) for name in after)


def test_weights_named_fresh_may_be_missing_other_or_unexpected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    theirs, model = copy(make(3, 8)), make(3, 8, seed=1)
    fresh = copy(model)
    del theirs["text_projection"]
    theirs["token_embedding.weight"] = torch.zeros(7, 32)
    theirs |= {f"text_decoder.{number}": torch.zeros(1) for number in range(12)}
    named = ["text_projection", "token_embedding.weight", "text_decoder.*", "visual.proj"]
    after = fit(model, theirs, fresh_weights=named)
    for name in ("text_projection", "token_embedding.weight"):
        assert torch.equal(after[name], fresh[name])
    assert torch.equal(after["visual.proj"], theirs["visual.proj"]), "named, but it fits"
    said = capsys.readouterr().out
    assert "; image positions 9 as they were; text positions 8 as they were; " in said
    assert "; fresh: text_projection, token_embedding.weight; dropped: text_decoder.0, " in said
    assert said.endswith(" and 4 more\n")


def test_a_table_named_fresh_stays_fresh_at_another_length() -> None:
    theirs, model = copy(make(2, 8)), make(3, 8, seed=1)
    after = fit(model, theirs, fresh_weights=[IMAGE_TABLE])
    assert torch.equal(after[IMAGE_TABLE], model.state_dict()[IMAGE_TABLE])
    assert torch.equal(
        fit(make(2), theirs, fresh_weights=[IMAGE_TABLE])[IMAGE_TABLE], theirs[IMAGE_TABLE]
    )


def test_the_log_says_how_positions_were_treated(capsys: pytest.CaptureFixture[str]) -> None:
    fit(make(3, 32), copy(make(2, 8)), image_change="recompute", text_change="extend")
    count = len(make(3).state_dict())
    assert capsys.readouterr().out == (
        f"it: {count} weights loaded; image positions 4 to 9: recompute; text positions 8 to 32: "
        "extend; fresh: none; dropped: none\n"
    )


@pytest.mark.parametrize("name", ["text_projektion", "visual.conv2*", "visual"])
def test_a_name_that_names_no_weight_is_refused(name: str) -> None:
    with pytest.raises(Refused, match=r"fresh_weights=.* names no weight; allowed: a weight's"):
        fit(make(2), copy(make(2)), fresh_weights=[name])


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"ln_pre": False}, r"visual\.ln_pre\.bias is missing"),
        ({"logit_bias_init": -10.0}, "logit_bias is unexpected"),
    ],
)
def test_the_first_weight_that_does_not_fit_is_named(options: dict[str, Any], fault: str) -> None:
    name = fault.split(" ")[0].replace("\\", "")
    way_out = rf"; allowed: weights of the same model, or fresh_weights: \[{name}\]$"
    with pytest.raises(Refused, match=f"^it does not fit: {fault}{way_out}"):
        fit(make(2), copy(make(2, **options)))
    fit(make(2), copy(make(2, **options)), fresh_weights=[name.split(".bias")[0] + "*"])


def test_a_table_without_a_square_grid_is_refused() -> None:
    theirs = copy(make(2))
    theirs[IMAGE_TABLE] = torch.zeros(6 + 1, 32)
    with pytest.raises(Refused, match="has 6 positions beside CLS, which are no square; allowed"):
        fit(make(2), theirs)


def test_half_precision_weights_are_interpolated_in_full() -> None:
    theirs = {name: value.half() for name, value in copy(make(2, 8)).items()}
    after = fit(make(3, 12), theirs)
    assert {value.dtype for value in after.values()} == {torch.float32}
    exact = fit(make(3, 12), {name: value.float() for name, value in theirs.items()})
    assert all(torch.equal(after[name], exact[name]) for name in after)
