"""Draws scenes of coloured shapes on busy backgrounds, with ground truth.

A seed gives the same scene again. Images are RGB; boxes are in pixels, x_min, y_min, x_max, y_max.
"""

import colorsys
import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
Colour = tuple[int, int, int]


class Hsv(NamedTuple):
    """Ranges of hue in degrees, saturation and value."""

    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]


COLOURS = {
    "red": Hsv((-10, 8), (0.72, 1.0), (0.6, 1.0)),
    "green": Hsv((95, 150), (0.6, 1.0), (0.45, 1.0)),
    "blue": Hsv((205, 245), (0.65, 1.0), (0.55, 1.0)),
    "yellow": Hsv((46, 62), (0.7, 1.0), (0.8, 1.0)),
}
# Colours that no prompt names, each between two that one does.
LOOK_ALIKES = {
    "orange": Hsv((12, 40), (0.7, 1.0), (0.7, 1.0)),
    "lime": Hsv((66, 90), (0.6, 1.0), (0.6, 1.0)),
    "teal": Hsv((155, 200), (0.6, 1.0), (0.45, 1.0)),
    "purple": Hsv((250, 345), (0.5, 1.0), (0.5, 1.0)),
}
SHAPES = ("circle", "square", "triangle", "star")

# Fixed-point bits of OpenCV's sub-pixel coordinates.
_SHIFT = 4


@dataclass(frozen=True)
class SceneOptions:
    """What scenes are like.

    Sizes are the longer side of an object's box as a share of the image's short side.
    """

    min_short_side: int = 200
    max_short_side: int = 960
    max_long_side: int = 1280
    min_object_size: float = 0.15
    max_object_size: float = 0.45
    max_objects: int = 6
    min_visible: float = 0.75
    max_noise: float = 14.0
    look_alikes: float = 0.0  # share of the objects that have a colour no prompt names


@dataclass(frozen=True)
class SceneObject:
    """One drawn shape; `xyxy` encloses what can be seen of it."""

    colour: str
    shape: str
    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """An image (H, W, 3), its objects, and a map (H, W) of which object a pixel shows.

    `object_map` holds 0 for the background and i + 1 for `objects[i]`.
    """

    image: UInt8Array
    objects: tuple[SceneObject, ...]
    object_map: UInt8Array


DEFAULT_OPTIONS = SceneOptions()


def draw_scene(seed: int, options: SceneOptions = DEFAULT_OPTIONS) -> Scene:
    """Draws the scene of `seed`."""
    rng = np.random.default_rng(seed)
    width, height = _choose_resolution(rng, options)
    image, taken_colour = draw_background(rng, width, height)
    draw_clutter(rng, image)
    objects, object_map = _draw_objects(rng, image, taken_colour, options)
    return Scene(photograph(rng, image, options), objects, object_map)


def _choose_resolution(rng: np.random.Generator, options: SceneOptions) -> tuple[int, int]:
    low, high = math.log(options.min_short_side), math.log(options.max_short_side)
    short = round(math.exp(rng.uniform(low, high)))
    long = min(round(short * rng.uniform(1.0, 1.8)), options.max_long_side)
    return (long, short) if rng.random() < 0.7 else (short, long)


def colour_in(rng: np.random.Generator, ranges: Hsv) -> Colour:
    hue, saturation, value = (rng.uniform(*bounds) for bounds in ranges)
    return hsv_to_rgb(hue, saturation, value)


def hsv_to_rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _muted_colour(rng: np.random.Generator) -> Colour:
    return hsv_to_rgb(rng.uniform(0, 360), rng.uniform(0, 0.3), rng.uniform(0.05, 1.0))


def draw_background(rng: np.random.Generator, width: int, height: int) -> tuple[UInt8Array, str | None]:
    """A background and the name of the object colour that would not show on it, if any."""
    kind = rng.choice(["flat", "saturated", "gradient", "patches", "stripes"], p=[0.2, 0.1, 0.3, 0.25, 0.15])
    if kind == "saturated":
        name = str(rng.choice(list(COLOURS)))
        return np.full((height, width, 3), colour_in(rng, COLOURS[name]), np.uint8), name
    if kind == "flat":
        grey = round(float(rng.choice([0, 40, 128, 200, 255])))
        colour = (grey, grey, grey) if rng.random() < 0.4 else _muted_colour(rng)
        return np.full((height, width, 3), colour, np.uint8), None
    if kind == "gradient":
        corners = np.array([_muted_colour(rng) for _ in range(4)], np.float32).reshape(2, 2, 3)
        image = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    elif kind == "patches":
        cells = int(rng.integers(3, 12))
        base = np.array(_muted_colour(rng), np.float32)
        spots = base + rng.normal(0, rng.uniform(10, 45), (cells, cells, 3)).astype(np.float32)
        smooth = cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_NEAREST
        image = cv2.resize(spots, (width, height), interpolation=smooth)
    else:
        first, second = np.array([_muted_colour(rng) for _ in range(2)], np.float32)
        angle, period = rng.uniform(0, math.pi), rng.uniform(0.04, 0.3) * min(width, height)
        across = np.arange(width) * math.cos(angle) + np.arange(height)[:, None] * math.sin(angle)
        share = (0.5 + 0.5 * np.sin(across * (2 * math.pi / period))).astype(np.float32)
        image = first + share[..., None] * (second - first)
    return np.clip(image, 0, 255).astype(np.uint8), None


def draw_clutter(rng: np.random.Generator, image: UInt8Array) -> None:
    """Draws lines, rings, dots, scribbles and letters: nothing that could pass for a filled shape."""
    if rng.random() < 0.2:
        return
    height, width = image.shape[:2]
    short = min(height, width)
    for _ in range(int(rng.integers(1, 14))):
        vivid = hsv_to_rgb(rng.uniform(0, 360), rng.uniform(0.3, 1), rng.uniform(0.2, 1))
        colour = vivid if rng.random() < 0.6 else _muted_colour(rng)
        at = (int(rng.integers(width)), int(rng.integers(height)))
        thin = max(1, round(short * rng.uniform(0.002, 0.012)))
        kind = rng.choice(["line", "ring", "dots", "scribble", "letters"])
        if kind == "line":
            end = (int(rng.integers(width)), int(rng.integers(height)))
            cv2.line(image, at, end, colour, thin, cv2.LINE_AA)
        elif kind == "ring":
            axes = (round(short * rng.uniform(0.03, 0.2)), round(short * rng.uniform(0.03, 0.2)))
            cv2.ellipse(
                image, at, axes, rng.uniform(0, 360), 0, rng.uniform(60, 300), colour, thin, cv2.LINE_AA
            )
        elif kind == "dots":
            for offset in rng.normal(0, 0.08 * short, (int(rng.integers(3, 12)), 2)):
                dot = (round(at[0] + offset[0]), round(at[1] + offset[1]))
                cv2.circle(
                    image, dot, max(1, round(short * rng.uniform(0.004, 0.015))), colour, -1, cv2.LINE_AA
                )
        elif kind == "scribble":
            steps = rng.normal(0, 0.05 * short, (int(rng.integers(4, 10)), 2)).cumsum(axis=0)
            points = (steps + at).round().astype(np.int32)
            cv2.polylines(image, [points], False, colour, thin, cv2.LINE_AA)
        else:
            text = "".join(rng.choice(list("abcdefghkmnprstuvxyz0123456789"), int(rng.integers(2, 7))))
            cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, short / 400, colour, thin, cv2.LINE_AA)


def _draw_objects(
    rng: np.random.Generator, image: UInt8Array, taken_colour: str | None, options: SceneOptions
) -> tuple[tuple[SceneObject, ...], UInt8Array]:
    height, width = image.shape[:2]
    object_map = np.zeros((height, width), np.uint8)
    palette = [name for name in COLOURS if name != taken_colour]
    # Now and then a scene of few kinds, so that one prompt finds several objects.
    colours = list(rng.choice(palette, int(rng.integers(1, len(palette) + 1)), replace=False))
    shapes = list(rng.choice(SHAPES, int(rng.integers(1, len(SHAPES) + 1)), replace=False))
    placed: list[tuple[str, str, FloatArray, int]] = []  # colour, shape, outline, drawn pixels
    n_objects = 0 if rng.random() < 0.06 else int(rng.integers(1, options.max_objects + 1))
    for _ in range(n_objects):
        for _attempt in range(12):
            colour, shape = str(rng.choice(colours)), str(rng.choice(shapes))
            ranges = COLOURS[colour]
            if options.look_alikes and rng.random() < options.look_alikes:
                colour = str(rng.choice(list(LOOK_ALIKES)))
                ranges = LOOK_ALIKES[colour]
            outline = place(rng, shape, width, height, options)
            mask, top, left = rasterise(outline, width, height)
            drawn = mask > 127
            region = object_map[top : top + mask.shape[0], left : left + mask.shape[1]]
            if _hides_too_much(drawn, region, object_map, colour, placed, options.min_visible):
                continue
            patch = image[top : top + mask.shape[0], left : left + mask.shape[1]]
            paint(rng, patch, mask, colour_in(rng, ranges))
            region[drawn] = len(placed) + 1
            placed.append((colour, shape, outline, int(drawn.sum())))
            break
    objects = tuple(
        SceneObject(colour, shape, _visible_box(outline, object_map == index + 1, area))
        for index, (colour, shape, outline, area) in enumerate(placed)
    )
    return objects, object_map


def place(rng: np.random.Generator, shape: str, width: int, height: int, options: SceneOptions) -> FloatArray:
    """The outline (K, 2) of a shape of random size and rotation that lies inside the image."""
    outline = _unit_outline(shape)
    angle = rng.uniform(0, 2 * math.pi) if rng.random() < 0.75 else 0.0
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    outline = outline @ turn
    low, high = math.log(options.min_object_size), math.log(options.max_object_size)
    size = math.exp(rng.uniform(low, high)) * min(width, height)
    outline = outline * (size / np.ptp(outline, axis=0).max())
    outline = outline - outline.min(axis=0)
    room = np.array([width, height]) - 1 - outline.max(axis=0)
    placed: FloatArray = outline + rng.uniform(0, 1, 2) * room
    return placed


def _unit_outline(shape: str) -> FloatArray:
    """Corners (K, 2) of an upright shape around the origin; y points down."""
    if shape == "circle":
        angles, radii = np.arange(72) * (2 * math.pi / 72), np.ones(72)
    elif shape == "square":
        angles, radii = math.pi / 4 + np.arange(4) * (math.pi / 2), np.ones(4)
    elif shape == "triangle":
        angles, radii = -math.pi / 2 + np.arange(3) * (2 * math.pi / 3), np.ones(3)
    elif shape == "star":
        angles = -math.pi / 2 + np.arange(10) * (math.pi / 5)
        radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    else:
        raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")
    return np.stack((np.cos(angles) * radii, np.sin(angles) * radii), axis=1)


def rasterise(outline: FloatArray, width: int, height: int) -> tuple[UInt8Array, int, int]:
    """The outline's anti-aliased coverage (0-255) in its own rectangle, and that rectangle's top, left."""
    left, top = np.maximum(np.floor(outline.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 2, [width, height])
    mask = np.zeros((bottom - top, right - left), np.uint8)
    points = np.round((outline - [left, top]) * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(mask, [points], (255,), cv2.LINE_AA, _SHIFT)
    return mask, int(top), int(left)


def _hides_too_much(
    drawn: npt.NDArray[np.bool_],
    region: UInt8Array,
    object_map: UInt8Array,
    colour: str,
    placed: list[tuple[str, str, FloatArray, int]],
    min_visible: float,
) -> bool:
    """Whether drawing there would hide too much of an earlier object, or touch one of its own colour."""
    hidden = np.bincount(region[drawn], minlength=len(placed) + 1)
    for index in np.flatnonzero(hidden[1:]):
        other_colour, _, _, area = placed[index]
        visible = np.count_nonzero(object_map == index + 1) - hidden[index + 1]
        if other_colour == colour or visible < min_visible * area:
            return True
    return False


def paint(rng: np.random.Generator, patch: UInt8Array, mask: UInt8Array, colour: Colour) -> None:
    """Fills a shape, at times with shading and an edge line."""
    fill = np.empty((*mask.shape, 3), np.float32)
    fill[:] = colour
    if rng.random() < 0.4:
        angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 0.25)
        rows, cols = (np.linspace(-1, 1, n, dtype=np.float32) for n in mask.shape)
        shade = 1 + strength * (rows[:, None] * math.sin(angle) + cols * math.cos(angle))
        fill = np.clip(fill * shade[..., None], 0, 255)
    if rng.random() < 0.3:
        edge_width = max(1, round(max(mask.shape) * rng.uniform(0.02, 0.05)))
        solid = (mask > 127).astype(np.uint8)
        kernel = np.ones((2 * edge_width + 1, 2 * edge_width + 1), np.uint8)
        padded = np.pad(solid, 1)
        inner = cv2.erode(padded, kernel)[1:-1, 1:-1]
        fill[(solid == 1) & (inner == 0)] = np.array(colour) * rng.uniform(0.3, 0.7)
    alpha = mask[..., None].astype(np.float32) / 255
    patch[:] = np.round(patch + alpha * (fill - patch)).astype(np.uint8)


def _visible_box(
    outline: FloatArray, visible: npt.NDArray[np.bool_], area: int
) -> tuple[float, float, float, float]:
    x_min, y_min = (float(value) for value in outline.min(axis=0))
    x_max, y_max = (float(value) for value in outline.max(axis=0))
    rows, cols = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    if np.count_nonzero(visible) < area:
        x_min, y_min = max(x_min, float(cols[0])), max(y_min, float(rows[0]))
        x_max, y_max = min(x_max, float(cols[-1] + 1)), min(y_max, float(rows[-1] + 1))
    return x_min, y_min, x_max, y_max


def photograph(
    rng: np.random.Generator, image: UInt8Array, options: SceneOptions = DEFAULT_OPTIONS
) -> UInt8Array:
    """Blur, light, sensor noise and JPEG, each at times."""
    short = min(image.shape[:2])
    if rng.random() < 0.2:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), short * rng.uniform(0.001, 0.004)), np.uint8)
    if rng.random() < 0.5:
        gain, offset = rng.uniform(0.8, 1.15), rng.uniform(-15, 15)
        image = np.asarray(cv2.convertScaleAbs(image, alpha=gain, beta=offset), np.uint8)
    if rng.random() < 0.6:
        # One small field of noise, repeated: drawing it afresh for every pixel would take most of the time.
        field = rng.normal(0, rng.uniform(1, options.max_noise), (256, 256, 3)).astype(np.int16)
        rows, cols = (math.ceil(side / 256) for side in image.shape[:2])
        noise = np.tile(field, (rows, cols, 1))[: image.shape[0], : image.shape[1]]
        image = np.clip(image.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))]
        image = np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR), np.uint8)
    return image
