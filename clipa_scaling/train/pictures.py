"""From stored pictures to pixels: keyed crops, cut and resized by OpenCV or on the device."""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
import torch

from clipa_scaling.train.augment import Augment
from clipa_scaling.train.keyed import keyed_uniform, make_key
from clipa_scaling.train.model import IMAGE_MEAN, IMAGE_STD

ASPECTS = (3 / 4, 4 / 3)  # of random crops, as torchvision's and the papers' code
CUBIC = -0.75  # the free coefficient of OpenCV's cubic kernel


def crop_boxes(seed: int, sample_B: torch.Tensor, px: int, min_area: float) -> np.ndarray:
    """(B, 4) boxes x, y, width, height: area uniform in [min_area, 1], aspect log-uniform."""
    area, aspect, x, y = keyed_uniform(make_key(seed, "crop"), sample_B, 4).numpy().T
    area = min_area + (1 - min_area) * area
    low, high = math.log(ASPECTS[0]), math.log(ASPECTS[1])
    # Aspects that would leave the picture are drawn narrower, not drawn again: one draw, keyed.
    widest = np.minimum(high, -np.log(area))
    narrowest = np.maximum(low, np.log(area))
    ratio = np.exp(narrowest + (widest - narrowest) * aspect)
    width = np.clip(np.rint(px * np.sqrt(area * ratio)), 1, px)
    height = np.clip(np.rint(px * np.sqrt(area / ratio)), 1, px)
    left, top = np.floor(x * (px - width + 1)), np.floor(y * (px - height + 1))
    return np.stack([left, top, width, height], axis=1).astype(np.int64)


# On the host: OpenCV, picture by picture


def resize_one(picture: np.ndarray, size: int) -> np.ndarray:
    """One picture at (size, size, 3); each axis by area if it shrinks, so antialiased, or bicubic.

    Shrinks first: OpenCV's area average is none as soon as one axis grows.
    """
    height, width = picture.shape[:2]
    picture = np.ascontiguousarray(picture)
    if max(height, width) > size:
        smaller = min(width, size), min(height, size)
        picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
    if min(height, width) < size:
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
    return picture


def resize_all(pictures: np.ndarray, size: int) -> np.ndarray:
    """(B, size, size, 3) uint8, whole pictures; no copy at their own size."""
    if pictures.shape[1] == size:
        return pictures
    return np.stack([resize_one(picture, size) for picture in pictures])


def cut_on_host(pictures: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """(B, size, size, 3) uint8: each picture's box, resized."""
    out = np.empty((len(pictures), size, size, 3), np.uint8)
    for row, (picture, (x, y, width, height)) in enumerate(zip(pictures, boxes, strict=True)):
        out[row] = resize_one(picture[y : y + height, x : x + width], size)
    return out


# On the device: all at once, as two products with a matrix for each picture's rows and columns


def cut_on_device(picture_BHWC: torch.Tensor, box_B4: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 3, size, size) float32 of whole grey levels: `cut_on_host` but for rounding.

    OpenCV rounds between its two steps and has cubic weights of 11 bits: measured, one level in one
    value of 3,000, and in one of 16 where crops grow along one side and shrink along the other.
    """
    height, width = picture_BHWC.shape[1:3]
    x_B, y_B, width_B, height_B = box_B4.unbind(dim=1)
    row_BSH = axis_weights(y_B, height_B, height, size)
    column_BSW = axis_weights(x_B, width_B, width, size)
    image_BCHW = picture_BHWC.permute(0, 3, 1, 2).to(torch.float32)
    image_BCHS = image_BCHW @ column_BSW.mT[:, None]
    return (row_BSH[:, None] @ image_BCHS).round_().clamp_(0, 255)


def axis_weights(start_B: torch.Tensor, length_B: torch.Tensor, px: int, size: int) -> torch.Tensor:
    """(B, size, px) float32: how much of each of px pixels is in each of the resized ones.

    By area where the axis shrinks, and where it stays, which copies; bicubic where it grows.
    """
    scale_B11 = (length_B.double() / size)[:, None, None]
    start_B11, length_B11 = start_B[:, None, None], length_B[:, None, None]
    out_1S1 = torch.arange(size, device=start_B.device, dtype=torch.float64)[None, :, None]
    pixel_11P = torch.arange(px, device=start_B.device, dtype=torch.float64)[None, None]
    low_BS1 = start_B11 + out_1S1 * scale_B11
    overlap_BSP = torch.minimum(low_BS1 + scale_B11, pixel_11P + 1) - low_BS1.maximum(pixel_11P)
    area_BSP = (overlap_BSP.clamp_(min=0) / scale_B11).float()

    # Taps beyond the crop count for its edge pixel, as if its border went on.
    centre_BS1 = (out_1S1 + 0.5) * scale_B11 - 0.5
    tap_BS4 = centre_BS1.floor() + torch.arange(-1, 3, device=start_B.device)
    weight_BS4 = cubic_kernel((centre_BS1 - tap_BS4).abs()).float()
    inside_BS4 = tap_BS4.clamp(min=0).minimum(length_B11 - 1).long() + start_B11
    cubic_BSP = torch.zeros_like(area_BSP).scatter_add_(2, inside_BS4, weight_BS4)
    return torch.where(scale_B11 >= 1, area_BSP, cubic_BSP)


def cubic_kernel(distance: torch.Tensor) -> torch.Tensor:
    """Keys' kernel with OpenCV's coefficient, of distances up to 2 pixels."""
    d, a = distance, CUBIC
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, far)


# To what a tower reads


def show(
    picture_BHWC: torch.Tensor,
    box_B4: torch.Tensor | None,
    sample_B: torch.Tensor,
    size: int,
    augment: Augment,
) -> torch.Tensor:
    """(B, 3, size, size) float32: cut out where there are boxes, recoloured, normalised.

    On the device of the pictures, which are uint8 until here.
    """
    if box_B4 is None and not augment.is_on:
        return normalise(picture_BHWC)
    if box_B4 is None:
        image_BCHW = picture_BHWC.permute(0, 3, 1, 2).to(torch.float32)
    else:
        image_BCHW = cut_on_device(picture_BHWC, box_B4, size)
    if not augment.is_on:
        return standardise(image_BCHW, white=255)
    return standardise(augment(image_BCHW / 255, sample_B), white=1)


def normalise(pictures: np.ndarray | torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) float32 with CLIP's mean and deviation, from (B, S, S, 3) uint8."""
    if isinstance(pictures, np.ndarray):
        pictures = torch.from_numpy(np.ascontiguousarray(pictures))
    image_BCHW = pictures.permute(0, 3, 1, 2).contiguous()  # while it is small
    return standardise(image_BCHW.to(torch.float32), white=255)


def standardise(image_BCHW: torch.Tensor, white: int) -> torch.Tensor:
    """In place, pixels of [0, white] by CLIP's mean and deviation (arXiv:2103.00020)."""
    mean, deviation = colour_statistics(white, image_BCHW.device)
    return image_BCHW.sub_(mean).div_(deviation)


@cache  # sent to a device once: making a tensor there waits for it
def colour_statistics(white: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 3, 1, 1) mean and deviation."""
    mean = white * torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    deviation = white * torch.tensor(IMAGE_STD).view(1, 3, 1, 1)
    return mean.to(device), deviation.to(device)
