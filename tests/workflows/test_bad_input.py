"""What callers get wrong: the engine's own client errors, naming field, value and mend."""

import shutil

import numpy as np
import pytest
from inference.core.workflows.errors import (
    ClientCausedStepExecutionError,
    RuntimeInputError,
    WorkflowSyntaxError,
)

from tests.scenes import image_bgr
from tests.workflows.definitions import DETECTION_OUTPUTS, detection_step, detection_workflow, workflow


@pytest.fixture
def image():
    return image_bgr(0)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        pytest.param({"prompts": ""}, "`prompts` is ''; give a prompt", id="empty prompt"),
        pytest.param({"prompts": []}, "`prompts` is []; give a prompt", id="no prompts"),
        pytest.param({"prompts": ["dog", 7]}, "`prompts` holds 7", id="a number"),
        pytest.param(
            {"prompts": ["dog"] * 2 + [str(i) for i in range(70)]}, "(72 items); give a prompt", id="too many"
        ),
        pytest.param({"confidence": 2}, "`confidence` is 2", id="confidence"),
        pytest.param({"iou_threshold": -0.5}, "`iou_threshold` is -0.5", id="overlap"),
        pytest.param({"max_detections": 0}, "`max_detections` is 0", id="limit"),
        pytest.param({"model_version": " "}, "`model_version` is ' '", id="model"),
    ],
)
def test_a_bad_literal_is_reported_at_compile_time(run_workflow, image, fields, problem):
    definition = detection_workflow(inputs=(), **({"prompts": "dog"} | fields))

    with pytest.raises(WorkflowSyntaxError) as error:
        run_workflow(definition, image=image)

    (block_error,) = error.value.blocks_errors
    assert block_error.block_id == "detection"
    assert problem in block_error.property_details


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("prompts", "", "`prompts` is ''; give a prompt"),
        ("prompts", "   ", "`prompts` is '   '"),
        ("prompts", [], "`prompts` is []"),
        ("prompts", ["dog", None], "`prompts` holds None"),
        ("prompts", 5, "`prompts` is 5"),
        ("prompts", "x" * 1000, "1000 characters"),
        ("prompts", [str(i) for i in range(70)], "(70 items); give a prompt"),
        ("confidence", 1.2, "`confidence` is 1.2"),
        ("confidence", "much", "`confidence` is 'much'"),
        ("iou_threshold", 7, "`iou_threshold` is 7"),
        ("max_detections", 0, "`max_detections` is 0"),
        ("max_detections", 1000, "`max_detections` is 1000"),
        ("model_version", "", "`model_version` is ''"),
        ("model_version", 7, "`model_version` is 7"),
    ],
)
def test_bad_input_is_reported_before_the_model_runs(run_workflow, image, field, value, problem):
    definition = detection_workflow(inputs=("given",), **({"prompts": "dog"} | {field: "$inputs.given"}))

    with pytest.raises(RuntimeInputError, match=f"step detection regarding property {field}") as error:
        run_workflow(definition, image=image, given=value)

    assert problem in str(error.value.inner_error)


def test_a_bad_prompt_from_a_step_is_a_client_error(run_workflow, image):
    no_text = {
        "type": "roboflow_core/property_definition@v1",
        "name": "count",
        "data": "$steps.first.predictions",
        "operations": [{"type": "SequenceLength"}],
    }
    definition = workflow(
        detection_step(name="first", prompts="shape"),
        no_text,
        detection_step(prompts=["$steps.count.output"]),
        inputs=(),
        outputs=DETECTION_OUTPUTS,
    )

    with pytest.raises(ClientCausedStepExecutionError, match=r"'detection'.*`prompts` holds \d") as error:
        run_workflow(definition, image=image)

    assert error.value.status_code == 400
    assert error.value.block_id == "detection"


def test_the_error_of_one_image_in_a_batch_says_how_to_fix_it(run_workflow, image):
    with pytest.raises(ClientCausedStepExecutionError, match=r"`images`.*float32.*give uint8"):
        run_workflow(detection_workflow(), image=[image, image.astype(np.float32)], prompts="dog")


@pytest.mark.parametrize(
    ("model_version", "problem"),
    [
        pytest.param("/no/such/package", "no model_config.json", id="missing package"),
        pytest.param(
            "\u043c\u043e\u0434\u0435\u043b\u044c",
            "neither an id, which is in ASCII, nor a folder",
            id="no id",
        ),
        pytest.param(
            "moondream2/\u00e9", "neither an id, which is in ASCII, nor a folder", id="a Latin letter"
        ),
        pytest.param("/", "no model_config.json", id="a folder that is no package"),
    ],
)
def test_a_missing_model_package_is_a_client_error(run_workflow, image, model_version, problem):
    with pytest.raises(ClientCausedStepExecutionError, match=problem) as error:
        run_workflow(detection_workflow(model_version=model_version), image=image, prompts="dog")

    assert error.value.status_code == 400
    assert "`model_version`" in str(error.value)


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        pytest.param("model.safetensors", b"noise" * 100, "is damaged", id="damaged weights"),
        pytest.param("model.safetensors", None, "model.safetensors", id="no weights"),
        pytest.param("tokenizer.json", b"{}", "is not a tokenizer", id="damaged tokenizer"),
        pytest.param("config.json", b'{"config": {"text": {"dim": -1}}}', "config.text.dim", id="bad config"),
        pytest.param(
            "config.json",
            b'{"config": {"vision": {"max_crops": 1000000000}}}',
            "vision.max_crops",
            id="crops",
        ),
        pytest.param(
            "config.json", b'{"config": {"text": {"n_layers": 100000}}}', "text.n_layers", id="layers"
        ),
        pytest.param("config.json", b"[" * 10**6, "config.json", id="deep config"),
        pytest.param("tokenizer.json", b"[" * 10**6, "is not a tokenizer", id="deep tokenizer"),
        pytest.param("model_config.json", b"{", "cannot be loaded", id="damaged package file"),
        pytest.param("model_config.json", b"[" * 10**6, "cannot be loaded", id="deep package file"),
        pytest.param("model_config.json", b'{"a":' * 10**5, "cannot be loaded", id="deep package object"),
        pytest.param("model_config.json", b"[]", "cannot be loaded", id="a list as package file"),
        pytest.param("model_config.json", b"\xff\xfe", "cannot be loaded", id="package file not UTF-8"),
    ],
)
def test_a_broken_model_package_is_a_client_error(
    run_workflow, image, tmp_path, golden_package, file, content, problem
):
    package = shutil.copytree(golden_package, tmp_path / "package")
    if content is None:
        (package / file).unlink()
    else:
        (package / file).write_bytes(content)
    definition = detection_workflow(model_version=str(package))

    with pytest.raises(ClientCausedStepExecutionError, match="`model_version`") as error:
        run_workflow(definition, image=image, prompts="dog")

    assert problem in str(error.value)

    shutil.copytree(golden_package, package, dirs_exist_ok=True)
    assert run_workflow(definition, image=image, prompts="dog")[0]["counts"].keys() == {"dog"}


def test_the_demo_model_on_a_server_that_loads_no_local_packages(run_workflow, image, monkeypatch):
    from workflow_blocks.blocks.common import model_version

    monkeypatch.setattr(model_version, "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES", False)

    with pytest.raises(
        ClientCausedStepExecutionError,
        match=r"moondream2-demo.*set ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES=True",
    ):
        run_workflow(detection_workflow(), image=image, prompts="dog")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"type": "base64", "value": "bm8gaW1hZ2U="}, id="base64 of no image"),
        pytest.param({"type": "base64", "value": ""}, id="empty"),
        pytest.param({"type": "file", "value": "/no/such/file.png"}, id="no such file"),
    ],
)
def test_an_unreadable_image_is_an_error_of_the_engine(run_workflow, value):
    with pytest.raises(RuntimeInputError):
        run_workflow(detection_workflow(), image=value, prompts="dog")
