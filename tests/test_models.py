"""The sizes against the papers' table, and the names that load them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clipa_scaling.counts import image_params, text_params
from clipa_scaling.models import SIZES, Size, Tower, load_model

# arXiv:2305.07017, Table 4: embedding, layers, width, heads of both towers, parameters in millions.
TABLE_4 = {
    "S/16": (384, (12, 384, 6), (12, 384, 6), 22, 33, 55),
    "B/16": (512, (12, 768, 12), (12, 512, 8), 86, 53, 141),
    "L/16": (768, (24, 1024, 16), (12, 768, 12), 303, 109, 414),
    "H/14": (1024, (32, 1280, 16), (24, 1024, 16), 631, 334, 967),
    "G/14": (1280, (48, 1664, 16), (32, 1280, 20), 1844, 672, 2516),
}
TINY = ("T32", "T48", "T64", "T96", "T128")


@pytest.mark.parametrize("name", TABLE_4)
def test_the_architectures_are_those_of_the_paper(name: str) -> None:
    size = load_model(name).size
    image, text = size.image, size.text
    assert (size.embed_dim, *TABLE_4[name][1:3]) == (
        TABLE_4[name][0],
        (image.layers, image.width, image.heads),
        (text.layers, text.width, text.heads),
    )


@pytest.mark.parametrize("name", TABLE_4)
def test_parameters_are_within_a_million_of_the_printed_ones(name: str) -> None:
    """The paper names one vocabulary, WordPiece; its table fits two sizes of it.

    At 32 text tokens the text column fits the 30,522 entries of bert-base-uncased (G: 32,000), the
    totals fit 32,000 throughout, which is why B, L and H do not add up (86 + 53 is printed as 141).
    Image positions are fixed sine codes there, so no parameters; printed values are partly cut.
    """
    model, printed = load_model(name), TABLE_4[name][3:]
    size, patches = model.size, (224 // model.patch) ** 2
    positions = (patches + 1) * size.image.width
    image = image_params(size.image, model.patch, size.embed_dim, patches) - positions
    column, wide = (
        text_params(size.text, size.embed_dim, text_tokens=32, vocab_size=entries)
        for entries in (32_000 if size.name == "G" else 30_522, 32_000)
    )
    ours = [count / 1e6 for count in (image, column, image + wide + 1)]
    assert ours == pytest.approx(printed, rel=0, abs=1)


def test_only_the_released_mlp_ratio_gives_the_printed_g() -> None:
    size = SIZES["G"]
    four = replace(size.image, mlp_ratio=4.0)
    assert size.image.mlp_width == 8192
    assert image_params(size.image, 14, 1280, 256) / 1e6 == pytest.approx(1844, abs=1)
    assert image_params(four, 14, 1280, 256) / 1e6 < 1844 - 200


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_every_size_can_be_built(size: Size) -> None:
    for tower in (size.image, size.text):
        assert tower.width % tower.heads == 0
        assert tower.head_width % 8 == 0  # fused attention on GPUs wants multiples of 8
    assert size.image.width % 4 == 0  # two-dimensional sine codes split the width in four
    assert size.source


def test_tiny_sizes_share_one_width_and_grow() -> None:
    sizes = [SIZES[name] for name in TINY]
    for size in sizes:
        assert f"T{size.image.width}" == size.name
        assert size.image.width == size.text.width == size.embed_dim
    for few, more in zip(sizes, sizes[1:], strict=False):
        assert few.image.layers <= more.image.layers and few.text.layers <= more.text.layers
    assert [size.image.head_width for size in sizes] == [16, 16, 16, 32, 32]


@pytest.mark.parametrize("name", ["B/16", "B/32", "L/14", "T64/8", "H/7", "G/1", "S/160"])
def test_any_size_takes_any_patch_and_keeps_its_name(name: str) -> None:
    model = load_model(name)
    assert model.name == name
    assert model.size is SIZES[name.split("/")[0]]


SIZE_LIST = "S, B, L, H, G, T32, T48, T64, T96, T128"


@pytest.mark.parametrize(
    ("name", "rule", "nearest"),
    [
        ("b/16", "has an unknown size 'b'", "B/16"),
        ("ViT-L-14", "is no size/patch", "L/14"),
        ("B-32", "is no size/patch", "B/32"),
        ("T40/8", "has an unknown size 'T40'", "T64/8"),
        ("B/0", "is no size/patch", "B/16"),
        ("B/16 ", "is no size/patch", "B/16"),
        ("T64/٣", "is no size/patch", "T64/16"),
        ("", "is no size/patch", "B/16"),
    ],
)
def test_a_wrong_name_is_refused_with_the_way_out(name: str, rule: str, nearest: str) -> None:
    with pytest.raises(ValueError) as error:
        load_model(name)
    assert str(error.value) == (
        f"model={name!r} {rule}; nearest: {nearest}; allowed sizes: {SIZE_LIST}"
    )


def test_mlp_width_is_cut_as_open_clip_cuts_it() -> None:
    assert Tower(1, 1408, 16, mlp_ratio=4.3637).mlp_width == 6144  # 6144.09, ViT-g-14
    assert Tower(1, 10, 1, mlp_ratio=1.99).mlp_width == 19
