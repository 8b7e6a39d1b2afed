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

    `crops` is uint8 of shape (1 + rows * cols, S, S, 3), with the image's order of channels: the whole image
    first, then the local crops row by row.
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


def limit_tiling(tiling: Tiling, max_crops: int) -> Tiling:
    """Shortens the longer side of a tiling of more than `max_crops` crops.

    The model's own rule gives more than its most for images that are far longer than wide.
    """
    rows, cols = tiling
    if rows * cols <= max_crops:
        return tiling
    if cols > rows:
        return Tiling(rows, max(1, max_crops // rows))
    return Tiling(max(1, max_crops // cols), cols)


def tiling_of(height: int, width: int, config: VisionConfig, max_crops: int | None = None) -> Tiling:
    """How an image is tiled: by the model's own rule, or in at most `max_crops` crops.

    Without `max_crops`, an image that is far longer than wide gets more than `config.max_crops`.
    """
    if max_crops is None:
        return select_tiling(height, width, config)
    most = min(max_crops, config.max_crops)
    fewer = config.model_copy(update={"max_crops": most})
    return limit_tiling(select_tiling(height, width, fewer), most)


def image_to_crops(image: UInt8Array, config: VisionConfig, max_crops: int | None = None) -> ImageCrops:
    """Resizes and cuts an image.

    Args:
        image: uint8 array (H, W, 3), any size from 1 x 1; each channel is treated alike.
        config: sizes of crops, windows and margins.
        max_crops: the most local crops; by default as many as the model's own rule gives.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(
            "an image must be a uint8 array of shape (H, W, 3) with H and W at least 1, "
            f"got {image.dtype} {image.shape}"
        )
    size, window = config.crop_size, config.window_px
    tiling = tiling_of(image.shape[0], image.shape[1], config, max_crops)
    whole = Image.fromarray(np.ascontiguousarray(image))
    crops = np.empty((1 + tiling.rows * tiling.cols, size, size, 3), np.uint8)
    crops[0] = _resize(whole, width=size, height=size)
    if tiling == (1, 1):
        crops[1] = crops[0]
        return ImageCrops(crops, tiling)
    local = _resize(
        whole,
        width=tiling.cols * window + 2 * config.margin_px,
        height=tiling.rows * window + 2 * config.margin_px,
    )
    for index in range(tiling.rows * tiling.cols):
        top, left = (position * window for position in divmod(index, tiling.cols))
        crops[1 + index] = local[top : top + size, left : left + size]
    return ImageCrops(crops, tiling)


def images_to_crops(
    images: Sequence[UInt8Array], config: VisionConfig, max_crops: int | None = None
) -> list[ImageCrops]:
    """Does the same for several images, some at a time where there are cores to spare."""
    workers = min(len(images), (os.cpu_count() or 1) // 2)
    if workers < 2:
        return [image_to_crops(image, config, max_crops) for image in images]
    # Pillow resizes without holding the interpreter's lock.
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(partial(image_to_crops, config=config, max_crops=max_crops), images))


def distinct_crops(crops: ImageCrops) -> UInt8Array:
    """The crops without the local one of a single tile, which equals the global one."""
    return crops.crops[:1] if crops.tiling == Tiling(1, 1) else crops.crops


def _resize(image: Image.Image, width: int, height: int) -> UInt8Array:
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
