"""Drawings as they are put into scenes: turned, mirrored, tinted, shaded.

A sticker is float32 RGBA (H, W, 4), 0 to 255, cut to what can be seen of it.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.icons import SIDES, Drawing

FloatImage = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StickerOptions:
    """How far drawings are changed; shares are of the stickers."""

    max_turn: float = 25.0  # degrees
    upside_down: float = 0.0
    recoloured: float = 0.15  # the hue is turned at random
    tinted: float = 0.6  # hue, saturation and lightness change a little
    shaded: float = 0.5  # light falls on it from one side, as if it were solid
    max_stretch: float = 1.15
    # Larger stickers are made at this size and enlarged: what the model sees of them is smaller anyway.
    max_detail: int = 160


DEFAULT_STICKERS = StickerOptions()


def make_sticker(
    rng: np.random.Generator, drawing: Drawing, size: float, options: StickerOptions = DEFAULT_STICKERS
) -> FloatImage:
    """A drawing as a sticker whose longer side is about `size` pixels."""
    detail = min(size, options.max_detail)
    image = next((image for image in reversed(drawing) if image.shape[0] >= detail), drawing[0])
    angle = rng.uniform(-options.max_turn, options.max_turn)
    if rng.random() < options.upside_down:
        angle += 180
    stretch = math.exp(rng.uniform(-1, 1) * math.log(options.max_stretch))
    sticker = _turn(image, angle, rng.random() < 0.5, stretch, detail)
    if rng.random() < options.recoloured:
        sticker = _recolour(sticker, rng.uniform(30, 330), rng.uniform(0.7, 1.3), rng.uniform(0.85, 1.1))
    elif rng.random() < options.tinted:
        sticker = _recolour(sticker, rng.uniform(-14, 14), rng.uniform(0.6, 1.25), rng.uniform(0.75, 1.15))
        sticker[..., :3] *= rng.uniform(0.92, 1.08, 3).astype(np.float32)
    if rng.random() < options.shaded:
        _shade(rng, sticker)
    np.clip(sticker, 0, 255, out=sticker)
    if size > detail:
        sides = [max(1, round(side * size / detail)) for side in sticker.shape[1::-1]]
        sticker = np.asarray(cv2.resize(sticker, sides, interpolation=cv2.INTER_LINEAR), np.float32)
    return sticker


def _turn(
    image: npt.NDArray[np.uint8], angle: float, mirrored: bool, stretch: float, size: float
) -> FloatImage:
    """Turned, stretched and scaled so that its longer visible side has `size` pixels, and cut to that."""
    side = image.shape[0]
    turn = cv2.getRotationMatrix2D((0, 0), angle, 1.0)[:, :2] @ np.diag(
        [math.sqrt(stretch), 1 / math.sqrt(stretch)]
    )
    if mirrored:
        turn = turn @ np.diag([-1.0, 1.0])
    rows, cols = np.nonzero(image[..., 3][:: side // SIDES[-1], :: side // SIDES[-1]] > 127)
    points = (np.stack((cols, rows), axis=1) + 0.5) * (side // SIDES[-1])
    spread = points @ turn.T
    low, high = spread.min(axis=0), spread.max(axis=0)
    scale = size / max(float((high - low).max()), 1.0)
    margin = 0.03 * size + 2
    width, height = np.ceil((high - low) * scale + 2 * margin).astype(int)
    matrix = np.concatenate((turn * scale, (margin - low * scale)[:, None]), axis=1)
    warped = cv2.warpAffine(image, matrix, (int(width), int(height)), flags=cv2.INTER_LINEAR)
    sticker = _cut(np.asarray(warped, np.float32))
    sticker[..., :3] *= 255 / np.maximum(sticker[..., 3:], 1.0)
    return sticker


def _cut(sticker: FloatImage) -> FloatImage:
    """Without empty rows and columns at its edges."""
    visible = sticker[..., 3] > 40
    rows, cols = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    if not len(rows):
        return sticker
    return np.ascontiguousarray(sticker[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1])


def _recolour(sticker: FloatImage, hue: float, saturation: float, lightness: float) -> FloatImage:
    """Turns the hue (degrees) and scales saturation and lightness."""
    hls = cv2.cvtColor(sticker[..., :3].clip(0, 255) / 255, cv2.COLOR_RGB2HLS)
    hls[..., 0] = (hls[..., 0] + hue) % 360
    hls[..., 1] = np.clip(hls[..., 1] * lightness, 0, 1)
    hls[..., 2] = np.clip(hls[..., 2] * saturation, 0, 1)
    colours = cv2.cvtColor(hls, cv2.COLOR_HLS2RGB) * 255
    return np.concatenate((colours, sticker[..., 3:]), axis=-1)


def _shade(rng: np.random.Generator, sticker: FloatImage) -> None:
    """Light from one side on a surface that bulges: brighter towards it, darker away, at times a gloss."""
    height, width = sticker.shape[:2]
    longer = max(height, width)
    relief = cv2.GaussianBlur(sticker[..., 3] / 255, (0, 0), max(longer * rng.uniform(0.04, 0.15), 0.8))
    if rng.random() < 0.5:  # edges inside the drawing bulge, too
        grey = sticker[..., :3].mean(axis=-1) / 255
        relief = relief + rng.uniform(-0.6, 0.6) * cv2.GaussianBlur(grey, (0, 0), max(longer * 0.03, 0.7))
    slope_y, slope_x = np.gradient(relief) if min(height, width) > 1 else (relief, relief)
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.5)
    light = -(math.cos(angle) * slope_x + math.sin(angle) * slope_y)
    light = light / (np.abs(light).max() + 1e-6)
    rows, cols = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    slant = math.cos(angle) * cols + math.sin(angle) * rows
    shade = 1 + strength * (0.7 * light + 0.5 * rng.random() * slant)
    tint = 1 + rng.uniform(-0.25, 0.25, 3) * rng.random()  # shadows have a colour
    dark = np.clip(1 - shade, 0, 1)[..., None]
    sticker[..., :3] = sticker[..., :3] * (shade[..., None] - dark * (1 - tint))
    if rng.random() < 0.4:
        at_x, at_y = rng.uniform(-0.6, 0.6, 2)
        spread = rng.uniform(0.05, 0.3)
        gloss = np.exp(-((cols - at_x) ** 2 + (rows - at_y) ** 2) / spread**2) * rng.uniform(30, 140)
        sticker[..., :3] += gloss[..., None]
