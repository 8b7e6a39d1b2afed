"""Cuts an image into one global crop and overlapping local crops.

Lengths are in pixels unless a name says otherwise.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from workflow_blocks.moondream2.config import VisionConfig

UInt8Array = npt.NDArray[np.uint8]


class Tiling(NamedTuple):
    """How many local crops an image is cut into."""

    rows: int
    cols: int


class ImageCrops(NamedTuple):
    """The crops of one image.

    `crops` is uint8 RGB of shape (1 + rows * cols, S, S, 3): the whole image first, then the local
    crops row by row.
    """

    crops: UInt8Array
    tiling: Tiling


def select_tiling(height: int, width: int, config: VisionConfig) -> Tiling:
    """Chooses how an image of `height` x `width` is tiled, with at most `config.max_crops` crops."""
    inner_height = height - 2 * config.margin_px
    inner_width = width - 2 * config.margin_px
    window, max_crops = config.window_px, config.max_crops
    if inner_height <= window or inner_width <= window:
        return Tiling(1, 1)
    min_rows = math.ceil(inner_height / window)
    min_cols = math.ceil(inner_width / window)
    if min_rows * min_cols > max_crops:
        ratio = math.sqrt(max_crops / (min_rows * min_cols))
        return Tiling(max(1, math.floor(min_rows * ratio)), max(1, math.floor(min_cols * ratio)))
    rows = max(math.floor(math.sqrt(max_crops * inner_height / inner_width)), min_rows)
    cols = max(math.floor(math.sqrt(max_crops * inner_width / inner_height)), min_cols)
    if rows * cols > max_crops:
        if cols > rows:
            cols = math.floor(max_crops / rows)
        else:
            rows = math.floor(max_crops / cols)
    return Tiling(max(1, rows), max(1, cols))


def image_to_crops(image_rgb: UInt8Array, config: VisionConfig) -> ImageCrops:
    """Resizes and cuts an image.

    Args:
        image_rgb: uint8 array (H, W, 3), any size from 1 x 1.
        config: sizes of crops, windows and margins.
    """
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8 or image_rgb.size == 0:
        raise ValueError(
            "an image must be a uint8 array of shape (H, W, 3) with H and W at least 1, "
            f"got {image_rgb.dtype} {image_rgb.shape}"
        )
    size, window = config.crop_size, config.window_px
    tiling = select_tiling(image_rgb.shape[0], image_rgb.shape[1], config)
    image = Image.fromarray(np.ascontiguousarray(image_rgb))
    crops = np.empty((1 + tiling.rows * tiling.cols, size, size, 3), np.uint8)
    crops[0] = _resize(image, width=size, height=size)
    if tiling == (1, 1):
        crops[1] = crops[0]
        return ImageCrops(crops, tiling)
    local = _resize(
        image,
        width=tiling.cols * window + 2 * config.margin_px,
        height=tiling.rows * window + 2 * config.margin_px,
    )
    for index in range(tiling.rows * tiling.cols):
        top, left = (position * window for position in divmod(index, tiling.cols))
        crops[1 + index] = local[top : top + size, left : left + size]
    return ImageCrops(crops, tiling)


def images_to_crops(images_rgb: Sequence[UInt8Array], config: VisionConfig) -> list[ImageCrops]:
    """Does the same for several images, some at a time where there are cores to spare."""
    workers = min(len(images_rgb), (os.cpu_count() or 1) // 2)
    if workers < 2:
        return [image_to_crops(image, config) for image in images_rgb]
    # Pillow resizes without holding the interpreter's lock.
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(partial(image_to_crops, config=config), images_rgb))


def distinct_crops(crops: ImageCrops) -> UInt8Array:
    """The crops without the local one of a single tile, which equals the global one."""
    return crops.crops[:1] if crops.tiling == Tiling(1, 1) else crops.crops


def _resize(image: Image.Image, width: int, height: int) -> UInt8Array:
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
