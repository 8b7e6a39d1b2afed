"""Detections of other blocks: which boxes are asked about, and how answers get into their data."""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from threading import Lock
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import supervision as sv
from inference.core.workflows.execution_engine.constants import DETECTION_ID_KEY, IMAGE_DIMENSIONS_KEY

from workflow_blocks.blocks.common.class_names import CLASS_NAME_KEY
from workflow_blocks.blocks.moondream2.results import Box

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroundedBoxes:
    """Detections of an image, and those of their boxes that can be asked about.

    Attributes:
        detections: all of them.
        asked: indices of the boxes that have an area in the image.
        boxes: these boxes, clipped to the image.
    """

    detections: sv.Detections
    asked: list[int]
    boxes: list[Box]

    @property
    def all_asked(self) -> bool:
        return len(self.asked) == len(self.detections)


def grounded_boxes(detections: sv.Detections, width: int, height: int) -> GroundedBoxes:
    """The boxes to ask about. Boxes of another image, not a number or outside the image get no answers."""
    detections = _with_ids(detections)
    sizes = detections.data.get(IMAGE_DIMENSIONS_KEY)
    if (
        sizes is not None
        and len(detections)
        and not np.array_equal(np.unique(sizes, axis=0), [[height, width]])
    ):
        _LOGGER.warning(
            "`grounding_detection` has boxes of an image of %s pixels (height, width), and the image has %s; "
            "nothing is asked about them",
            np.asarray(sizes)[0].tolist(),
            [height, width],
        )
        return GroundedBoxes(detections, [], [])
    xyxy = np.asarray(detections.xyxy, np.float64).reshape(-1, 4)
    finite = np.isfinite(xyxy).all(axis=1)
    clipped = np.clip(np.where(np.isfinite(xyxy), xyxy, 0), 0, [width, height, width, height])
    has_area = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    asked = np.flatnonzero(finite & has_area).tolist()
    if len(asked) < len(detections):
        _LOGGER.warning(
            "`grounding_detection` has %d boxes without an area in the image; nothing is asked about them",
            len(detections) - len(asked),
        )
    return GroundedBoxes(detections, asked, [tuple(clipped[index].tolist()) for index in asked])


def _with_ids(detections: sv.Detections) -> sv.Detections:
    """A copy whose detections all have an id; the given ones are those of another step."""
    copy = deepcopy(detections)
    if DETECTION_ID_KEY not in copy.data and len(copy):
        copy[DETECTION_ID_KEY] = np.array([str(uuid4()) for _ in range(len(copy))], dtype=np.str_)
    return copy


def with_attributes(detections: sv.Detections, columns: Mapping[str, Sequence[Any]]) -> sv.Detections:
    """Adds a value for each detection under each name."""
    for name, values in columns.items():
        detections.data[name] = _array(values)
    return detections


class ClassIds:
    """Ids of class names that are not known before, in the order in which they come. Threads may share it.

    A class keeps its id from image to image, so that it keeps its colour in a video.
    """

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._lock = Lock()

    def of(self, names: Sequence[str]) -> list[int]:
        with self._lock:
            return [self._ids.setdefault(name, len(self._ids)) for name in names]


def replace_classes(
    detections: sv.Detections, answers: Sequence[str], classes: Sequence[str], class_ids: ClassIds
) -> sv.Detections:
    """Makes each answer the class of its detection; where there is none, the name of the class stays.

    Args:
        detections: all detections of an image.
        answers: for each detection, or "".
        classes: the classes that were given, if any: the first ids are theirs, in their order.
        class_ids: ids of the other answers.
    """
    if not len(detections):
        return detections
    names = detections.data.get(CLASS_NAME_KEY)
    own = [""] * len(detections) if names is None else list(map(str, names))
    new = [answer or kept for answer, kept in zip(answers, own, strict=True)]
    if classes:
        ids = {name: index for index, name in enumerate(dict.fromkeys([*classes, *new]))}
        class_id = [ids[name] for name in new]
    else:
        class_id = class_ids.of(new)
    detections.data[CLASS_NAME_KEY] = np.array(new, dtype=np.str_)
    detections.class_id = np.array(class_id, dtype=np.int64)
    return detections


def _array(values: Sequence[Any]) -> npt.NDArray[Any]:
    """Texts as an array of texts; anything else as objects, since values may be empty or lists."""
    if all(isinstance(value, str) for value in values):
        return np.array(values, dtype=np.str_)
    objects = np.empty(len(values), dtype=object)
    objects[:] = list(values)
    return objects
