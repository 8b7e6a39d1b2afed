"""Detection and other tasks that one real server has done by another."""

import base64

import cv2
import numpy as np
import pytest
import requests

from tests.scenes import image_bgr
from tests.stand_ins import GOLDEN
from tests.workflows.definitions import detection_workflow, workflow
from workflow_blocks.blocks.moondream2.v1 import BlockManifest
from workflow_blocks.bundled_model import demo_model_folder

PROMPTS = ["circle", "square", "star", "triangle", "red shape"]


def png(number):
    """An image that the way to another server does not change."""
    data = cv2.imencode(".png", image_bgr(number))[1]
    return {"type": "base64", "value": base64.b64encode(data).decode()}


@pytest.fixture(scope="module")
def images():
    return [png(number) for number in range(3)]


@pytest.fixture(scope="module")
def local(run_workflow, images):
    results = run_workflow(detection_workflow(), image=images, prompts=PROMPTS)
    assert all(sum(result["counts"].values()) > 0 for result in results)
    return results


def assert_same(results, expected):
    for result, other in zip(results, expected, strict=True):
        assert result["counts"] == other["counts"]
        np.testing.assert_allclose(result["predictions"].xyxy, other["predictions"].xyxy, atol=1e-3)
        np.testing.assert_array_equal(result["predictions"].class_id, other["predictions"].class_id)


def test_a_server_with_the_plugin_gives_the_same_with_its_scores(
    run_workflow, monkeypatch, server, images, local
):
    monkeypatch.setenv("MOONDREAM2_API_URL", server)

    results = run_workflow(detection_workflow(), image=images, prompts=PROMPTS)

    assert_same(results, local)
    for result, other in zip(results, local, strict=True):
        np.testing.assert_allclose(
            result["predictions"].confidence, other["predictions"].confidence, atol=1e-4
        )


def test_a_server_without_the_plugin_gives_the_same_boxes(run_workflow, monkeypatch, plain_server, images):
    definition = detection_workflow(model_version=str(demo_model_folder()))
    # Its answers carry no score, by which duplicates would be told.
    definition["steps"][0]["iou_threshold"] = 1.0
    local = run_workflow(definition, image=images, prompts=PROMPTS)
    monkeypatch.setenv("MOONDREAM2_API_URL", plain_server)

    assert all(sum(result["counts"].values()) > 0 for result in local)
    assert_same(run_workflow(definition, image=images, prompts=PROMPTS), local)


@pytest.mark.parametrize("other", ["server", "plain_server"])
def test_classes_are_the_same_with_another_server(run_workflow, monkeypatch, request, images, other):
    classes = {"angular": ["square", "star", "triangle"], "round": "circle", "star": "star"}
    definition = detection_workflow(
        inputs=(), prompts=classes, iou_threshold=1.0, model_version=str(demo_model_folder())
    )
    local = run_workflow(definition, image=images)
    monkeypatch.setenv("MOONDREAM2_API_URL", request.getfixturevalue(other))

    results = run_workflow(definition, image=images)

    assert any(sum(result["counts"].values()) for result in local)
    assert_same(results, local)
    for result, expected in zip(results, local, strict=True):
        assert [entry["prompt"] for entry in result["attributes"]] == [
            entry["prompt"] for entry in expected["attributes"]
        ]


def test_a_server_in_remote_mode_runs_steps_on_another_server(front_server, server, images, local):
    requests_before = count_requests(server)
    answer = requests.post(
        f"{front_server}/workflows/run",
        json={
            "specification": detection_workflow(),
            "inputs": {"image": images, "prompts": PROMPTS},
            "api_key": "a key",
        },
        timeout=120,
    )

    results = answer.json()["outputs"]
    assert [result["counts"] for result in results] == [result["counts"] for result in local]
    for result, other in zip(results, local, strict=True):
        confidences = [box["confidence"] for box in result["predictions"]["predictions"]]
        np.testing.assert_allclose(confidences, other["predictions"].confidence, atol=1e-4)
    assert count_requests(server) >= requests_before + len(images)


def count_requests(server):
    """How many workflows a server has run, by its metrics."""
    metrics = requests.get(f"{server}/metrics", timeout=10).text
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in metrics.splitlines()
        if line.startswith("http_requests_total{") and 'handler="/workflows/run"' in line
    )


def test_a_refusal_of_the_other_server_reaches_the_client(front_server, images):
    answer = requests.post(
        f"{front_server}/workflows/run",
        json={
            "specification": detection_workflow(model_version="/no/package"),
            "inputs": {"image": images, "prompts": PROMPTS},
            "api_key": "a key",
        },
        timeout=120,
    )

    assert answer.status_code == 400
    assert "`model_version` '/no/package' is not a model package" in answer.json()["message"]
    assert "Traceback" not in answer.text


BOXES = [(10, 20, 110, 120), (50, 60, 200, 150)]
NO_LIMITS = {"iou_threshold": 1.0}
TASKS_WITH_FIELDS = [
    {"prompt": ["What is this?", "Which colour is it?"]},
    {"prompt": {"kind": "What is this?"}, "reasoning": True, "temperature": 0.7, "seed": 3},
    {"prompt": "How many are there?", "parse_as": "number"},
    {"task_type": "more-detailed-caption"},
    {"task_type": "classification", "classes": ["dog", "cat", "ball"]},
    {"task_type": "multi-label-classification", "classes": ["dog", "cat"]},
    {"task_type": "multi-label-classification", "classes": ["dog", "cat"], "prompt": "Does it show {class}?"},
    {"task_type": "object-detection", "prompt": "What is this?"} | NO_LIMITS,
    {
        "task_type": "open-vocabulary-object-detection",
        "classes": {"red": ["red circle", "red star"], "dog": "dog"},
        "confidence": {"red": 0.01, "*": 0.0},
    }
    | NO_LIMITS,
    {"task_type": "pointing", "classes": ["dog", "red car"]},
    {
        "task_type": "detection-grounded-visual-question-answering",
        "prompt": {"kind": "What is this?", "colour": "Which colour is it?"},
    },
    {
        "task_type": "detection-grounded-classification",
        "classes": ["dog", "cat", "ball"],
        "replace_class": True,
    },
]


@pytest.mark.parametrize("fields", TASKS_WITH_FIELDS, ids=lambda fields: fields.get("task_type", "question"))
def test_every_task_is_the_same_with_another_server(run_workflow, monkeypatch, server, text_package, fields):
    path = sorted((GOLDEN / "images").glob("*.png"))[0]
    image = {"type": "base64", "value": base64.b64encode(path.read_bytes()).decode()}
    height, width = cv2.imread(str(path)).shape[:2]
    step = {
        "type": "workflow_blocks/moondream2@v1",
        "name": "ask",
        "images": "$inputs.image",
        "model_version": text_package,
        "max_tokens": 12,
    } | fields
    names = [output.name for output in BlockManifest.describe_outputs() if output.name != "inference_id"]
    inputs = {"image": [image]}
    definition = workflow(step, inputs=(), outputs={name: f"$steps.ask.{name}" for name in names})
    if "grounded" in fields.get("task_type", ""):
        step["grounding_detection"] = "$inputs.boxes"
        kind = ["object_detection_prediction"]
        definition["inputs"].append({"type": "WorkflowBatchInput", "name": "boxes", "kind": kind})
        inputs["boxes"] = [serialised_boxes(BOXES, width, height)]
    local = run_workflow(definition, serialize=True, **inputs)
    monkeypatch.setenv("MOONDREAM2_API_URL", server)

    before = count_requests(server)
    remote = run_workflow(definition, serialize=True, **inputs)

    assert count_requests(server) == before + 1
    assert comparable(remote) == comparable(local, pytest.approx)


def serialised_boxes(boxes, width, height):
    return {
        "image": {"width": width, "height": height},
        "predictions": [
            {
                "x": (x1 + x2) / 2,
                "y": (y1 + y2) / 2,
                "width": x2 - x1,
                "height": y2 - y1,
                "confidence": 0.9,
                "class": "thing",
                "class_id": 0,
                "detection_id": f"box-{number}",
            }
            for number, (x1, y1, x2, y2) in enumerate(boxes)
        ],
    }


def comparable(value, number=lambda value, **_: value):
    """A result without what differs between runs; `number` may give numbers a tolerance."""
    if isinstance(value, dict):
        differ = ("inference_id", "detection_id", "parent_id", "root_parent_id", "time")
        return {key: comparable(item, number) for key, item in value.items() if key not in differ}
    if isinstance(value, list):
        return [comparable(item, number) for item in value]
    return number(value, abs=2e-3) if isinstance(value, float) else value
