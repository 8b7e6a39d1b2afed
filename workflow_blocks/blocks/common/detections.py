"""Converts what a model found in an image to predictions that every core block takes.

Boxes are (N, 4): x_min, y_min, x_max, y_max in pixels of the image that the model saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
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
from pydantic import BaseModel, ConfigDict, Field

from workflow_blocks.blocks.common.boxes import clip_to_image
from workflow_blocks.blocks.common.manifest_fields import Fix, Flag, ZeroToOne
from workflow_blocks.blocks.common.prompts import (
    OTHER_CLASSES,
    PromptClasses,
    Threshold,
    ThresholdsByClass,
)
from workflow_blocks.moondream2.config import MAX_OBJECTS

MAX_DETECTIONS = MAX_OBJECTS

CLASS_NAME_KEY = "class_name"
PROMPT_KEY = "prompt"
PREDICTION_TYPE = "object-detection"

MaxDetections = Annotated[
    int,
    Field(strict=True, ge=1, le=MAX_DETECTIONS),
    Fix(f"give a whole number from 1 to {MAX_DETECTIONS}"),
]


class DetectionLimits(BaseModel):
    """Which detections to keep. `max_detections` is for each class."""

    model_config = ConfigDict(frozen=True)

    confidence: Threshold | ThresholdsByClass
    max_detections: MaxDetections
    iou_threshold: ZeroToOne
    class_agnostic_nms: Flag

    def thresholds(self, class_names: Sequence[str]) -> npt.NDArray[np.float64]:
        """The lowest confidence (N,) of each class; 0 where neither the class nor "*" has one."""
        if not isinstance(self.confidence, dict):
            return np.full(len(class_names), self.confidence)
        of_others = self.confidence.get(OTHER_CLASSES, 0.0)
        return np.array([self.confidence.get(name, of_others) for name in class_names])


@dataclass(frozen=True)
class ImageDetections:
    """What a model found in one image: boxes (N, 4), class ids (N,) and confidences (N,)."""

    xyxy: npt.NDArray[np.float64]
    class_id: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]

    @classmethod
    def from_model(cls, detections: Any) -> "ImageDetections":
        """Converts the result of a model in Inference, which has torch tensors on any device."""
        # In an empty result of Inference's own model, boxes have the shape (0,).
        return cls(
            xyxy=detections.xyxy.cpu().numpy().astype(np.float64).reshape(-1, 4),
            class_id=detections.class_id.cpu().numpy().astype(np.int64),
            confidence=detections.confidence.cpu().numpy().astype(np.float64),
        )

    @classmethod
    def none(cls) -> "ImageDetections":
        return cls(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0))

    @classmethod
    def joined(cls, parts: Sequence["ImageDetections"]) -> "ImageDetections":
        return cls(
            xyxy=np.concatenate([part.xyxy for part in parts]),
            class_id=np.concatenate([part.class_id for part in parts]),
            confidence=np.concatenate([part.confidence for part in parts]),
        )

    def of_class(self, class_id: int) -> "ImageDetections":
        """The same boxes, all with one class id."""
        return replace(self, class_id=np.full(len(self.xyxy), class_id, np.int64))


def select_detections(
    found: ImageDetections, classes: PromptClasses, width: int, height: int, limits: DetectionLimits
) -> sv.Detections:
    """Clips boxes to the image, and drops those that are empty, below a limit, duplicate or too many.

    The order of the detections stays: by prompt, then as the model found them.

    Args:
        found: boxes whose class ids index `classes.prompts`.
        classes: the classes that they become.
        width: of the image, in pixels.
        height: of the image, in pixels.
        limits: which boxes to keep.
    """
    detections = clip_to_image(_of_classes(found, classes), width, height)
    detections = detections[detections.confidence >= limits.thresholds(classes.names)[detections.class_id]]
    detections = detections.with_nms(limits.iou_threshold, class_agnostic=limits.class_agnostic_nms)
    return detections[_most_confident_of_each_class(detections, limits.max_detections)]


def _of_classes(found: ImageDetections, classes: PromptClasses) -> sv.Detections:
    """Boxes of prompts as boxes of the classes that have these prompts; each keeps its prompt."""
    rows = [np.flatnonzero(found.class_id == prompt) for _, prompt in classes.pairs]
    class_ids = np.repeat([class_id for class_id, _ in classes.pairs], [len(own) for own in rows])
    kept = np.concatenate([np.empty(0, np.int64), *rows])  # also without classes
    order = np.argsort(kept, kind="stable")
    kept = kept[order]
    return sv.Detections(
        xyxy=found.xyxy[kept],
        class_id=class_ids[order].astype(np.int64),
        confidence=found.confidence[kept],
        data={PROMPT_KEY: np.array(classes.prompts, dtype=np.str_)[found.class_id[kept]]},
    )


def _most_confident_of_each_class(detections: sv.Detections, count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` most confident detections of each class, in ascending order."""
    by_confidence = np.argsort(-detections.confidence, kind="stable")
    kept = [
        by_confidence[detections.class_id[by_confidence] == class_id][:count]
        for class_id in np.unique(detections.class_id)
    ]
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)


def attach_workflow_data(
    detections: sv.Detections,
    image: WorkflowImageData,
    class_names: list[str],
    inference_id: str | None = None,
    prediction_type: str = PREDICTION_TYPE,
) -> sv.Detections:
    """Adds the data that other blocks read: names, ids, image size, and the image's parents."""
    count = len(detections)
    height, width = image.numpy_image.shape[:2]
    detections[CLASS_NAME_KEY] = np.array([class_names[i] for i in detections.class_id], dtype=np.str_)
    detections[DETECTION_ID_KEY] = np.array([str(uuid4()) for _ in range(count)], dtype=np.str_)
    detections[PARENT_ID_KEY] = np.array([""] * count, dtype=np.str_)
    detections[IMAGE_DIMENSIONS_KEY] = np.array([[height, width]] * count, dtype=np.int64).reshape(-1, 2)
    detections[INFERENCE_ID_KEY] = np.array([inference_id or str(uuid4())] * count, dtype=np.str_)
    if count == 0:
        # Without rows, only the metadata can hold the size of the image.
        detections.metadata[IMAGE_DIMENSIONS_KEY] = [height, width]
    (detections,) = attach_prediction_type_info_to_sv_detections_batch([detections], prediction_type)
    return attach_parents_coordinates_to_sv_detections(detections, image)
