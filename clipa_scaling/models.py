"""The sizes as numbers with their source: those of the papers, and tiny ones for two cores."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache


@dataclass(frozen=True)
class Tower:
    """One transformer: its layers, width, attention heads, and MLP width over width."""

    layers: int
    width: int
    heads: int
    mlp_ratio: float = 4.0

    @property
    def mlp_width(self) -> int:
        """Hidden width of the MLP, rounded down as open_clip does."""
        return int(self.width * self.mlp_ratio)

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


STAGE_STRIDE = 16  # pixels a side behind one position of a ConvNeXt's third stage: its image tokens


@dataclass(frozen=True)
class ConvNet:
    """One ConvNeXt (arXiv:2201.03545): depths and widths of its four stages, and timm's name.

    Stages lie at strides 4, 8, 16 and 32 px; most layers are in the third, at that of a ViT/16.
    """

    timm_name: str
    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    kernel: int = 7
    mlp_ratio: float = 4.0

    @property
    def width(self) -> int:
        """Width of the last stage, which the embedding is projected from."""
        return self.widths[-1]


@dataclass(frozen=True)
class Size:
    """Two towers and the embedding they meet in; everything of a model but its patch."""

    name: str
    embed_dim: int
    image: Tower | ConvNet
    text: Tower
    source: str


@dataclass(frozen=True)
class Model:
    """A size at a patch of so many pixels: B/16."""

    size: Size
    patch: int

    @property
    def name(self) -> str:
        """The name `load_model` reads: size, slash, patch."""
        return f"{self.size.name}/{self.patch}"


TABLE_4 = "arXiv:2305.07017, Table 4"
# Table 4 prints no MLP width. A ratio of 4 gives the printed parameters of every tower but that of
# G's images; there only the ratio of open_clip's ViT-bigG-14-CLIPA does (8192 / 1664).
TABLE_4_G = TABLE_4 + "; MLP width of G's image tower from open_clip's ViT-bigG-14-CLIPA"
# Table 13 prints names and accuracies alone, each net beside the ViT of like size; that they share
# its text tower and embedding is assumed.
TABLE_13 = "arXiv:2201.03545, section 3 (image); arXiv:2305.07017, Table 13; text tower assumed"
OURS = "this package: small enough for two CPU cores"


def make_tiny(width: int, image_layers: int, text_layers: int, head_width: int) -> Size:
    """A size whose towers and embedding share one width."""
    heads = width // head_width
    image, text = Tower(image_layers, width, heads), Tower(text_layers, width, heads)
    return Size(f"T{width}", width, image, text, OURS)


CONVNEXT_ATTO = ConvNet("convnext_atto", (2, 2, 6, 2), (40, 80, 160, 320))
CONVNEXT_TINY = ConvNet("convnext_tiny", (3, 3, 9, 3), (96, 192, 384, 768))
CONVNEXT_BASE = ConvNet("convnext_base", (3, 3, 27, 3), (128, 256, 512, 1024))

ALL_SIZES = (
    Size("S", 384, Tower(12, 384, 6), Tower(12, 384, 6), TABLE_4),
    Size("B", 512, Tower(12, 768, 12), Tower(12, 512, 8), TABLE_4),
    Size("L", 768, Tower(24, 1024, 16), Tower(12, 768, 12), TABLE_4),
    Size("H", 1024, Tower(32, 1280, 16), Tower(24, 1024, 16), TABLE_4),
    Size("G", 1280, Tower(48, 1664, 16, mlp_ratio=4.9231), Tower(32, 1280, 20), TABLE_4_G),
    Size("ConvNeXt-T", 384, CONVNEXT_TINY, Tower(12, 384, 6), TABLE_13),
    Size("ConvNeXt-B", 512, CONVNEXT_BASE, Tower(12, 512, 8), TABLE_13),
    Size("ConvNeXt-A", 128, CONVNEXT_ATTO, Tower(3, 128, 4), "timm's convnext_atto; " + OURS),
    make_tiny(32, image_layers=2, text_layers=2, head_width=16),
    make_tiny(48, image_layers=3, text_layers=2, head_width=16),
    make_tiny(64, image_layers=3, text_layers=2, head_width=16),
    make_tiny(96, image_layers=4, text_layers=3, head_width=32),
    make_tiny(128, image_layers=4, text_layers=3, head_width=32),
)
SIZES: dict[str, Size] = {size.name: size for size in ALL_SIZES}


@cache
def load_model(name: str) -> Model:
    """The model of a name such as "B/16": a size of SIZES, a slash, a patch in pixels.

    Raises ValueError naming the nearest model and all sizes, and for a ConvNeXt at any patch but
    the stride of its third stage.
    """
    parts = re.fullmatch(r"([\w-]+)/([1-9][0-9]*)", name, re.ASCII)
    if parts is None or parts[1] not in SIZES:
        rule = "is no size/patch" if parts is None else f"has an unknown size {parts[1]!r}"
        raise ValueError(
            f"model={name!r} {rule}; nearest: {find_nearest(name)}; "
            f"allowed sizes: {', '.join(SIZES)}"
        )
    model = Model(SIZES[parts[1]], int(parts[2]))
    if isinstance(model.size.image, ConvNet) and model.patch != STAGE_STRIDE:
        rule = f"has no patch to choose: {STAGE_STRIDE} is the stride of its stage with most layers"
        raise ValueError(f"model={name!r} {rule}; allowed: {model.size.name}/{STAGE_STRIDE}")
    return model


def find_nearest(name: str) -> str:
    """The model a mistaken name most likely meant; B/16 where nothing is near."""
    flat = re.sub(r"[^a-z0-9]", "", name.lower())
    for net in SIZES.values():  # convnext_tiny, ConvNext-T/32
        if isinstance(net.image, ConvNet) and net.name.lower().replace("-", "") in flat:
            return f"{net.name}/{STAGE_STRIDE}"
    words = re.findall(r"[a-z]+[0-9]*|[0-9]+", name.lower())
    patches = [word for word in words if word.isdecimal() and int(word) > 0]
    lower = {size.lower(): size for size in SIZES}
    known = [lower[word] for word in words if word in lower]
    near = known or [lower[match] for word in words for match in get_close_matches(word, lower, 1)]
    size = SIZES[near[-1] if near else "B"]
    has_patch = patches and not isinstance(size.image, ConvNet)
    return f"{size.name}/{patches[-1] if has_patch else STAGE_STRIDE}"
