"""Classes with several prompts in Inference's engine, with the demo model on scenes whose truth is known."""

import json
import re

import numpy as np
import pytest
from inference.core.workflows.errors import WorkflowError

from tests.scenes import image_bgr, recall, true_boxes
from tests.workflows.definitions import detection_step, detection_workflow, workflow
from workflow_blocks.blocks.common.data_representation import from_engine
from workflow_blocks.running.definitions import read_definition as definition

CLASSES = {"round": "circle", "angular": ["square", "triangle", "star"]}
FLAT = ["circle", "square", "triangle", "star"]
CLASS_OF = {"circle": "round", "square": "angular", "triangle": "angular", "star": "angular"}
WITH_CIRCLES = 7  # a scene with circles, squares and triangles


def literal(prompts, **fields):
    return detection_workflow(inputs=(), prompts=prompts, **fields)


@pytest.fixture(params=["literal", "selector"])
def detect(request, run_workflow):
    """Runs the block with prompts that are written in the definition, or that come as an input."""

    def run(image, prompts, **fields):
        if request.param == "literal":
            return run_workflow(literal(prompts, **fields), image=image)
        names = ("prompts", *fields)
        selectors = {name: f"$inputs.{name}" for name in fields}
        return run_workflow(
            detection_workflow(inputs=names, **selectors), image=image, prompts=prompts, **fields
        )

    return run


def test_classes_have_the_boxes_of_their_prompts(run_workflow, detect):
    images = [image_bgr(number) for number in range(4)]
    flat = run_workflow(detection_workflow(iou_threshold=1.0), image=images, prompts=FLAT)

    results = detect(images, CLASSES, iou_threshold=1.0)

    for result, other in zip(results, flat, strict=True):
        predictions, expected = result["predictions"], other["predictions"]
        np.testing.assert_allclose(predictions.xyxy, expected.xyxy, atol=1e-3)
        assert predictions["prompt"].tolist() == expected["class_name"].tolist()
        assert predictions["class_name"].tolist() == [CLASS_OF[name] for name in expected["class_name"]]
        assert predictions.class_id.tolist() == [
            list(CLASSES).index(name) for name in predictions["class_name"]
        ]
        assert list(result["counts"]) == list(CLASSES)
        assert result["counts"]["round"] == other["counts"]["circle"]
        assert sum(result["counts"].values()) == sum(other["counts"].values()) > 0


def test_the_attributes_name_the_prompt_of_each_serialized_detection(run_workflow):
    (result,) = run_workflow(literal(CLASSES), serialize=True, image=image_bgr(0))

    boxes = result["predictions"]["predictions"]
    assert boxes
    assert [entry["detection_id"] for entry in result["attributes"]] == [box["detection_id"] for box in boxes]
    assert [CLASS_OF[entry["prompt"]] for entry in result["attributes"]] == [box["class"] for box in boxes]
    json.dumps(result["attributes"])


def test_an_image_without_detections_has_no_attributes(run_workflow):
    blank = np.full((64, 64, 3), 128, np.uint8)

    (result,) = run_workflow(literal({"a": ["dog"]}, confidence=1.0), serialize=True, image=blank)

    assert result["attributes"] == []
    assert result["counts"] == {"a": 0}


def test_two_prompts_for_one_object_give_one_box(detect):
    words = ["shape", "circle", "red shape", "blue shape", "yellow shape", "green shape"]
    (separate,) = detect(image_bgr(0), words)
    (together,) = detect(image_bgr(0), {"thing": words})

    found, there = recall(together["predictions"].xyxy, true_boxes(0))
    assert found == there > 0
    assert together["counts"]["thing"] < sum(separate["counts"].values())
    assert together["counts"]["thing"] <= there + 1


def test_each_class_has_its_threshold(detect):
    image = image_bgr(0)
    (all_boxes,) = detect(image, CLASSES)
    scores = all_boxes["predictions"].confidence
    between = float(np.median(scores))

    (result,) = detect(image, CLASSES, confidence={"round": 1.0, "*": between})

    kept = result["predictions"]
    assert result["counts"]["round"] == 0
    angular = all_boxes["predictions"]["class_name"] == "angular"
    assert len(kept) == int((angular & (scores >= between)).sum())


def test_prompts_of_each_image(run_workflow):
    prompts = [CLASSES, ["star"], "circle", {"red": "red shape"}]
    batch = definition("prompts_per_image")
    batch["inputs"][1]["kind"] = ["list_of_values", "dictionary", "string"]

    results = run_workflow(batch, image=[image_bgr(number) for number in range(4)], prompts=prompts)

    assert [list(result["counts"]) for result in results] == [
        ["round", "angular"],
        ["star"],
        ["circle"],
        ["red"],
    ]


def test_a_class_may_take_its_prompts_from_a_selector(run_workflow):
    prompts = {"round": "$inputs.round", "angular": ["square", "star"]}
    chained = detection_workflow(inputs=("round",), prompts=prompts)

    for given in ("circle", ["circle", "ball"]):
        (result,) = run_workflow(chained, image=image_bgr(WITH_CIRCLES), round=given)
        (expected,) = run_workflow(literal(prompts | {"round": given}), image=image_bgr(WITH_CIRCLES))

        assert expected["counts"]["round"] > 0
        assert result["counts"] == expected["counts"]
        np.testing.assert_allclose(result["predictions"].xyxy, expected["predictions"].xyxy, atol=1e-3)


@pytest.mark.parametrize(
    "prompts", [{"a": []}, {}, {"a": {"b": "c"}}, {"": "dog"}, {"a b": "x", "a  b": "y"}]
)
def test_wrong_classes_are_client_errors(detect, prompts):
    with pytest.raises(WorkflowError) as error:
        detect(image_bgr(0), prompts)

    assert re.search(
        r"`prompts` (holds|is) .*; give a prompt such as", f"{error.value} {error.value.inner_error}"
    )


def test_the_tables_of_classes_survive_tiles_and_crops(run_workflow):
    slicer = {
        "type": "roboflow_core/image_slicer@v1",
        "name": "slicer",
        "image": "$inputs.image",
        "slice_width": 200,
        "slice_height": 200,
    }
    stitch = {
        "type": "roboflow_core/detections_stitch@v1",
        "name": "stitch",
        "reference_image": "$inputs.image",
        "predictions": "$steps.detection.predictions",
    }
    tiled = workflow(
        slicer,
        detection_step(images="$steps.slicer.slices", prompts=CLASSES),
        stitch,
        inputs=(),
        outputs={"predictions": "$steps.stitch.predictions"},
    )

    (result,) = run_workflow(tiled, image=image_bgr(0))

    predictions = from_engine(result["predictions"], "test")
    assert len(predictions)
    assert [CLASS_OF[prompt] for prompt in predictions["prompt"]] == predictions["class_name"].tolist()
