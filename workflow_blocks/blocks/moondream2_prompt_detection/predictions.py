"""What a model found in an image, to predictions that every core block takes.

Boxes are (N, 4): x_min, y_min, x_max, y_max in pixels of the image that the model saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import supervision as sv
from inference.core.workflows.core_steps.common.utils import (
    attach_parents_coordinates_to_sv_detections,
    attach_prediction_type_info_to_sv_detections_batch,
)
from inference.core.workflows.execution_engine.constants import (
    DETECTION_ID_KEY,
    IMAGE_DIMENSIONS_KEY,
    INFERENCE_ID_KEY,
    PARENT_ID_KEY,
)
from inference.core.workflows.execution_engine.entities.base import WorkflowImageData

from workflow_blocks.blocks.common.client_errors import InvalidInputError, shown
from workflow_blocks.blocks.common.manifest_fields import check_whole_number

MAX_DETECTIONS = 50

CLASS_NAME_KEY = "class_name"
PREDICTION_TYPE = "object-detection"


@dataclass(frozen=True)
class DetectionLimits:
    """Which detections to keep; `max_detections` counts each prompt's own.

    Raises:
        InvalidInputError: a limit is out of its range.
    """

    confidence: float
    max_detections: int
    iou_threshold: float
    class_agnostic_nms: bool

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        check_max_detections(self.max_detections)
        check_iou_threshold(self.iou_threshold)


def check_confidence(value: object) -> object:
    return _check_share("confidence", value)


def check_iou_threshold(value: object) -> object:
    return _check_share("iou_threshold", value)


def check_max_detections(value: object) -> object:
    return check_whole_number("max_detections", value, 1, MAX_DETECTIONS)


def _check_share(name: str, value: object) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return value
    raise InvalidInputError(f"`{name}` is {shown(value)}; give a number from 0 to 1")


@dataclass(frozen=True)
class ImageDetections:
    """What a model found in one image: boxes (N, 4), class ids (N,) and confidences (N,)."""

    xyxy: npt.NDArray[np.float64]
    class_id: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]

    @classmethod
    def from_model(cls, detections: Any) -> "ImageDetections":
        """From what Inference's models return, with torch tensors on any device."""
        # An empty result of Inference's own model has boxes of shape (0,).
        return cls(
            xyxy=detections.xyxy.cpu().numpy().astype(np.float64).reshape(-1, 4),
            class_id=detections.class_id.cpu().numpy().astype(np.int64),
            confidence=detections.confidence.cpu().numpy().astype(np.float64),
        )

    @classmethod
    def joined(cls, parts: Sequence["ImageDetections"]) -> "ImageDetections":
        return cls(
            xyxy=np.concatenate([part.xyxy for part in parts]),
            class_id=np.concatenate([part.class_id for part in parts]),
            confidence=np.concatenate([part.confidence for part in parts]),
        )

    def of_class(self, class_id: int) -> "ImageDetections":
        """The same boxes, all of one class."""
        return replace(self, class_id=np.full(len(self.xyxy), class_id, np.int64))


def select_detections(
    found: ImageDetections, width: int, height: int, limits: DetectionLimits
) -> sv.Detections:
    """Clips boxes to the image and drops empty, unsure, duplicate and surplus ones.

    Detections keep their order: by prompt, then as the model found them.
    """
    xyxy = sv.clip_boxes(found.xyxy, (width, height))
    detections = sv.Detections(xyxy=xyxy, class_id=found.class_id, confidence=found.confidence)
    has_area = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    detections = detections[has_area & (found.confidence >= limits.confidence)]
    detections = detections.with_nms(limits.iou_threshold, class_agnostic=limits.class_agnostic_nms)
    return detections[_surest_of_each_class(detections, limits.max_detections)]


def _surest_of_each_class(detections: sv.Detections, count: int) -> npt.NDArray[np.int64]:
    """Indices of each class's `count` most confident detections, in their order."""
    surest_first = np.argsort(-detections.confidence, kind="stable")
    kept = [
        surest_first[detections.class_id[surest_first] == class_id][:count]
        for class_id in np.unique(detections.class_id)
    ]
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)


def attach_workflow_data(
    detections: sv.Detections, image: WorkflowImageData, class_names: list[str]
) -> sv.Detections:
    """Adds what blocks downstream read: names, ids, image size, and where the image came from."""
    count = len(detections)
    height, width = image.numpy_image.shape[:2]
    detections[CLASS_NAME_KEY] = np.array([class_names[i] for i in detections.class_id], dtype=np.str_)
    detections[DETECTION_ID_KEY] = np.array([str(uuid4()) for _ in range(count)], dtype=np.str_)
    detections[PARENT_ID_KEY] = np.array([""] * count, dtype=np.str_)
    detections[IMAGE_DIMENSIONS_KEY] = np.array([[height, width]] * count, dtype=np.int64).reshape(-1, 2)
    detections[INFERENCE_ID_KEY] = np.array([str(uuid4())] * count, dtype=np.str_)
    if count == 0:
        # Without rows, the image's size can only be told for the whole set.
        detections.metadata[IMAGE_DIMENSIONS_KEY] = [height, width]
    (detections,) = attach_prediction_type_info_to_sv_detections_batch([detections], PREDICTION_TYPE)
    return attach_parents_coordinates_to_sv_detections(detections, image)
