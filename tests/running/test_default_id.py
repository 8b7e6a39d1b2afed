"""From `moondream2/moondream2_2b_jul24` to boxes: download, servers, client and example, then offline."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import requests
import supervision as sv
from inference_sdk import InferenceConfiguration, InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError

from examples.detect_with_the_sdk import draw, main, to_detections
from tests.real_server import INHERITED, running_server
from tests.scenes import image_bgr
from tests.stand_ins import (
    GOLDEN,
    OLDER_CONFIG_CODE,
    Provider,
    published_package,
    running_provider,
    with_older_tokenizer,
)
from tests.workflows.definitions import detection_workflow, workflow
from workflow_blocks.bundled_model import demo_model_folder

RELEASED = "moondream2/moondream2_2b_jul24"
ROOT = GOLDEN.parents[2]
PHOTO = str(GOLDEN / "images" / "0_300x200.png")

# As in Inference's Docker images: the module beside the working directory that makes the application.
IMAGE_MODULE = """
from pathlib import Path
from inference.core.interfaces.http.http_api import HttpInterface
from inference.core.managers.base import ModelManager
from inference.core.registries.roboflow import RoboflowModelRegistry
from inference.models.utils import ROBOFLOW_MODEL_TYPES

for name in ("static", "_next/static"):
    Path("inference/landing/out", name).mkdir(parents=True, exist_ok=True)
app = HttpInterface(ModelManager(RoboflowModelRegistry(ROBOFLOW_MODEL_TYPES))).app
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("default_id")


@pytest.fixture(scope="module")
def provider(folder):
    released = with_older_tokenizer(published_package(folder / "released", shards=3))
    provider = Provider(
        {
            RELEASED: (released, "moondream2"),
            "moondream2": (released, "moondream2"),
            "moondream2/older": (published_package(folder / "older", OLDER_CONFIG_CODE), "moondream2"),
            "moondream2/florence": (published_package(folder / "florence"), "florence-2"),
            "moondream2/cut": (published_package(folder / "cut", shards=2), "moondream2"),
        },
        {"moondream/starmie-v1/tokenizer.json": GOLDEN / "tokenizer.json"},
    )
    with running_provider(provider):
        yield provider


@pytest.fixture(scope="module")
def settings(folder, provider):
    return provider.settings | {
        "MARK_FILE": str(folder / "mark"),
        "OFFLINE_MODE_WARM_UP": "True",
        "DEBUG_WORKFLOWS": "False",
    }


def make_folders_with_names_of_ids(folder):
    """A package of the bundled model as `build-model` names it, and others where an id could be a path."""
    for name in ("moondream2", RELEASED, "moondream2/older", "moondream2-demo"):
        shutil.copytree(demo_model_folder(), folder / name)


@pytest.fixture(scope="module")
def online(folder, settings):
    """`workflow-blocks serve` with the default `MOONDREAM2_RUNTIME`."""
    make_folders_with_names_of_ids(folder / "server")
    with running_server(folder / "server", **settings) as running:
        yield running.address


@pytest.fixture(scope="module")
def log(online, folder):
    """Reads what the server wrote."""
    return (folder / "server" / "server.log").read_text


@pytest.fixture(scope="module")
def client(online):
    return client_of(online)


def client_of(address):
    configuration = InferenceConfiguration(api_key_transport="header")
    return InferenceHTTPClient(api_url=address, api_key="a key").configure(configuration)


@pytest.fixture
def no_mark(folder):
    mark = folder / "mark"
    mark.unlink(missing_ok=True)
    yield
    assert not mark.exists(), mark.read_text()


def assert_real(predictions, name):
    assert predictions
    assert all(0 < box["confidence"] < 1 for box in predictions)
    assert {(box["class"], box["class_id"]) for box in predictions} == {(name, 0)}


def test_serve_shows_which_runtime_is_on(online, log):
    assert re.search(r"MOONDREAM2_RUNTIME=auto\s+moondream2/... ids run on this plugin's runtime", log())


@pytest.mark.usefixtures("no_mark")
@pytest.mark.parametrize("model_id", [RELEASED, "moondream2"])
def test_ids_of_the_provider_run_on_our_runtime(client, log, provider, model_id):
    result = client.infer_lmm(PHOTO, model_id=model_id, prompt="red circle")

    assert any(f"modelId={model_id}" in unquote(request).split("?")[-1] for request in provider.requests)
    assert_real(result["predictions"], "red circle")
    assert f"Loaded {model_id}: runtime workflow_blocks" in log()


@pytest.mark.usefixtures("no_mark")
def test_the_bundled_model_is_an_id_and_is_loaded_once(client, log):
    result = client.infer_lmm(image_bgr(1), model_id="moondream2-demo", prompt="square")
    for name in ("moondream2-demo", str(demo_model_folder())):
        client.run_workflow(
            specification=detection_workflow(model_version=name),
            images={"image": image_bgr(1)},
            parameters={"prompts": ["square"]},
        )

    assert_real(result["predictions"], "square")
    assert re.findall(r"Loaded (\S*demo\S*): runtime", log()) == ["moondream2-demo"]


@pytest.mark.usefixtures("no_mark")
@pytest.mark.parametrize("written", ["./moondream2", "absolute"])
def test_a_package_in_a_folder_with_the_name_of_an_id_is_used_by_its_path(client, folder, log, written):
    package = str(folder / "server" / "moondream2")
    model_version = package if written == "absolute" else written

    (result,) = client.run_workflow(
        specification=detection_workflow(model_version=model_version),
        images={"image": image_bgr(1)},
        parameters={"prompts": ["square"]},
    )

    assert result["counts"]["square"] > 0
    assert f"Loaded {package}: runtime workflow_blocks" in log()


@pytest.mark.usefixtures("no_mark")
def test_a_core_step_and_ours_get_the_same_boxes_with_the_same_scores(client):
    core = {
        "version": "1.0",
        "inputs": [{"type": "InferenceImage", "name": "image"}],
        "steps": [
            {
                "type": "roboflow_core/moondream2@v1",
                "name": "detection",
                "images": "$inputs.image",
                "prompt": "red circle",
                "model_version": RELEASED,
            }
        ],
        "outputs": [{"type": "JsonField", "name": "predictions", "selector": "$steps.detection.predictions"}],
    }
    ours = detection_workflow(model_version=RELEASED, iou_threshold=1.0)

    (by_core,) = client.run_workflow(specification=core, images={"image": PHOTO})
    (by_us,) = client.run_workflow(
        specification=ours, images={"image": PHOTO}, parameters={"prompts": ["red circle", "dog"]}
    )

    scores = sorted(box["confidence"] for box in by_core["predictions"]["predictions"])
    kept = [box for box in by_us["predictions"]["predictions"] if box["class"] == "red circle"]
    assert_real(by_core["predictions"]["predictions"], "red circle")
    np.testing.assert_allclose(sorted(box["confidence"] for box in kept), scores, atol=1e-3)


def test_a_package_that_we_cannot_read_runs_on_inferences_class_and_the_reason_is_logged_once(
    client, folder, log
):
    results = [client.infer_lmm(PHOTO, model_id="moondream2/older", prompt="dog") for _ in range(2)]

    assert [box["confidence"] for box in results[1]["predictions"]] == [1.0]
    assert "hf_moondream.py" in (folder / "mark").read_text()
    assert len(re.findall("cannot read a Moondream2 package.*bos_id 50256", log())) == 1
    assert "Loaded moondream2/older: runtime inference" in log()


@pytest.mark.usefixtures("no_mark")
@pytest.mark.parametrize(
    ("model_id", "status", "named"),
    [
        pytest.param("moondream2/no_such_model", 404, "not found", id="no such id"),
        pytest.param("moondream2/florence", 500, "architecture is 'florence-2'", id="architecture"),
    ],
)
def test_ids_that_are_no_moondream2_are_refused(client, model_id, status, named):
    with pytest.raises(HTTPCallErrorError) as raised:
        client.infer_lmm(PHOTO, model_id=model_id, prompt="dog")

    assert raised.value.status_code == status
    assert named in str(raised.value.api_message)


@pytest.mark.usefixtures("no_mark")
def test_a_step_names_the_id_and_the_reason(client):
    with pytest.raises(HTTPCallErrorError) as raised:
        client.run_workflow(
            specification=detection_workflow(model_version="moondream2/florence"),
            images={"image": PHOTO},
            parameters={"prompts": ["dog"]},
        )

    assert raised.value.status_code == 400
    assert "'moondream2/florence' cannot be loaded" in str(raised.value.api_message)
    assert "architecture is 'florence-2'" in str(raised.value.api_message)


@pytest.mark.usefixtures("no_mark")
def test_a_download_that_breaks_off_is_taken_up_again(client, provider):
    provider.cut_once["cut/model-00001-of-00002.safetensors"] = 1000
    with suppress(HTTPCallErrorError):
        client.infer_lmm(PHOTO, model_id="moondream2/cut", prompt="red circle")

    result = client.infer_lmm(PHOTO, model_id="moondream2/cut", prompt="red circle")

    assert not provider.cut_once
    assert_real(result["predictions"], "red circle")


def test_the_example_prints_and_draws_the_boxes(online, tmp_path):
    picture = tmp_path / "boxes.png"

    result = run_example(online, PHOTO, picture, "moondream2", "red circle")

    assert result.returncode == 0, result.stderr
    assert re.search(r"^red circle 0\.\d{3} at \[", result.stdout, re.MULTILINE)
    assert "boxes are drawn in" in result.stdout
    assert (cv2.imread(str(picture)) != cv2.imread(PHOTO)).any()


def run_example(address, image, output, model, prompt):
    script = ROOT / "examples" / "detect_with_the_sdk.py"
    arguments = ["--url", address, "--model", model, "--prompt", prompt, "--output", str(output)]
    return subprocess.run(
        [sys.executable, str(script), str(image), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"ROBOFLOW_API_KEY": "a key"},
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"--output": "no/folder/boxes.jpg"}, "cannot be written; give a .jpg", id="folder"),
        pytest.param({"--output": "boxes.txt"}, "boxes.txt cannot be written; give a .jpg", id="ending"),
        pytest.param({"--output": "boxes"}, "boxes cannot be written; give a .jpg", id="no ending"),
        pytest.param({"image": __file__}, "is not an image file", id="no image"),
        pytest.param({"image": "missing.jpg"}, "missing.jpg is not an image file", id="missing image"),
        pytest.param({"--model": "moondream2/no_such_model"}, "HTTP status 404: ", id="refused"),
        pytest.param({"--model": "moondream2/florence"}, "architecture is 'florence-2'", id="failed"),
        pytest.param({"--url": "http://127.0.0.1:9"}, "is not the address of an Inference", id="no server"),
        pytest.param({"--url": "nonsense"}, "nonsense is not the address of an Inference", id="no address"),
    ],
)
def test_the_example_says_in_a_line_what_is_wrong(online, tmp_path, monkeypatch, capfd, changes, problem):
    arguments = {"image": PHOTO, "--url": online, "--output": str(tmp_path / "boxes.jpg")} | changes
    image, *options = arguments.pop("image"), *(word for pair in arguments.items() for word in pair)
    monkeypatch.setattr("sys.argv", ["detect_with_the_sdk.py", image, *options])
    monkeypatch.setenv("ROBOFLOW_API_KEY", "a key")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit) as ended:
        main()

    assert problem in ended.value.code
    assert "\n" not in ended.value.code
    assert capfd.readouterr().err == ""


def pixels_of_label(box):
    """How many pixels a label has in a picture of 310 x 200 with one box (x, y, width, height)."""
    image = np.zeros((200, 310, 3), np.uint8)
    place = dict(zip(("x", "y", "width", "height"), box, strict=True))
    detections = to_detections([{"confidence": 0.5, "class_id": 0, "class": "red circle"} | place])
    with_box = sv.BoxAnnotator().annotate(image.copy(), detections)
    return np.count_nonzero((draw(image, detections) != with_box).any(axis=-1))


@pytest.mark.parametrize("box", [(300, 190, 20, 20), (5, 100, 10, 10), (295, 5, 10, 10), (150, 3, 300, 6)])
def test_a_label_of_the_example_stays_in_the_picture(box):
    assert pixels_of_label(box) > 0.85 * pixels_of_label((150, 100, 20, 20)) > 1000


def test_the_example_draws_nothing_where_nothing_is_found():
    image = np.zeros((50, 60, 3), np.uint8)

    detections = to_detections([])

    assert len(detections) == 0
    assert not draw(image, detections).any()


START_MODULE = "workflow_blocks.running.server_app:app"


@contextmanager
def stock_server(folder, app=START_MODULE, **settings):
    """Inference's own application, as its Docker images start it, by our start module or without it."""
    (folder / "cpu_http.py").write_text(IMAGE_MODULE)
    log = folder / "stock.log"
    environment = environment_of(f"{ROOT}:{folder}", **settings)
    command = ["-m", "uvicorn", app, "--port", "0"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield _address(process, log)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        finally:
            process.kill()


def environment_of(python_path, **settings):
    """The environment of a process of its own with the plugin."""
    environment = {name: value for name, value in os.environ.items() if name not in INHERITED}
    return environment | {"PYTHONPATH": python_path, "WORKFLOWS_PLUGINS": "workflow_blocks"} | settings


def _address(process, log):
    while process.poll() is None:
        if match := re.search(r"running on (http://\S+)", log.read_text()):
            return match[1]
        try:
            process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            continue
    raise RuntimeError(log.read_text()[-3000:])


@pytest.fixture(scope="module")
def offline(folder, settings, client):
    """A stock server without local packages and without a network, on the cache that the other one filled."""
    client.infer_lmm(PHOTO, model_id=RELEASED, prompt="red circle")
    own = settings | {
        "OFFLINE_MODE": "True",
        "OFFLINE_MODE_WARM_UP": "False",
        "MODEL_CACHE_DIR": str(folder / "server" / "cache"),
        "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES": "False",
        "MOONDREAM2_RUNTIME": "own",
        "ROBOFLOW_API_HOST": "http://127.0.0.1:9",
        "API_BASE_URL": "http://127.0.0.1:9",
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    stock = folder / "stock"
    make_folders_with_names_of_ids(stock)
    with stock_server(stock, **own) as address:
        yield address


@pytest.mark.usefixtures("no_mark")
def test_a_stock_server_runs_on_our_runtime_from_the_first_request_and_offline(offline, client):
    expected = client.infer_lmm(PHOTO, model_id=RELEASED, prompt="red circle")

    result = client_of(offline).infer_lmm(PHOTO, model_id=RELEASED, prompt="red circle")

    assert_real(result["predictions"], "red circle")
    for box, other in zip(result["predictions"], expected["predictions"], strict=True):
        assert box["confidence"] == pytest.approx(other["confidence"], abs=1e-4)


def test_a_server_without_local_packages_names_the_setting_for_the_bundled_model(offline):
    with pytest.raises(HTTPCallErrorError) as raised:
        client_of(offline).infer_lmm(PHOTO, model_id="moondream2-demo", prompt="dog")

    assert raised.value.status_code == 400
    assert "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES=True" in str(raised.value.api_message)


def test_the_stock_server_is_inferences_own(offline):
    assert requests.get(f"{offline}/info", timeout=60).json()["name"]
    assert requests.get(f"{offline}/workflows/blocks/describe", timeout=60).ok


@pytest.fixture
def definition_file(tmp_path):
    path = tmp_path / "definition.json"
    path.write_text(json.dumps(detection_workflow(model_version=RELEASED)))
    return path


def run_python(folder, settings, *command):
    """Runs Python in a process of its own, with an empty model cache; returns what it printed."""
    environment = environment_of(str(ROOT), MODEL_CACHE_DIR=str(folder / "cache"), **settings)
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


PIPELINE = """
import json, sys
from inference import InferencePipeline

definition, video = sys.argv[1:]
pipeline = InferencePipeline.init_with_workflow(
    video_reference=video,
    workflow_specification=json.load(open(definition)),
    workflows_parameters={"prompts": ["red circle"]},
    on_prediction=lambda result, frame: print("scores", result["predictions"].confidence.tolist()),
    api_key="a key",
)
pipeline.start()
pipeline.join()
"""


@pytest.mark.long
@pytest.mark.usefixtures("no_mark")
def test_an_inference_pipeline_runs_on_our_runtime(tmp_path, settings, definition_file):
    image = cv2.imread(PHOTO)
    video = cv2.VideoWriter(
        str(tmp_path / "video.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, image.shape[1::-1]
    )
    for _ in range(3):
        video.write(image)
    video.release()

    printed = run_python(
        tmp_path, settings, "-c", PIPELINE, str(definition_file), str(tmp_path / "video.avi")
    )

    frames = [json.loads(scores) for scores in re.findall(r"^scores (.*)$", printed, re.MULTILINE)]
    assert frames
    assert all(0 < score < 1 for scores in frames for score in scores)
    assert any(frames)


@pytest.mark.long
@pytest.mark.usefixtures("no_mark")
def test_inferences_command_line_runs_on_our_runtime(tmp_path, settings, definition_file):
    options = ["-pt", "inference_package", "-i", PHOTO, "-o", str(tmp_path / "output")]
    options += ["-ws", str(definition_file), "--api-key", "a key", "--prompts", "red circle"]

    run_python(tmp_path, settings, "-m", "inference_cli.main", "workflows", "process-image", *options)

    (results,) = (tmp_path / "output").rglob("results.json")
    assert_real(json.loads(results.read_text())["predictions"]["predictions"], "red circle")


@pytest.mark.long
@pytest.mark.usefixtures("no_mark")
def test_a_model_loaded_at_start_runs_on_our_runtime_by_the_start_module(tmp_path, settings):
    own = settings | {
        "PRELOAD_MODELS": RELEASED,
        "PRELOAD_API_KEY": "a key",
        "MODEL_CACHE_DIR": str(tmp_path),
    }

    with stock_server(tmp_path, **own) as address:
        result = client_of(address).infer_lmm(PHOTO, model_id=RELEASED, prompt="red circle")

    assert_real(result["predictions"], "red circle")
    assert f"Loaded {RELEASED}: runtime workflow_blocks" in (tmp_path / "stock.log").read_text()


QUESTION = workflow(
    {
        "type": "workflow_blocks/moondream2@v1",
        "name": "question",
        "images": "$inputs.image",
        "task_type": "visual-question-answering",
        "prompt": "What is it?",
        "model_version": RELEASED,
    },
    inputs=(),
    outputs={"answer": "$steps.question.output"},
)


def different_prompts(definition):
    """The workflow with prompts that each image has of its own."""
    prompts = {"type": "WorkflowBatchInput", "name": "prompts", "kind": ["list_of_values"]}
    return definition | {"inputs": [definition["inputs"][0], prompts]}


@pytest.mark.long
def test_a_stock_server_that_has_loaded_a_model_logs_the_way_that_works(tmp_path, settings):
    own = settings | {"MODEL_CACHE_DIR": str(tmp_path / "cache"), "MARK_FILE": str(tmp_path / "mark")}
    detection = detection_workflow(model_version=RELEASED)

    with stock_server(tmp_path, "cpu_http:app", **own) as address:
        client = client_of(address)
        before = client.infer_lmm(PHOTO, model_id=RELEASED, prompt="dog")
        for _ in range(2):
            client.run_workflow(
                specification=detection, images={"image": PHOTO}, parameters={"prompts": ["dog"]}
            )
        several = client.run_workflow(
            specification=different_prompts(detection),
            images={"image": [PHOTO, PHOTO]},
            parameters={"prompts": [["dog"], ["cat"]]},
        )
        log = (tmp_path / "stock.log").read_text()
        with pytest.raises(HTTPCallErrorError, match="workflow-blocks serve") as error:
            client.run_workflow(specification=QUESTION, images={"image": PHOTO})

    assert [box["confidence"] for box in before["predictions"]] == [1.0]
    assert [list(result["counts"]) for result in several] == [["dog"], ["cat"]]
    assert log.count("workflow_blocks.running.server_app:app") == 1
    assert error.value.status_code == 400
