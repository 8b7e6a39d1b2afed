"""Converts what the runtime finds, relative to the image, to Inference's results in pixels."""

from collections.abc import Sequence

import torch
from inference_models import Detections
from inference_models.entities import ImageDimensions
from inference_models.models.moondream2.moondream2_hf import Points

from workflow_blocks.moondream2.objects import DetectedObject, DetectedPoint


def to_detections(found: list[list[DetectedObject]], size: ImageDimensions) -> Detections:
    """The objects of all classes as one set of boxes in pixels."""
    objects = [item for items in found for item in items]
    relative = torch.tensor([(o.x_min, o.y_min, o.x_max, o.y_max) for o in objects]).reshape(-1, 4)
    scale = torch.tensor([size.width, size.height, size.width, size.height], dtype=torch.float32)
    class_id, confidence = _classes_and_confidences(found)
    return Detections(xyxy=relative.clamp(0, 1) * scale, class_id=class_id, confidence=confidence)


def to_points(found: list[list[DetectedPoint]], size: ImageDimensions) -> Points:
    """The points of all classes as one set of points in pixels."""
    relative = torch.tensor([(item.x, item.y) for items in found for item in items]).reshape(-1, 2)
    class_id, confidence = _classes_and_confidences(found)
    scale = torch.tensor([size.width, size.height], dtype=torch.float32)
    return Points(xy=relative * scale, class_id=class_id, confidence=confidence)


def _classes_and_confidences(
    found: Sequence[Sequence[DetectedObject | DetectedPoint]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class ids int64 (N,) and confidences float32 (N,)."""
    pairs = [(class_id, item.confidence) for class_id, items in enumerate(found) for item in items]
    return (
        torch.tensor([class_id for class_id, _ in pairs], dtype=torch.int64),
        torch.tensor([confidence for _, confidence in pairs], dtype=torch.float32),
    )
