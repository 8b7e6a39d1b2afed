"""The engine's tensor-native mode, which it takes from the environment when it is imported."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from inference.core.env import ENABLE_TENSOR_DATA_REPRESENTATION

from tests.scenes import image_bgr
from tests.workflows.definitions import detection_step, detection_workflow, workflow
from workflow_blocks.blocks.common.data_representation import from_engine

HERE = Path(__file__)
native = pytest.mark.skipif(not ENABLE_TENSOR_DATA_REPRESENTATION, reason="run in a process of its own")


def test_tensor_native_mode_in_its_own_process():
    """These tests, and all definitions against what was drawn."""
    files = [str(HERE), str(HERE.with_name("test_definitions.py"))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not own_process", *files],
        cwd=HERE.parents[2],
        env=dict(os.environ) | {"ENABLE_TENSOR_DATA_REPRESENTATION": "True"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-3000:]


@native
def test_predictions_are_of_the_engine_s_native_type(run_workflow):
    from inference_models import Detections

    blank = np.full((240, 320, 3), 128, np.uint8)
    found, empty = run_workflow(detection_workflow(), image=[image_bgr(1), blank], prompts=["star", "dog"])

    assert isinstance(found["predictions"], Detections)
    assert found["predictions"].xyxy.shape == (found["counts"]["star"], 4)
    assert found["predictions"].image_metadata["class_names"][0] == "star"
    assert empty["predictions"].xyxy.shape == (0, 4)
    assert empty["counts"] == {"star": 0, "dog": 0}


@native
def test_empty_results_of_slices_are_no_trouble(run_workflow):
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
    assert min(counts) == 0


@native
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
