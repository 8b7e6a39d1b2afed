"""The real server with the real client."""

import base64
import re
import shutil
import socket
from urllib.parse import urlparse

import cv2
import numpy as np
import pytest
import requests
import supervision as sv
from inference_sdk import InferenceConfiguration, InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError

from tests.scenes import image_bgr, recall, true_boxes
from tests.workflows.definitions import DETECTION_OUTPUTS, detection_step, detection_workflow, workflow
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.running.definitions import read_definition, workflow_names

SCENE = 1
BLOCKS = {
    "workflow_blocks/moondream2_prompt_detection@v1",
    "workflow_blocks/detections_table@v1",
    "workflow_blocks/detections_dataset_export@v1",
}


@pytest.fixture(scope="module")
def client(server):
    return InferenceHTTPClient(server).configure(InferenceConfiguration(api_key_transport="header"))


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "scene.png"
    cv2.imwrite(str(path), image_bgr(SCENE))
    return path


def assert_shapes_found(result):
    detections = sv.Detections.from_inference(result["predictions"])
    hits, there = recall(detections.xyxy, true_boxes(SCENE))
    assert hits >= there - 1 > 0


def test_blocks_are_described(server):
    described = requests.get(f"{server}/workflows/blocks/describe", timeout=60).json()["blocks"]

    assert {block["manifest_type_identifier"] for block in described} >= BLOCKS


def test_blocks_are_in_the_schema_of_definitions(server):
    schema = requests.get(f"{server}/workflows/definition/schema", timeout=60).text

    assert all(block in schema for block in BLOCKS)


@pytest.mark.parametrize("name", workflow_names())
def test_definitions_validate(server, name):
    answer = requests.post(f"{server}/workflows/validate", json=read_definition(name), timeout=60)

    assert answer.json() == {"status": "ok"}


@pytest.mark.parametrize("kind", ["numpy", "path", "base64"])
def test_images_of_each_kind(client, image_file, kind):
    image = {
        "numpy": image_bgr(SCENE),
        "path": str(image_file),
        "base64": base64.b64encode(image_file.read_bytes()).decode(),
    }[kind]

    (result,) = client.run_workflow(
        specification=detection_workflow(), images={"image": image}, parameters={"prompts": ["shape"]}
    )

    assert_shapes_found(result)
    assert result["counts"]["shape"] == len(result["predictions"]["predictions"])


def test_an_image_behind_a_url(front_server, serve_folder, image_file):
    url = f"{serve_folder(image_file.parent)}/{image_file.name}"

    answer = requests.post(
        f"{front_server}/workflows/run",
        json={
            "specification": detection_workflow(),
            "inputs": {"image": {"type": "url", "value": url}, "prompts": "shape"},
        },
        timeout=60,
    )

    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["outputs"]
    assert_shapes_found(result)


@pytest.mark.parametrize(
    "name", ["caf\u00e9", "\u043c\u043e\u0434\u0435\u043b\u044c", "\u6a21\u578b" * 40 + "/a, b"]
)
def test_a_package_in_a_folder_of_any_name(client, tmp_path, name):
    shutil.copytree(demo_model_folder(), tmp_path / name)

    (result,) = client.run_workflow(
        specification=detection_workflow(model_version=str(tmp_path / name)),
        images={"image": image_bgr(SCENE)},
        parameters={"prompts": ["shape"]},
    )

    assert_shapes_found(result)


def test_a_batch_gives_each_image_its_own(client):
    images = [image_bgr(number) for number in range(4)]

    together = client.run_workflow(
        specification=detection_workflow(),
        images={"image": images},
        parameters={"prompts": ["circle", "star"]},
    )
    alone = [
        client.run_workflow(
            specification=detection_workflow(),
            images={"image": image},
            parameters={"prompts": ["circle", "star"]},
        )[0]
        for image in images
    ]

    assert [result["counts"] for result in together] == [result["counts"] for result in alone]
    assert sum(sum(result["counts"].values()) for result in alone) > 0
    for one, other in zip(together, alone, strict=True):
        boxes = [sv.Detections.from_inference(result["predictions"]).xyxy for result in (one, other)]
        np.testing.assert_allclose(*boxes, atol=1e-3)


def test_a_bundled_definition_runs_by_name(client):
    (result,) = client.run_workflow(
        workspace_name="local",
        workflow_id="count_by_prompt",
        images={"image": image_bgr(0)},
        parameters={"prompts": ["shape", "dog"]},
    )

    assert result["total"] == sum(result["counts"].values()) > 0
    picture = cv2.imdecode(
        np.frombuffer(base64.b64decode(result["visualization"]), np.uint8), cv2.IMREAD_COLOR
    )
    assert picture.shape == image_bgr(0).shape


def from_a_step():
    count = {
        "type": "roboflow_core/property_definition@v1",
        "name": "count",
        "data": "$steps.first.predictions",
        "operations": [{"type": "SequenceLength"}],
    }
    first = detection_step(name="first", prompts="shape")
    second = detection_step(prompts=["$steps.count.output"])
    return workflow(first, count, second, inputs=(), outputs=DETECTION_OUTPUTS)


@pytest.mark.parametrize(
    ("specification", "parameters", "words"),
    [
        pytest.param(
            detection_workflow(),
            {"prompts": " "},
            ["detection", "`prompts` is ' '", "give a prompt"],
            id="blank",
        ),
        pytest.param(
            detection_workflow(),
            {"prompts": ["a" * 300]},
            ["detection", "`prompts`", "300 characters"],
            id="long",
        ),
        pytest.param(
            detection_workflow(prompts=""),
            {},
            ["detection", "`prompts` is ''", "give a prompt"],
            id="literal",
        ),
        pytest.param(from_a_step(), {}, ["detection", "`prompts` holds", "give a prompt"], id="from a step"),
        pytest.param(
            detection_workflow(inputs=("prompts", "c"), confidence="$inputs.c"),
            {"prompts": "dog", "c": 7},
            ["detection", "`confidence` is 7", "from 0 to 1"],
            id="confidence",
        ),
        *(
            pytest.param(
                detection_workflow(inputs=("prompts", "m"), model_version="$inputs.m"),
                {"prompts": "dog", "m": model},
                ["detection", "`model_version`", *words],
                id=model,
            )
            for model, words in {
                "/no/such/package": ["no model_config.json", "give the folder of a package"],
                "/": ["no model_config.json"],
                "a/b/c": ["is invalid", "give the id of a Moondream2"],
                "moondream2/no_such": ["cannot be fetched", "set OFFLINE_MODE=False"],
                "../" * 100: ["is not a model package"],
            }.items()
        ),
    ],
)
def test_errors_of_the_caller(client, specification, parameters, words):
    with pytest.raises(HTTPCallErrorError) as error:
        client.run_workflow(
            specification=specification, images={"image": image_bgr(0)}, parameters=parameters
        )

    assert 400 <= error.value.status_code < 500
    for word in words:
        assert word in error.value.api_message
    assert_it_lives(client)


def test_a_model_that_cannot_be_downloaded_is_reported_without_a_traceback(server):
    answer = run(server, detection_workflow(model_version="no-such/3"), prompts="dog")

    assert answer.status_code == 503
    assert "`model_version` 'no-such/3' cannot be fetched" in answer.json()["message"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "image",
    [
        pytest.param({"type": "base64", "value": "bm8gaW1hZ2U="}, id="no image"),
        pytest.param({"type": "base64", "value": "%%%"}, id="no base64"),
        pytest.param({"type": "base64", "value": ""}, id="empty"),
        pytest.param({"type": "file", "value": "/etc/passwd"}, id="file"),
        pytest.param({"type": "numpy_object", "value": "gASVAAAAAA=="}, id="pickle"),
        pytest.param({"type": "url", "value": "file:///etc/passwd"}, id="url of a file"),
        pytest.param("x" * 1000, id="text"),
        pytest.param(7, id="number"),
        pytest.param([], id="empty batch"),
    ],
)
def test_an_unreadable_image_is_reported(server, client, image):
    answer = run(server, detection_workflow(), image=image, prompts="dog")

    assert 400 <= answer.status_code < 500
    assert re.search("image", answer.json()["message"])
    assert "Traceback" not in answer.text
    assert_it_lives(client)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"inputs": 7}', b"\xff" * 100])
def test_other_clients_are_served_when_one_sends_garbage(server, client, body):
    answer = requests.post(
        f"{server}/workflows/run", data=body, headers={"Content-Type": "application/json"}, timeout=30
    )

    assert 400 <= answer.status_code < 500
    assert_it_lives(client)


def test_other_clients_are_served_when_one_hangs_up(server, client):
    address = urlparse(server)
    for sent in (
        b"",
        b"POST /workflows/run HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n{",
        b"\x16\x03\x01" * 50,
    ):
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(sent)

    assert_it_lives(client)


def run(address, specification, image=None, **inputs):
    if image is None:
        image = {"type": "base64", "value": base64.b64encode(cv2.imencode(".png", image_bgr(0))[1]).decode()}
    body = {"specification": specification, "inputs": {"image": image} | inputs}
    return requests.post(f"{address}/workflows/run", json=body, timeout=60)


def assert_it_lives(client):
    (result,) = client.run_workflow(
        specification=detection_workflow(), images={"image": image_bgr(0)}, parameters={"prompts": "shape"}
    )
    assert result["counts"]["shape"] > 0
