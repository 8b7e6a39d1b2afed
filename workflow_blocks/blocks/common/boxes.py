"""Boxes in pixels of an image."""

import numpy as np
import supervision as sv


def clip_to_image(detections: sv.Detections, width: int, height: int) -> sv.Detections:
    """Clips boxes (N, 4) to the image and drops those without an area in it; their data goes along."""
    xyxy = sv.clip_boxes(detections.xyxy.astype(np.float64), (width, height))
    has_area = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    clipped = detections[has_area]
    clipped.xyxy = xyxy[has_area]
    return clipped
