"""Detection that one real server has done by another."""

import base64

import cv2
import numpy as np
import pytest
import requests

from tests.scenes import image_bgr
from tests.workflows.definitions import detection_workflow
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
