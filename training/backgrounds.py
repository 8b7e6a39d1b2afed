"""Backgrounds of pictures: those of `scenes`, and softer and busier ones."""

import math

import cv2
import numpy as np

from training import scenes
from training.scenes import UInt8Array


def draw_background(rng: np.random.Generator, width: int, height: int) -> tuple[UInt8Array, str | None]:
    """A background (H, W, 3) and the name of the shapes' colour that would not show on it, if any."""
    kind = rng.random()
    taken_colour = None
    if kind < 0.45:
        image, taken_colour = scenes.draw_background(rng, width, height)
    elif kind < 0.65:
        image = _ground_and_sky(rng, width, height)
    elif kind < 0.8:
        image = _tiles(rng, width, height)
    else:
        image = _blobs(rng, width, height)
    scenes.draw_clutter(rng, image)
    return image, taken_colour


def _soft_colour(rng: np.random.Generator) -> np.ndarray:
    return np.array(scenes.hsv_to_rgb(rng.uniform(0, 360), rng.uniform(0, 0.55), rng.uniform(0.3, 1)), float)


def _ground_and_sky(rng: np.random.Generator, width: int, height: int) -> UInt8Array:
    """Two areas, each with a gradient, and a soft edge between them."""
    horizon = rng.uniform(0.2, 0.8)
    edge = 0.5 + 0.5 * np.tanh((np.linspace(0, 1, height) - horizon) * rng.uniform(8, 200))
    tilt = np.linspace(-0.5, 0.5, width) * rng.uniform(-0.3, 0.3)
    share = np.clip(edge[:, None] + tilt * (4 * edge * (1 - edge))[:, None], 0, 1)[..., None]
    fade = (
        1 + rng.uniform(-0.3, 0.3, 2)[:, None, None, None] * np.linspace(-1, 1, height)[None, :, None, None]
    )
    image = (1 - share) * _soft_colour(rng) * fade[0] + share * _soft_colour(rng) * fade[1]
    return image.clip(0, 255).astype(np.uint8)


def _tiles(rng: np.random.Generator, width: int, height: int) -> UInt8Array:
    """Boards, bricks or a chequered cloth."""
    short = min(width, height)
    tile_w, tile_h = short * math.exp(rng.uniform(-3.2, 0)), short * math.exp(rng.uniform(-3.2, -0.7))
    rows = (np.arange(height) / tile_h).astype(int)
    shift = (rows % 2) * rng.choice([0.0, 0.5])
    cols = (np.arange(width) / tile_w + shift[:, None]).astype(int)
    first = _soft_colour(rng)
    second = _soft_colour(rng) if rng.random() < 0.3 else first * rng.uniform(0.7, 1.1)
    chequered = ((rows[:, None] + cols) % 2)[..., None]
    image = first * (1 - chequered) + second * chequered
    varied = rng.normal(1, rng.uniform(0, 0.08), (rows.max() + 1, cols.max() + 1))
    image = image * varied[rows[:, None], cols][..., None]
    joint = (np.diff(rows, prepend=0) != 0)[:, None] | (np.diff(cols, axis=1, prepend=0) != 0)
    if rng.random() < 0.6:
        image[joint] *= rng.uniform(0.5, 1.2)
    return image.clip(0, 255).astype(np.uint8)


def _blobs(rng: np.random.Generator, width: int, height: int) -> UInt8Array:
    """Blurred areas, as behind a photograph's subject."""
    image = np.empty((height, width, 3), np.float32)
    image[:] = _soft_colour(rng)
    short = min(width, height)
    for _ in range(int(rng.integers(3, 14))):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = tuple(max(2, round(short * math.exp(rng.uniform(-3, -0.9)))) for _ in range(2))
        colour = tuple(float(value) for value in _soft_colour(rng))
        cv2.ellipse(image, centre, axes, rng.uniform(0, 360), 0, 360, colour, -1)
    blurred = cv2.GaussianBlur(image, (0, 0), short * rng.uniform(0.02, 0.1))
    return np.asarray(blurred).clip(0, 255).astype(np.uint8)
