"""The tasks of the block on another server that does all that servers do."""

import numpy as np
import pytest
from inference.core.workflows.errors import ClientCausedStepExecutionError

from tests.blocks.moondream2_prompt_detection.test_remote_detection import (  # noqa: F401 - fixtures
    UNKNOWN_BLOCK,
    found,
    serve,
    start,
    waits,
)
from tests.workflows.definitions import workflow
from workflow_blocks.blocks.common.remote_detection import BLOCK_TYPE, FORWARDED_STEP
from workflow_blocks.blocks.moondream2.remote_run import BLOCK_TYPE as OUR_TYPE

IMAGE = np.zeros((64, 96, 3), np.uint8)
UNKNOWN = (400, {**UNKNOWN_BLOCK[1], "blocks_errors": [str(UNKNOWN_BLOCK[1]).replace(BLOCK_TYPE, OUR_TYPE)]})
CLASSES = ["dog", "cat"]


def ask(run_workflow, name="ask", images=(IMAGE,), **fields):
    step = {
        "type": OUR_TYPE,
        "name": name,
        "images": "$inputs.image",
        "model_version": "some/model",
    } | fields
    outputs = {key: f"$steps.{name}.{key}" for key in ("output", "probability", "predictions", "counts")}
    return run_workflow(workflow(step, inputs=(), outputs=outputs), image=list(images))


def failure(run_workflow, **fields):
    with pytest.raises(ClientCausedStepExecutionError) as caught:
        ask(run_workflow, **fields)
    return caught.value.status_code, caught.value.public_message


def outputs(**values):
    return 200, {"outputs": [{"error_status": False, "classes": None, "reasoning": None} | values]}


def test_all_questions_of_an_image_are_one_request(run_workflow, serve):  # noqa: F811
    questions = ["What?", "Where?", "Why?"]
    server = serve(outputs(output=["a", "b", "3"], probability=[0.5, 0.25, 1.0]))

    results = ask(
        run_workflow, images=[IMAGE] * 2, prompt=dict(zip("xyz", questions, strict=True)), parse_as="number"
    )

    assert results[0]["output"] == {"x": None, "y": None, "z": 3}
    assert results[1]["probability"] == {"x": 0.5, "y": 0.25, "z": 1.0}
    sent = server.posts("/workflows/run")
    assert [body["inputs"]["prompt"] for _, body, _ in sent] == [questions] * 2
    (step,) = sent[0][1]["specification"]["steps"]
    assert (step["name"], step["parse_as"]) == (FORWARDED_STEP, "text")


def test_a_server_without_the_block_is_a_clear_error_but_for_detection(run_workflow, serve):  # noqa: F811
    def validate(_, body):
        return (200, {"status": "ok"}) if body["steps"][0]["type"] == BLOCK_TYPE else UNKNOWN

    server = serve(found(), validate=validate)

    status, message = failure(run_workflow, prompt="What?")
    (result,) = ask(run_workflow, task_type="open-vocabulary-object-detection", classes=CLASSES)

    assert status == 501
    assert "'visual-question-answering'" in message
    assert f"does not have the block {OUR_TYPE}; install this plugin there" in message
    assert result["counts"] == {"dog": 0, "cat": 0}
    assert len(server.posts("/workflows/run")) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "What?"},
        {"task_type": "open-vocabulary-object-detection", "classes": CLASSES},
    ],
)
def test_a_request_that_was_sent_on_once_is_not_sent_on_again(run_workflow, serve, fields):  # noqa: F811
    server = serve(outputs(output=["a"], probability=[1.0]))

    status, message = failure(run_workflow, name=FORWARDED_STEP, **fields)

    assert status == 508
    assert "MOONDREAM2_API_URL on one server only" in message
    assert not server.requests


SCORES = {"predictions": [{"class": "dog", "confidence": 0.5}, {"class": "fox", "confidence": 0.5}]}
POINT = {"x": 1, "y": 2, "width": 0, "height": 0, "confidence": 0.5, "class_id": 2}


@pytest.mark.parametrize(
    ("fields", "answer", "problem"),
    [
        ({"prompt": ["a", "b"]}, outputs(output=["x"], probability=[1.0]), "gave 1 answers to 2 questions"),
        ({"prompt": "a"}, outputs(output="x", probability=1.0), "not one of this task (at 'output')"),
        ({"prompt": "a"}, outputs(output=["x"], probability=[1.5]), "not one of this task (at 'probability"),
        ({"prompt": "a"}, (200, {"outputs": []}), "not one of this task (at 'outputs')"),
        ({"task_type": "caption"}, outputs(output=None, probability=1.0), "not one of this task"),
        (
            {"task_type": "classification", "classes": CLASSES},
            outputs(predictions=SCORES),
            "classes that were not requested",
        ),
        (
            {"task_type": "multi-label-classification", "classes": CLASSES},
            outputs(predictions={"predictions": {"dog": {"confidence": 0.5}}}),
            "classes that were not requested",
        ),
        (
            {"task_type": "pointing", "classes": CLASSES},
            outputs(predictions={"predictions": [POINT]}),
            "classes that were not requested",
        ),
        (
            {"task_type": "object-detection"},
            outputs(output="a", probability=1.0, classes=["a"], predictions={"predictions": [POINT]}),
            "classes that were not requested",
        ),
        ({"prompt": "a"}, (400, {"message": "no such model"}), "rejects the request: no such model"),
    ],
)
def test_unusable_answers_are_errors(run_workflow, serve, fields, answer, problem):  # noqa: F811
    serve(answer)

    status, message = failure(run_workflow, **fields)

    assert status == (400 if "rejects" in problem else 502)
    assert problem in message
