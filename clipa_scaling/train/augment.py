"""Color jitter and grayscale of whole batches, keyed by sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from clipa_scaling.train.keyed import keyed_uniform, make_key

LUMA = (0.2989, 0.587, 0.114)  # of red, green, blue in grey, as torchvision's
HUE_SHARE = 0.25  # of the strength, in turns: the papers' code has 0.08 of hue at 0.32


@dataclass(frozen=True)
class Augment:
    """Which pictures change their colours, and how much; a pure function of (seed, sample).

    strength: brightness, contrast and saturation are multiplied by factors uniform in
    [1 - strength, 1 + strength], hue turns by up to strength / 4. The shares are of the pictures.
    """

    seed: int
    strength: float = 0.0
    jitter_share: float = 0.8
    gray_share: float = 0.0

    @property
    def is_on(self) -> bool:
        return (self.strength > 0 and self.jitter_share > 0) or self.gray_share > 0

    def __call__(self, image_BCHW: torch.Tensor, sample_B: torch.Tensor) -> torch.Tensor:
        """Pictures of [0, 1], changed and in [0, 1]; what is not drawn keeps its bits.

        One order for all, from brightness to hue as torchvision lists them, so that each operation
        is one of the whole batch; torchvision's own transform shuffles them for every picture.
        """
        if self.strength > 0 and self.jitter_share > 0:
            drawn_B5 = keyed_uniform(make_key(self.seed, "color jitter"), sample_B, 5)
            change_B4 = (2 * drawn_B5[:, 1:] - 1) * self.strength
            factor_4B = (1 + change_B4).clamp(min=0).to(image_BCHW.dtype).T
            turn_B = (change_B4[:, 3] * HUE_SHARE).to(image_BCHW.dtype)
            jittered = scale_brightness(image_BCHW, factor_4B[0])
            jittered = scale_contrast(jittered, factor_4B[1])
            jittered = scale_saturation(jittered, factor_4B[2])
            jittered = turn_hue(jittered, turn_B)
            image_BCHW = choose(drawn_B5[:, 0] < self.jitter_share, jittered, image_BCHW)
        if self.gray_share > 0:
            drawn_B1 = keyed_uniform(make_key(self.seed, "grayscale"), sample_B, 1)
            gray = make_gray(image_BCHW).expand_as(image_BCHW)
            image_BCHW = choose(drawn_B1[:, 0] < self.gray_share, gray, image_BCHW)
        return image_BCHW


def choose(which_B: torch.Tensor, then: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
    return torch.where(which_B[:, None, None, None], then, otherwise)


def blend(image_BCHW: torch.Tensor, other: torch.Tensor, factor_B: torch.Tensor) -> torch.Tensor:
    """From the other picture at factor 0 through the picture at 1 to beyond, kept in [0, 1]."""
    factor = factor_B[:, None, None, None]
    return (factor * image_BCHW + (1 - factor) * other).clamp_(0, 1)


def make_gray(image_BCHW: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W)."""
    red, green, blue = image_BCHW.split(1, dim=1)
    gray: torch.Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return gray


def scale_brightness(image_BCHW: torch.Tensor, factor_B: torch.Tensor) -> torch.Tensor:
    return (image_BCHW * factor_B[:, None, None, None]).clamp_(0, 1)


def scale_contrast(image_BCHW: torch.Tensor, factor_B: torch.Tensor) -> torch.Tensor:
    """About each picture's mean grey."""
    return blend(image_BCHW, make_gray(image_BCHW).mean(dim=(1, 2, 3), keepdim=True), factor_B)


def scale_saturation(image_BCHW: torch.Tensor, factor_B: torch.Tensor) -> torch.Tensor:
    """About each pixel's grey."""
    return blend(image_BCHW, make_gray(image_BCHW), factor_B)


def turn_hue(image_BCHW: torch.Tensor, turn_B: torch.Tensor) -> torch.Tensor:
    """Hue moved on by so many turns; value, and saturation as HSV has it, stay."""
    red, green, blue = image_BCHW.unbind(dim=1)
    value, low = image_BCHW.amax(dim=1), image_BCHW.amin(dim=1)
    chroma = value - low
    apart = torch.where(chroma > 0, chroma, 1)  # greys have any hue
    hue = torch.where(
        value == red,
        (green - blue) / apart,
        torch.where(value == green, 2 + (blue - red) / apart, 4 + (red - green) / apart),
    )
    hue = hue + 6 * turn_B[:, None, None]  # in sixths of a turn
    channels = []
    for offset in (5, 3, 1):  # red, green, blue: how far each is from its two sixths of nothing
        place = (hue + offset).remainder(6)
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(channels, dim=1)
