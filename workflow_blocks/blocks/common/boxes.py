"""Boxes in pixels of an image."""

import dataclasses

import numpy as np
import supervision as sv
from inference.core.workflows.execution_engine.constants import (
    ROOT_PARENT_COORDINATES_KEY,
    ROOT_PARENT_ID_KEY,
)
from inference.core.workflows.execution_engine.entities.base import WorkflowImageData


def in_pixels_of(image: WorkflowImageData, detections: sv.Detections) -> sv.Detections:
    """Detections with their boxes in pixels of an image, also if they were made on a crop of it.

    Detections that do not say where they were made, or were made on another image, stay as they are.
    """
    root = image.workflow_root_ancestor_metadata
    places = detections.data.get(ROOT_PARENT_COORDINATES_KEY)
    parents = detections.data.get(ROOT_PARENT_ID_KEY)
    if not len(detections) or places is None or parents is None or set(parents) != {root.parent_id}:
        return detections
    shift = np.asarray(places) - (root.origin_coordinates.left_top_x, root.origin_coordinates.left_top_y)
    return dataclasses.replace(detections, xyxy=detections.xyxy + np.tile(shift, 2))


def clip_to_image(detections: sv.Detections, width: int, height: int) -> sv.Detections:
    """Clips boxes (N, 4) to the image and drops those without an area in it; their data goes along."""
    xyxy = sv.clip_boxes(detections.xyxy.astype(np.float64), (width, height))
    has_area = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    clipped = detections[has_area]
    clipped.xyxy = xyxy[has_area]
    return clipped
