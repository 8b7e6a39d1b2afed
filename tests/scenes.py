"""Scenes with ground truth for tests, from seeds that training never draws."""

from functools import cache

import cv2
import numpy as np
import supervision as sv

from training.scenes import Scene, draw_scene

FIRST_SEED = 2_000_000


@cache
def scene(number: int) -> Scene:
    return draw_scene(FIRST_SEED + number)


def image_bgr(number: int) -> np.ndarray:
    return np.ascontiguousarray(scene(number).image[..., ::-1])


def image_png(number: int) -> bytes:
    """The scene as a PNG file."""
    return cv2.imencode(".png", image_bgr(number))[1].tobytes()


def true_boxes(number: int, colour: str | None = None, shape: str | None = None) -> np.ndarray:
    """The boxes (N, 4) of a scene's objects of a colour and shape."""
    boxes = [
        item.xyxy
        for item in scene(number).objects
        if colour in (None, item.colour) and shape in (None, item.shape)
    ]
    return np.array(boxes, dtype=float).reshape(-1, 4)


def recall(found_xyxy: np.ndarray, true_xyxy: np.ndarray, iou: float = 0.5) -> tuple[int, int]:
    """How many true boxes are found, and how many there are."""
    if len(found_xyxy) == 0 or len(true_xyxy) == 0:
        return 0, len(true_xyxy)
    overlaps = sv.box_iou_batch(true_xyxy, found_xyxy)
    return int((overlaps.max(axis=1) >= iou).sum()), len(true_xyxy)
