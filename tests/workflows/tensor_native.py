"""Tests in the engine's tensor-native mode, run by `tests/tensor_native_run.py`."""

import numpy as np
import pytest
from inference.core.env import ENABLE_TENSOR_DATA_REPRESENTATION

from tests.scenes import image_bgr
from tests.stand_ins import checkpoint_with_text
from tests.workflows.definitions import detection_step, detection_workflow, workflow
from workflow_blocks.blocks.common.data_representation import from_engine
from workflow_blocks.inference_host.model_package import write_package_files


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


def test_a_log_has_the_columns_of_answers_though_its_first_image_is_empty(run_workflow, text_package):
    names = [f"question {letter}" for letter in "zay"]
    answers = moondream2_step(
        task_type="detection-grounded-visual-question-answering",
        grounding_detection="$steps.detection.predictions",
        prompt=dict.fromkeys(names, "what?"),
        max_tokens=2,
    )
    table = {
        "type": "workflow_blocks/detections_table@v1",
        "name": "table",
        "predictions": "$steps.ask.predictions",
        "image": "$inputs.image",
    }
    definition = workflow(
        detection_step(),
        answers,
        table,
        inputs=["prompts", "model"],
        outputs={"log": "$steps.table.log_entry"},
    )

    blank = np.full((100, 100, 3), 255, np.uint8)
    results = run_workflow(definition, image=[blank, image_bgr(0)], prompts="shape", model=text_package)

    assert results[0]["log"] is None
    (header, *rows) = results[1]["log"].splitlines()
    assert rows
    # In the order in which they were asked.
    columns = [f"answer_{name}{ending}" for name in names for ending in ("", "_probability")]
    assert header.endswith(f",{','.join(columns)}")


def moondream2_step(**fields):
    return {
        "type": "workflow_blocks/moondream2@v1",
        "name": "ask",
        "images": "$inputs.image",
        "model_version": "$inputs.model",
    } | fields


@pytest.fixture(scope="module")
def text_package(tmp_path_factory):
    folder = checkpoint_with_text(tmp_path_factory.mktemp("text_package"))
    write_package_files(folder)
    return str(folder)


@pytest.mark.parametrize("task", ["classification", "multi-label-classification"])
def test_classes_of_an_image_go_on_to_core_blocks(run_workflow, text_package, task):
    step = moondream2_step(task_type=task, classes=["dog", "cat"])
    top = {
        "type": "roboflow_core/property_definition@v1",
        "name": "top",
        "data": "$steps.ask.predictions",
        "operations": [{"type": "ClassificationPropertyExtract", "property_name": "top_class"}],
    }
    outputs = {
        "predictions": "$steps.ask.predictions",
        "output": "$steps.ask.output",
        "top": "$steps.top.output",
    }

    (result,) = run_workflow(
        workflow(step, top, inputs=["model"], outputs=outputs),
        serialize=True,
        image=image_bgr(0),
        model=text_package,
    )

    entries = result["predictions"]["predictions"]
    assert len(entries) == 2
    assert result["top"] == result["output"]
    if task == "classification":
        assert sum(entry["confidence"] for entry in entries) == pytest.approx(1, abs=1e-5)
        assert result["predictions"]["top"] == result["output"]


def test_points_are_drawn_and_answers_are_in_the_data_of_boxes(run_workflow, text_package):
    points = moondream2_step(task_type="pointing", classes=["dog", "cat"], name="points")
    boxes = detection_step(prompts=["circle", "square", "triangle", "star"])
    answers = moondream2_step(
        task_type="detection-grounded-classification",
        grounding_detection="$steps.detection.predictions",
        classes=["red", "blue"],
        replace_class=True,
    )
    drawn = {
        "type": "roboflow_core/keypoint_visualization@v1",
        "name": "drawn",
        "image": "$inputs.image",
        "predictions": "$steps.points.predictions",
        "annotator_type": "vertex",
    }
    labels = {
        "type": "roboflow_core/label_visualization@v2",
        "name": "labels",
        "image": "$steps.drawn.image",
        "predictions": "$steps.ask.predictions",
    }
    outputs = {
        "points": "$steps.points.points",
        "point_predictions": "$steps.points.predictions",
        "predictions": "$steps.ask.predictions",
        "attributes": "$steps.ask.attributes",
        "drawn": "$steps.drawn.image",
        "picture": "$steps.labels.image",
    }
    definition = workflow(points, boxes, answers, drawn, labels, inputs=["model"], outputs=outputs)

    (result,) = run_workflow(definition, serialize=True, image=image_bgr(0), model=text_package)

    found = result["predictions"]["predictions"]
    assert found
    assert [box["class"] for box in found] == [entry["answer"] for entry in result["attributes"]]
    assert [box["detection_id"] for box in found] == [entry["detection_id"] for entry in result["attributes"]]
    assert len(result["point_predictions"]["predictions"]) == len(result["points"]) > 0
