"""Pictures of a comparison: an image with the boxes of both classes, side by side."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray

from workflow_blocks.datasets.atomic_files import write_atomically
from workflow_blocks.evaluation.box_agreement import Box, match_boxes
from workflow_blocks.evaluation.comparison import Comparison
from workflow_blocks.evaluation.comparison_report import title
from workflow_blocks.image_files import read_image_file

PREFIX = "comparison_"

_MAX_NAME_BYTES = 200
_WRITTEN_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_PANEL = 720  # pixels, the longer side of an image
_BAR = 36
_GAP = 8
_AGREES, _DIFFERS = sv.Color.from_hex("#0b7a75"), sv.Color.from_hex("#c2410c")

_Picture = NDArray[np.uint8]


def write_pictures(comparison: Comparison, output: Path) -> None:
    """Writes a picture for each image, named after it.

    Raises:
        OSError: one cannot be written.
    """
    for index, path in enumerate(comparison.images):
        suffix = path.suffix if path.suffix.lower() in _WRITTEN_SUFFIXES else f"{path.suffix}.png"
        name = _name(path.stem, suffix, number=index)
        # OpenCV never sees the path: some names crash it.
        _, content = cv2.imencode(Path(name).suffix, draw(comparison, index))
        write_atomically(output / name, content.tobytes())


def _name(stem: str, suffix: str, number: int) -> str:
    """A name that is not too long; a number makes a shortened one its own."""
    name = f"{PREFIX}{stem}{suffix}"
    if len(os.fsencode(name)) <= _MAX_NAME_BYTES:
        return name
    short = os.fsencode(stem)[: _MAX_NAME_BYTES // 2].decode(errors="ignore")
    return f"{PREFIX}{short}_{number}.{suffix.rpartition('.')[2]}"


def draw(comparison: Comparison, index: int) -> _Picture:
    """The picture of one image, BGR (H, W, 3): what differs has another colour and says so."""
    image = read_image_file(comparison.images[index])
    inference, plugin = comparison.inference, comparison.plugin[0]
    ours = plugin.found[index]
    if inference is None:
        return _panel(image, ours, comparison.prompts, title(plugin, True), set(), "")
    theirs = inference.found[index]
    matches = match_boxes(theirs, ours)
    missed = set(range(len(theirs))) - {match.reference for match in matches}
    added = set(range(len(ours))) - {match.other for match in matches}
    left = _panel(image, theirs, comparison.prompts, title(inference, False), missed, "missed")
    right = _panel(image, ours, comparison.prompts, title(plugin, True), added, "added")
    gap = np.full((left.shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def _panel(
    image: _Picture, boxes: Sequence[Box], prompts: Sequence[str], name: str, differ: set[int], how: str
) -> _Picture:
    """An image with boxes under a bar with the name; boxes whose index is in `differ` are marked."""
    height, width = image.shape[:2]
    scale = _PANEL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    # Narrow images get room for the name, flat ones for labels.
    right, below = _PANEL - size[0], max(0, _PANEL // 4 - size[1])
    padded = cv2.copyMakeBorder(resized, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(235, 235, 235))
    picture = _annotated(np.asarray(padded, np.uint8), boxes, prompts, scale, differ, how)
    bar = np.full((_BAR, _PANEL, 3), 40, np.uint8)
    text = f"{name}: {len(boxes)} boxes" + (f", {len(differ)} {how}" if how else "")
    cv2.putText(bar, text, (10, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, picture])


def _annotated(
    picture: _Picture,
    boxes: Sequence[Box],
    prompts: Sequence[str],
    scale: float,
    differ: set[int],
    how: str,
) -> _Picture:
    if not boxes:
        return picture
    detections = sv.Detections(
        xyxy=np.array([box.xyxy for box in boxes], dtype=float) * scale,
        class_id=np.array([int(index in differ) for index in range(len(boxes))]),
    )
    labels = [
        f"{prompts[box.prompt]} {box.confidence:.2f}" + (f" ({how})" if index in differ else "")
        for index, box in enumerate(boxes)
    ]
    palette = sv.ColorPalette([_AGREES, _DIFFERS])
    look = {"color": palette, "color_lookup": sv.ColorLookup.CLASS}
    edge = sv.BoxAnnotator(sv.Color.WHITE, thickness=6)  # so that boxes are seen on every colour
    picture = edge.annotate(picture.copy(), detections)
    picture = sv.BoxAnnotator(thickness=3, **look).annotate(picture, detections)
    annotator = sv.LabelAnnotator(text_scale=0.45, text_padding=4, smart_position=True, **look)
    return np.asarray(annotator.annotate(picture, detections, labels), np.uint8)
