"""The sizes against the papers' table, and the names that load them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from clipa_scaling.counts import image_params, text_params
from clipa_scaling.models import SIZES, ConvNet, Size, Tower, load_model

PUBLISHED = Path(__file__).parents[1] / "results" / "published" / "clipa_v1_table4_models.csv"

# arXiv:2305.07017, Table 4: one row a model, parameters in millions.
ROWS = list(csv.DictReader(PUBLISHED.read_text().splitlines()))
TABLE_4 = {row["model"]: row for row in ROWS}
TINY = ("T32", "T48", "T64", "T96", "T128")


def vit_of(size: Size) -> Tower:
    assert isinstance(size.image, Tower)
    return size.image


def test_the_published_table_is_whole() -> None:
    assert list(TABLE_4) == ["S/16", "B/16", "L/16", "H/14", "G/14"]
    assert {row["source"] for row in ROWS} == {"arXiv:2305.07017v2 p.14 Table 4"}


@pytest.mark.parametrize("name", TABLE_4)
def test_the_architectures_are_those_of_the_paper(name: str) -> None:
    size, row = load_model(name).size, TABLE_4[name]
    assert size.embed_dim == int(row["embed_dim"])
    for tower, prefix in ((vit_of(size), "vit"), (size.text, "text")):
        printed = [int(row[f"{prefix}_{part}"]) for part in ("layers", "width", "heads")]
        assert printed == [tower.layers, tower.width, tower.heads]


def count(name: str, vocab_size: int) -> tuple[int, int]:
    """Parameters of both towers at 32 text tokens, image positions fixed as the paper's are."""
    model, size = load_model(name), load_model(name).size
    patches = (224 // model.patch) ** 2
    image = image_params(
        size.image, model.patch, size.embed_dim, patches, ln_pre=False, learned_position=False
    )
    return image, text_params(size.text, size.embed_dim, 32, vocab_size)


@pytest.mark.parametrize("name", TABLE_4)
def test_parameters_are_within_a_million_of_the_printed_ones(name: str) -> None:
    """The paper names one vocabulary, WordPiece; its table fits two sizes of it.

    Totals fit the 32,000 rows of the released models throughout. The text column has its values
    cut, of 32,000 rows for S and G, of 30,522 (bert-base-uncased) for B, L and H, which is why
    those do not add up: 86 + 53 is printed as 141.
    """
    row = TABLE_4[name]
    image, text = count(name, 32_000)
    _, narrow = count(name, 30_522)
    assert image / 1e6 == pytest.approx(int(row["vision_params_M"]), rel=0, abs=1)
    assert (image + text + 1) / 1e6 == pytest.approx(int(row["total_params_M"]), rel=0, abs=1)
    assert int(row["text_params_M"]) in (text // 10**6, narrow // 10**6)


def test_clips_own_vocabulary_makes_the_text_tower_larger_than_printed() -> None:
    """S/16's text tower: 33 M as printed with WordPiece, 40 M with CLIP's 49,408 byte pairs."""
    assert [int(count("S/16", rows)[1] / 1e6) for rows in (32_000, 49_408)] == [33, 40]


def test_only_the_released_mlp_ratio_gives_the_printed_g() -> None:
    image = vit_of(SIZES["G"])
    four = replace(image, mlp_ratio=4.0)
    assert image.mlp_width == 8192
    assert image_params(image, 14, 1280, 256) / 1e6 == pytest.approx(1844, abs=1)
    assert image_params(four, 14, 1280, 256) / 1e6 < 1844 - 200


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_every_size_can_be_built(size: Size) -> None:
    towers = [tower for tower in (size.image, size.text) if isinstance(tower, Tower)]
    for tower in towers:
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
        assert vit_of(few).layers <= vit_of(more).layers and few.text.layers <= more.text.layers
    assert [vit_of(size).head_width for size in sizes] == [16, 16, 16, 32, 32]


@pytest.mark.parametrize("name", ["B/16", "B/32", "L/14", "T64/8", "H/7", "G/1", "S/160"])
def test_any_size_takes_any_patch_and_keeps_its_name(name: str) -> None:
    model = load_model(name)
    assert model.name == name
    assert model.size is SIZES[name.split("/")[0]]


SIZE_LIST = "S, B, L, H, G, ConvNeXt-T, ConvNeXt-B, ConvNeXt-A, T32, T48, T64, T96, T128"


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
        ("convnext_base", "is no size/patch", "ConvNeXt-B/16"),
        ("ConvNext-T/16", "has an unknown size 'ConvNext-T'", "ConvNeXt-T/16"),
        ("convnet/14", "has an unknown size 'convnet'", "ConvNeXt-T/16"),
    ],
)
def test_a_wrong_name_is_refused_with_the_way_out(name: str, rule: str, nearest: str) -> None:
    with pytest.raises(ValueError) as error:
        load_model(name)
    assert str(error.value) == (
        f"model={name!r} {rule}; nearest: {nearest}; allowed sizes: {SIZE_LIST}"
    )


def test_a_convnext_has_one_patch() -> None:
    assert load_model("ConvNeXt-T/16").name == "ConvNeXt-T/16"
    with pytest.raises(ValueError) as error:
        load_model("ConvNeXt-T/14")
    assert str(error.value) == (
        "model='ConvNeXt-T/14' has no patch to choose: 16 is the stride of its stage with most "
        "layers; allowed: ConvNeXt-T/16"
    )


@pytest.mark.parametrize(("net", "vit", "printed"), [("T", "S", 28), ("B", "B", 88)])
def test_a_convnext_has_the_text_tower_of_the_vit_it_is_compared_with(
    net: str, vit: str, printed: int
) -> None:
    """arXiv:2201.03545, Table 9: 29 M and 89 M with 1,000 classes, which are a projection here."""
    conv, other = SIZES[f"ConvNeXt-{net}"], SIZES[vit]
    assert isinstance(conv.image, ConvNet) and max(conv.image.depths) == conv.image.depths[2]
    assert (conv.text, conv.embed_dim) == (other.text, other.embed_dim)
    assert int(image_params(conv.image, 16, conv.embed_dim, 196) / 1e6) in (printed, printed - 1)


def test_mlp_width_is_cut_as_open_clip_cuts_it() -> None:
    assert Tower(1, 1408, 16, mlp_ratio=4.3637).mlp_width == 6144  # 6144.09, ViT-g-14
    assert Tower(1, 10, 1, mlp_ratio=1.99).mlp_width == 19
