"""Draws pictures of everyday things and coloured shapes, with ground truth.

Unlike `scenes`, which draws shapes alone, pictures mix both, and may be as small as a crop. Images are RGB;
boxes are relative to the image, x_min, y_min, x_max, y_max, 0 to 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from training import scenes
from training.backgrounds import draw_background
from training.colours import name_colour
from training.icons import Drawings
from training.names import THING_OF_NAME, THINGS
from training.scenes import COLOURS, SHAPES, SceneOptions, UInt8Array
from training.stickers import DEFAULT_STICKERS, FloatImage, StickerOptions, make_sticker

MAX_ITEMS = 12
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Item:
    """An object in a picture.

    `colour` is its colour if it clearly has one; about `doubtful_colours` people would not agree.
    """

    name: str
    colour: str | None
    doubtful_colours: frozenset[str]
    box: Box

    @property
    def is_shape(self) -> bool:
        return self.name not in THING_OF_NAME


@dataclass(frozen=True)
class Picture:
    """An image (H, W, 3), its objects, and a map (H, W) of which object a pixel shows.

    `item_map` holds 0 for the background and i + 1 for `items[i]`.
    """

    image: UInt8Array
    items: tuple[Item, ...]
    item_map: UInt8Array


@dataclass(frozen=True)
class PictureOptions:
    """What pictures are like; sizes are the longer side of an object as a share of the image's short side."""

    min_short_side: int = 130
    max_short_side: int = 480
    max_ratio: float = 1.8
    min_size: float = 0.12
    max_size: float = 0.6
    max_items: int = 6
    empty: float = 0.05
    shapes: float = 0.15  # share of the objects
    few_kinds: float = 0.3  # share of the pictures that have at most two kinds of objects
    min_visible: float = 0.7
    outside: float = 0.1  # share of the objects that may reach beyond the image
    squeeze: float = 1.0  # objects are stretched up to this factor, as by crops of other proportions
    stickers: StickerOptions = DEFAULT_STICKERS


SCENE_PICTURES = PictureOptions()
# Pictures full of smaller objects, at times many of one kind.
CROWDED_PICTURES = replace(
    SCENE_PICTURES, min_short_side=180, max_size=0.35, max_items=MAX_ITEMS, empty=0.0, few_kinds=0.45
)
# Pictures as large as a crop, full of objects of all sizes that a crop shows, to train the encoder on.
CROP_PICTURES = PictureOptions(
    min_short_side=96, max_short_side=96, max_ratio=1.0, min_size=0.13, max_size=1.0, max_items=4, empty=0.02,
    outside=0.35, squeeze=1.7, shapes=0.2,
)  # fmt: skip


@dataclass
class _Placed:
    name: str
    colour: str | None
    doubtful: frozenset[str]
    area: int  # pixels when nothing hid it


def draw_picture(
    rng: np.random.Generator, styles: Sequence[Drawings], options: PictureOptions = SCENE_PICTURES
) -> Picture:
    """Draws a picture in one or several of the given styles; without styles, of shapes alone."""
    width, height = _choose_size(rng, options)
    image, taken_colour = draw_background(rng, width, height)
    item_map = np.zeros((height, width), np.uint8)
    placed: list[_Placed] = []
    names = _choose_names(rng, options, bool(styles))
    n_items = 0 if rng.random() < options.empty else int(rng.integers(1, options.max_items + 1))
    for _ in range(n_items):
        for _attempt in range(8):
            if _place(rng, image, item_map, placed, names, styles, taken_colour, options):
                break
    image = scenes.photograph(rng, image)
    return Picture(image, _items(placed, item_map), item_map)


def _choose_size(rng: np.random.Generator, options: PictureOptions) -> tuple[int, int]:
    low, high = math.log(options.min_short_side), math.log(options.max_short_side)
    short = round(math.exp(rng.uniform(low, high)))
    long = round(short * rng.uniform(1.0, options.max_ratio))
    return (long, short) if rng.random() < 0.7 else (short, long)


def _choose_names(rng: np.random.Generator, options: PictureOptions, with_things: bool) -> list[str]:
    """The kinds of objects of a picture; often few, so that there are several of one."""
    names = []
    most = 2 if rng.random() < options.few_kinds else options.max_items
    for _ in range(int(rng.integers(1, most + 1))):
        is_shape = not with_things or rng.random() < options.shapes
        names.append(str(rng.choice(SHAPES)) if is_shape else THINGS[int(rng.integers(len(THINGS)))].name)
    return names


def _place(
    rng: np.random.Generator,
    image: UInt8Array,
    item_map: UInt8Array,
    placed: list[_Placed],
    names: list[str],
    styles: Sequence[Drawings],
    taken_colour: str | None,
    options: PictureOptions,
) -> bool:
    """Tries to put one more object at a random place; says whether it fitted."""
    height, width = item_map.shape
    name = names[int(rng.integers(len(names)))]
    low, high = math.log(options.min_size), math.log(options.max_size)
    size = math.exp(rng.uniform(low, high)) * min(width, height)
    colour, doubtful = None, frozenset[str]()
    if name in THING_OF_NAME:
        drawings = styles[int(rng.integers(len(styles)))][name]
        sticker = make_sticker(rng, drawings[int(rng.integers(len(drawings)))], size, options.stickers)
        colour, doubtful = name_colour(sticker.astype(np.uint8))
    else:
        colour = str(rng.choice([colour for colour in COLOURS if colour != taken_colour]))
        sticker = _shape_sticker(rng, name, colour, size)
    sticker = _squeeze(rng, sticker, options.squeeze)
    allowed = 0.3 if rng.random() < options.outside else 0.0
    spot = _choose_spot(rng, sticker, width, height, allowed)
    if spot is None:
        return False
    left, top, sticker = spot
    region = (slice(top, top + sticker.shape[0]), slice(left, left + sticker.shape[1]))
    drawn = sticker[..., 3] > 127
    if _hides_too_much(drawn, item_map[region], item_map, name, placed, options.min_visible):
        return False
    alpha = sticker[..., 3:] / 255
    image[region] = np.round(image[region] * (1 - alpha) + sticker[..., :3] * alpha).astype(np.uint8)
    item_map[region][drawn] = len(placed) + 1
    placed.append(_Placed(name, colour, doubtful, int(drawn.sum())))
    return True


def _shape_sticker(rng: np.random.Generator, shape: str, colour: str, size: float) -> FloatImage:
    """A coloured shape, drawn as `scenes` does."""
    side = round(size) + 4
    one = SceneOptions(min_object_size=size / side, max_object_size=size / side)
    outline = scenes.place(rng, shape, side, side, one)
    mask, _, _ = scenes.rasterise(outline, side, side)
    fill = scenes.colour_in(rng, COLOURS[colour])
    patch = np.full((*mask.shape, 3), fill, np.uint8)
    scenes.paint(rng, patch, mask, fill)
    return np.concatenate((patch, mask[..., None]), axis=-1).astype(np.float32)


def _squeeze(rng: np.random.Generator, sticker: FloatImage, squeeze: float) -> FloatImage:
    if squeeze == 1.0 or rng.random() < 0.4:
        return sticker
    factor = math.exp(rng.uniform(-1, 1) * math.log(squeeze) / 2)
    sides = (max(3, round(sticker.shape[1] * factor)), max(3, round(sticker.shape[0] / factor)))
    return np.asarray(cv2.resize(sticker, sides, interpolation=cv2.INTER_AREA), np.float32)


def _choose_spot(
    rng: np.random.Generator, sticker: FloatImage, width: int, height: int, allowed: float
) -> tuple[int, int, FloatImage] | None:
    """A random place, and the part of the sticker inside the image; None if it does not fit.

    `allowed` is the share of each side that may lie outside.
    """
    rows, cols = sticker.shape[:2]
    out_x, out_y = (int(allowed * side) if rng.random() < 0.7 else 0 for side in (cols, rows))
    if cols - 2 * out_x > width or rows - 2 * out_y > height:
        return None
    left = int(rng.integers(-out_x, width - cols + out_x + 1))
    top = int(rng.integers(-out_y, height - rows + out_y + 1))
    inside = sticker[max(0, -top) : height - top, max(0, -left) : width - left]
    return max(0, left), max(0, top), inside


def _hides_too_much(
    drawn: npt.NDArray[np.bool_],
    region: UInt8Array,
    item_map: UInt8Array,
    name: str,
    placed: list[_Placed],
    min_visible: float,
) -> bool:
    """Whether drawing there would hide too much of an earlier object, or lie on one of the same name."""
    if not drawn.any():
        return True
    hidden = np.bincount(region[drawn], minlength=len(placed) + 1)
    for index in np.flatnonzero(hidden[1:]):
        visible = np.count_nonzero(item_map == index + 1) - hidden[index + 1]
        if visible < min_visible * placed[index].area:
            return True
        if placed[index].name == name and hidden[index + 1] > 0.04 * drawn.sum():
            return True
    return False


def _items(placed: list[_Placed], item_map: UInt8Array) -> tuple[Item, ...]:
    height, width = item_map.shape
    items = []
    for index, one in enumerate(placed):
        visible = item_map == index + 1
        rows, cols = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
        box = (cols[0] / width, rows[0] / height, (cols[-1] + 1) / width, (rows[-1] + 1) / height)
        x_min, y_min, x_max, y_max = (float(value) for value in box)
        items.append(Item(one.name, one.colour, one.doubtful, (x_min, y_min, x_max, y_max)))
    return tuple(items)
