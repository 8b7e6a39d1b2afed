"""Tests in the engine's tensor-native mode, run by `tests/tensor_native_run.py`."""

import numpy as np
from inference.core.env import ENABLE_TENSOR_DATA_REPRESENTATION

from tests.scenes import image_bgr
from tests.workflows.definitions import detection_step, detection_workflow, workflow
from workflow_blocks.blocks.common.data_representation import from_engine


def test_the_mode_is_on():
    assert ENABLE_TENSOR_DATA_REPRESENTATION


def test_predictions_are_of_the_engine_s_native_type(run_workflow):
    from inference_models import Detections

    blank = np.full((240, 320, 3), 128, np.uint8)
    found, empty = run_workflow(detection_workflow(), image=[image_bgr(1), blank], prompts=["star", "dog"])

    assert isinstance(found["predictions"], Detections)
    assert found["predictions"].xyxy.shape == (found["counts"]["star"], 4)
    assert found["predictions"].image_metadata["class_names"][0] == "star"
    assert found["counts"]["star"] > 0
    assert empty["predictions"].xyxy.shape == (0, 4)
    assert empty["counts"] == {"star": 0, "dog": 0}


def test_slices_without_detections_are_serialized(run_workflow):
    """Boxes of shape (0,), as the core block gives, break nested outputs."""
    slicer = {
        "type": "roboflow_core/image_slicer@v2",
        "name": "slicer",
        "image": "$inputs.image",
        "slice_width": 160,
        "slice_height": 160,
    }
    definition = workflow(
        slicer,
        detection_step(images="$steps.slicer.slices"),
        outputs={"of_slices": "$steps.detection.predictions"},
    )

    (result,) = run_workflow(definition, serialize=True, image=image_bgr(0), prompts="star")

    counts = [len(of_slice["predictions"]) for of_slice in result["of_slices"]]
    assert min(counts) == 0 < max(counts)


def test_a_table_takes_native_predictions(run_workflow):
    table = {
        "type": "workflow_blocks/detections_table@v1",
        "name": "table",
        "predictions": "$steps.detection.predictions",
        "image_name": "scene.jpg",
    }
    definition = workflow(
        detection_step(),
        table,
        outputs={"content": "$steps.table.content", "predictions": "$steps.detection.predictions"},
    )

    (result,) = run_workflow(definition, image=image_bgr(1), prompts="shape")

    rows = result["content"].splitlines()[1:]
    boxes = from_engine(result["predictions"], "test").xyxy
    assert len(rows) == len(boxes) > 0
    np.testing.assert_allclose([list(map(float, row.split(",")[4:])) for row in rows], boxes, atol=0.01)
