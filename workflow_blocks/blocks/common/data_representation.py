"""Predictions as steps exchange them: `supervision` with numpy, or Inference's own classes with tensors.

The engine's setting `ENABLE_TENSOR_DATA_REPRESENTATION` decides. This plugin's blocks use `supervision`.
"""

from collections.abc import Sequence
from typing import Any

import supervision as sv
from inference.core.env import ENABLE_TENSOR_DATA_REPRESENTATION

from workflow_blocks.blocks.common.client_errors import InvalidInputError, shown


def to_engine(detections: sv.Detections) -> Any:
    """Detections with their workflow data, in the form that other blocks take."""
    if not ENABLE_TENSOR_DATA_REPRESENTATION:
        return detections
    from roboflow_workflows.execution_engine.v1.dynamic_blocks.representation_boundary import (
        sv_detections_to_native,
    )

    return sv_detections_to_native(detections)


def from_engine(predictions: Any, block_name: str, field: str = "predictions") -> sv.Detections:
    """Predictions of any block (boxes, masks or keypoints) as `supervision` detections.

    Raises:
        InvalidInputError: they are something else, or have class ids without names.
    """
    if isinstance(predictions, sv.Detections):
        return predictions
    from inference_models import Detections, InstanceDetections
    from roboflow_workflows.execution_engine.v1.dynamic_blocks.representation_boundary import (
        native_detections_to_sv,
        native_key_point_prediction_to_sv,
    )

    is_key_points = (
        isinstance(predictions, tuple) and len(predictions) == 2 and isinstance(predictions[1], Detections)
    )
    if not is_key_points and not isinstance(predictions, (Detections, InstanceDetections)):
        raise InvalidInputError(f"`{field}` is {shown(predictions)}; give the predictions of a step")
    try:
        if is_key_points:
            detections = native_key_point_prediction_to_sv(predictions, block_name, "predictions")
        else:
            detections = native_detections_to_sv(predictions)
    except (KeyError, IndexError) as error:
        raise InvalidInputError(
            f"`{field}` holds detections whose class has no name ({error}); give the output of a "
            "detection step, with a name for each class"
        ) from error
    boxes = predictions[1] if is_key_points else predictions
    detections.data = _in_order(detections.data, boxes.bboxes_metadata or [])
    return detections


def _in_order(data: dict[str, Any], of_boxes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The data in the order in which the boxes have it: the engine's conversion collects it in a set."""
    names = dict.fromkeys(name for of_box in of_boxes for name in of_box if name in data)
    return {name: values for name, values in data.items() if name not in names} | {
        name: data[name] for name in names
    }


def key_points_to_engine(detections: sv.Detections) -> Any:
    """The same for detections with key points in their data."""
    if not ENABLE_TENSOR_DATA_REPRESENTATION:
        return detections
    from roboflow_workflows.execution_engine.v1.dynamic_blocks.representation_boundary import (
        sv_detections_to_native_key_point_prediction,
    )

    return sv_detections_to_native_key_point_prediction(detections)


def classification_to_engine(prediction: dict[str, Any], image: Any, class_names: list[str]) -> Any:
    """A classification, as core blocks with numpy write it, in the form that other blocks take."""
    # It keeps every class; the conversion for dynamic blocks can lose the least likely one.
    from roboflow_workflows.core_steps.common.vlm_decoding import to_tensor_native_predictions

    return to_tensor_native_predictions(prediction, image, class_names)
