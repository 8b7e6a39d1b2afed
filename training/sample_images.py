"""Draws sample images for a model that `make train` made: `python -m training.sample_images --folder DIR`.

Everyday things stand on a table, in a street, in a meadow and on shelves. The drawings are those of the icon
sets that training uses (see `icons`); the arrangements are not part of the training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from PIL import Image

from training.icons import Drawing, Drawings, load_trained_drawings
from training.scenes import UInt8Array
from training.stickers import FloatImage, StickerOptions, make_sticker

WIDTH, HEIGHT = 640, 480

# Drawings as they are, neither turned nor coloured.
PLAIN = StickerOptions(max_turn=0, recoloured=0, tinted=0, shaded=0, max_stretch=1.0, max_detail=256)
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Placed:
    """A thing in a scene: `x` is its middle and `bottom` its lower edge, in pixels; `size` its longer side.

    `style` is one of the icon sets that are trained on, `drawing` one of the thing's drawings in it.
    """

    name: str
    x: float
    bottom: float
    size: float
    style: int = 0
    drawing: int = 0
    mirrored: bool = False


KITCHEN = (
    Placed("pizza", 150, 370, 200),
    Placed("apple", 330, 300, 90),
    Placed("apple", 420, 330, 90, drawing=1),
    Placed("banana", 340, 430, 130),
    Placed("cup", 540, 290, 120),
    Placed("bread", 510, 440, 150),
    Placed("cheese", 60, 450, 100),
    Placed("wine glass", 60, 240, 130),
)
STREET = (
    Placed("house", 90, 250, 190),
    Placed("tree", 240, 250, 150),
    Placed("house", 400, 250, 170, drawing=1),
    Placed("tree", 560, 250, 160),
    Placed("bus", 170, 360, 190, drawing=0),
    Placed("car", 420, 350, 130),
    Placed("taxi", 560, 420, 150),
    Placed("bicycle", 330, 445, 120),
    Placed("dog", 90, 455, 90),
)
ZOO = (
    Placed("elephant", 150, 300, 220),
    Placed("lion", 350, 270, 120),
    Placed("panda", 520, 290, 130),
    Placed("dog", 300, 430, 110),
    Placed("penguin", 430, 430, 100),
    Placed("penguin", 500, 445, 90),
    Placed("frog", 70, 445, 80),
    Placed("owl", 590, 440, 80),
)
SHELF = (
    Placed("clock", 90, 150, 100),
    Placed("book", 220, 150, 90),
    Placed("guitar", 360, 152, 130),
    Placed("camera", 520, 150, 110),
    Placed("soccer ball", 90, 306, 100),
    Placed("basketball", 210, 306, 100),
    Placed("umbrella", 360, 306, 110),
    Placed("backpack", 530, 306, 110),
    Placed("light bulb", 90, 458, 90),
    Placed("television", 250, 458, 120),
    Placed("shoe", 400, 458, 100),
    Placed("key", 540, 456, 90),
)


def kitchen() -> UInt8Array:
    """A wooden table before a tiled wall."""
    image = _gradient((214, 226, 229), (196, 211, 216))
    for x in range(0, WIDTH, 64):
        image[:170, x : x + 2] *= 0.93
    for y in range(40, 170, 64):
        image[y : y + 2] *= 0.93
    image[170:] = _gradient((203, 160, 112), (172, 126, 82))[170:]
    for y in (168, 240, 322, 416):
        image[y : y + 3] *= 0.86
    return _soft(image)


def street() -> UInt8Array:
    """Sky, a strip of grass, and a road."""
    image = _gradient((150, 196, 232), (214, 232, 240))
    image[235:290] = (126, 176, 104)
    image[290:] = _gradient((120, 122, 128), (92, 94, 100))[290:]
    image[284:292] = (196, 196, 190)
    for x in range(20, WIDTH, 110):
        cv2.rectangle(image, (x, 380), (x + 60, 386), (224, 222, 206), cv2.FILLED)
    return _soft(image)


def zoo() -> UInt8Array:
    """A meadow under the sky, with a path."""
    image = _gradient((168, 208, 236), (222, 236, 240))
    image[190:] = _gradient((150, 194, 110), (104, 156, 78))[190:]
    cv2.ellipse(image, (420, 520), (420, 120), 0, 0, 360, (206.0, 186.0, 150.0), cv2.FILLED)
    return _soft(image)


def shelf() -> UInt8Array:
    """Three boards before a wall."""
    image = _gradient((232, 222, 206), (214, 202, 184))
    for y in (152, 308, 460):
        cv2.rectangle(image, (20, y), (620, y + 14), (150, 108, 70), cv2.FILLED)
        image[y + 14 : y + 26, 20:620] *= 0.86
    return _soft(image)


SCENES = {
    "kitchen": (kitchen, KITCHEN),
    "street": (street, STREET),
    "zoo": (zoo, ZOO),
    "shelf": (shelf, SHELF),
}


def draw(background: UInt8Array, placed: Sequence[Placed], styles: Sequence[Drawings]) -> UInt8Array:
    """A scene (H, W, 3), RGB: each thing on the background, with a shadow under it."""
    image = background.astype(np.float32)
    for thing in placed:
        sticker = upright(styles[thing.style][thing.name][thing.drawing], thing.size)
        if thing.mirrored:
            sticker = sticker[:, ::-1]
        height, width = sticker.shape[:2]
        left, top = round(thing.x - width / 2), round(thing.bottom - height)
        _cast_shadow(image, thing.x, thing.bottom, width)
        paste(image, sticker, left, top)
    return image.clip(0, 255).astype(np.uint8)


def upright(drawing: Drawing, size: float) -> FloatImage:
    """A drawing as it is, as a sticker whose longer side is `size` pixels."""
    # This seed does not mirror it.
    return make_sticker(np.random.default_rng(1), drawing, size, PLAIN)


def paste(image: FloatImage, sticker: FloatImage, left: int, top: int) -> None:
    """Puts the part of a sticker that is inside of the image onto it."""
    height, width = image.shape[:2]
    part = sticker[max(0, -top) : height - top, max(0, -left) : width - left]
    if not part.size or left >= width or top >= height:
        return
    top, left = max(0, top), max(0, left)
    region = image[top : top + part.shape[0], left : left + part.shape[1]]
    alpha = part[..., 3:] / 255
    region[:] = region * (1 - alpha) + part[..., :3] * alpha


def _cast_shadow(image: FloatImage, x: float, bottom: float, width: float) -> None:
    shadow = np.zeros(image.shape[:2], np.float32)
    axes = (max(1, round(width * 0.42)), max(1, round(width * 0.07)))
    cv2.ellipse(shadow, (round(x), round(bottom - 2)), axes, 0, 0, 360, (0.35,), cv2.FILLED)
    image *= 1 - cv2.GaussianBlur(shadow, (0, 0), max(1.0, width * 0.03))[..., None]


def _gradient(top: Colour, bottom: Colour) -> FloatImage:
    share = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    rows = (1 - share) * np.array(top, np.float32) + share * np.array(bottom, np.float32)
    return np.ascontiguousarray(np.broadcast_to(rows, (HEIGHT, WIDTH, 3)))


def _soft(image: FloatImage) -> UInt8Array:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 1.6)).clip(0, 255).astype(np.uint8)


def main(folder: Annotated[Path, typer.Option(help="Where the images are written.")]) -> None:
    """Draws the sample images."""
    styles = load_trained_drawings()
    folder.mkdir(parents=True, exist_ok=True)
    for name, (background, placed) in SCENES.items():
        Image.fromarray(draw(background(), placed, styles)).save(folder / f"{name}.jpg", quality=80)


if __name__ == "__main__":
    typer.run(main)
