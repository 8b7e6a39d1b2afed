"""Predictions as steps exchange them: `supervision` with numpy, or Inference's own classes with tensors.

The engine's setting `ENABLE_TENSOR_DATA_REPRESENTATION` decides. This plugin's blocks use `supervision`.
"""

from typing import Any

import supervision as sv
from inference.core.env import ENABLE_TENSOR_DATA_REPRESENTATION

from workflow_blocks.blocks.common.client_errors import InvalidInputError


def to_engine(detections: sv.Detections) -> Any:
    """Detections with their workflow data, in the form that other blocks take."""
    if not ENABLE_TENSOR_DATA_REPRESENTATION:
        return detections
    from roboflow_workflows.execution_engine.v1.dynamic_blocks.representation_boundary import (
        sv_detections_to_native,
    )

    return sv_detections_to_native(detections)


def from_engine(predictions: Any, block_name: str) -> sv.Detections:
    """Predictions of any block (boxes, masks or keypoints) as `supervision` detections.

    Raises:
        InvalidInputError: they have class ids without names.
    """
    if isinstance(predictions, sv.Detections):
        return predictions
    from roboflow_workflows.execution_engine.v1.dynamic_blocks.representation_boundary import (
        native_detections_to_sv,
        native_key_point_prediction_to_sv,
    )

    try:
        if isinstance(predictions, tuple):
            return native_key_point_prediction_to_sv(predictions, block_name, "predictions")
        return native_detections_to_sv(predictions)
    except (KeyError, IndexError) as error:
        raise InvalidInputError(
            f"`predictions` holds detections whose class has no name ({error}); give the output of a "
            "detection step, with a name for each class"
        ) from error
