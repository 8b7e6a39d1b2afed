"""Detection on another Inference server: one request per image if it has this plugin, else per prompt."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

import numpy as np
from inference.core.env import (
    WORKFLOWS_REMOTE_EXECUTION_MAX_STEP_CONCURRENT_REQUESTS as MAX_REQUESTS_AT_ONCE,
)
from inference.core.workflows.core_steps.common.utils import run_in_parallel
from pydantic import BaseModel, Field, FiniteFloat, NonNegativeFloat, NonNegativeInt

from workflow_blocks.blocks.common.client_errors import InvalidInputError, UnavailableError
from workflow_blocks.blocks.common.detections import MAX_DETECTIONS, ImageDetections
from workflow_blocks.blocks.common.remote import has_plugin, parsed
from workflow_blocks.blocks.common.remote_http import LOOP_STATUS, RemoteRefusedError, RemoteServer
from workflow_blocks.bundled_model import DEMO_MODEL

_Result = TypeVar("_Result")

BLOCK_TYPE = "workflow_blocks/moondream2_prompt_detection@v1"
UNKNOWN_CLASSES = "gave classes that were not requested"
# The name of the step tells a server that another server sends the request. Blocks do not see its headers.
FORWARDED_STEP = "detection_for_another_server"
_WITHOUT_PLUGIN = (
    "it gets one request for each prompt, and every score is 1. Install this plugin there to get real scores."
)
# A workflow of the block alone that drops nothing; this server applies the limits.
_DEFINITION: dict[str, Any] = {
    "version": "1.0",
    "inputs": [
        {"type": "WorkflowImage", "name": "image"},
        {"type": "WorkflowParameter", "name": "prompts"},
        {"type": "WorkflowParameter", "name": "model_version"},
    ],
    "steps": [
        {
            "type": BLOCK_TYPE,
            "name": FORWARDED_STEP,
            "images": "$inputs.image",
            "prompts": "$inputs.prompts",
            "model_version": "$inputs.model_version",
            "confidence": 0.0,
            "max_detections": MAX_DETECTIONS,
            "iou_threshold": 1.0,
        }
    ],
    "outputs": [
        {"type": "JsonField", "name": "predictions", "selector": f"$steps.{FORWARDED_STEP}.predictions"}
    ],
}


def detect_remotely(
    server: RemoteServer,
    images_jpeg_base64: Sequence[str],
    prompts_of_images: Sequence[Sequence[str]],
    model_version: str,
) -> list[ImageDetections]:
    """Detects on another server. Returns all its boxes and confidences; class ids index an image's prompts.

    Requests run in parallel, as many as the engine allows for a step.

    Raises:
        InvalidInputError: the server rejects the model, an image or a prompt.
        UnavailableError: the server cannot be reached, is too slow, or gives an unusable answer.
    """
    has_block = has_plugin(server, _DEFINITION, BLOCK_TYPE, _WITHOUT_PLUGIN)
    detect = _detect_with_plugin if has_block else _detect_without_plugin
    tasks: list[list[Callable[[], ImageDetections]]] = [
        detect(server, image, prompts, model_version) if prompts else []
        for image, prompts in zip(images_jpeg_base64, prompts_of_images, strict=True)
    ]
    answers = iter(in_parallel(server, [task for of_image in tasks for task in of_image]))
    none = ImageDetections.none()
    return [ImageDetections.joined([none, *(next(answers) for _ in of_image)]) for of_image in tasks]


def in_parallel(server: RemoteServer, requests: Sequence[Callable[[], _Result]]) -> list[_Result]:
    """The results of requests to a server, as many at once as the engine allows for a step.

    Raises:
        InvalidInputError: the server rejects a request.
        UnavailableError: the server cannot be reached, is too slow, or gives an unusable answer.
    """
    try:
        return list(run_in_parallel(list(requests), max_workers=MAX_REQUESTS_AT_ONCE))
    except RemoteRefusedError as error:
        raise InvalidInputError(f"{server.name} rejects the request: {error}") from error


def check_not_forwarded(step_name: str) -> None:
    """Ends a chain of servers after one request: two servers that name each other would send it for ever.

    Raises:
        UnavailableError: the step runs for another server.
    """
    if step_name == FORWARDED_STEP:
        raise UnavailableError(
            "another server sent the image to this one, which also sends its images to another server; "
            "set MOONDREAM2_API_URL on one server only",
            LOOP_STATUS,
        )


def _detect_with_plugin(
    server: RemoteServer, image: str, prompts: Sequence[str], model_version: str
) -> list[Callable[[], ImageDetections]]:
    inputs = {"image": base64_input(image), "prompts": list(prompts), "model_version": model_version}
    body = {"specification": _DEFINITION, "inputs": inputs}

    def detect() -> ImageDetections:
        answer = parsed(server, _WorkflowAnswer, server.post("/workflows/run", body))
        found = answer.outputs[0].predictions.to_detections(server, n_prompts=len(prompts))
        if (found.class_id >= len(prompts)).any():
            raise server.unavailable(UNKNOWN_CLASSES)
        return found

    return [detect]


def _detect_without_plugin(
    server: RemoteServer, image: str, prompts: Sequence[str], model_version: str
) -> list[Callable[[], ImageDetections]]:
    """Uses Inference's own route, which takes one prompt."""
    if model_version == DEMO_MODEL:
        raise InvalidInputError(
            f"`model_version` {DEMO_MODEL!r} is part of this plugin, which {server.name} does not have; "
            "install the plugin there, or give a model that the server has"
        )

    def detect(class_id: int) -> ImageDetections:
        body = {"image": base64_input(image), "model_id": model_version, "prompt": prompts[class_id]}
        answer = parsed(server, RemoteBoxes, server.post("/infer/lmm", body))
        return answer.to_detections(server, n_prompts=1).of_class(class_id)

    return [partial(detect, class_id) for class_id in range(len(prompts))]


def base64_input(image: str) -> dict[str, str]:
    return {"type": "base64", "value": image}


class RemoteBox(BaseModel):
    """A box in pixels; `x` and `y` are its center."""

    x: FiniteFloat
    y: FiniteFloat
    width: NonNegativeFloat
    height: NonNegativeFloat
    confidence: Annotated[float, Field(ge=0, le=1)] = 1.0
    class_id: NonNegativeInt = 0


class RemoteBoxes(BaseModel):
    """Boxes as Inference serialises predictions."""

    predictions: list[RemoteBox]

    def to_detections(self, server: RemoteServer, n_prompts: int) -> ImageDetections:
        """The boxes, in their order.

        Raises:
            UnavailableError: there are more than that many prompts can have.
        """
        boxes = self.predictions
        if len(boxes) > n_prompts * MAX_DETECTIONS:
            raise server.unavailable(
                f"gave {len(boxes)} boxes; a prompt has at most {MAX_DETECTIONS}, and {n_prompts} were sent"
            )
        centres = np.array([(box.x, box.y) for box in boxes], np.float64).reshape(-1, 2)
        sizes = np.array([(box.width, box.height) for box in boxes], np.float64).reshape(-1, 2)
        return ImageDetections(
            xyxy=np.hstack([centres - sizes / 2, centres + sizes / 2]),
            class_id=np.array([box.class_id for box in boxes], np.int64),
            confidence=np.array([box.confidence for box in boxes], np.float64),
        )


class _Output(BaseModel):
    predictions: RemoteBoxes


class _WorkflowAnswer(BaseModel):
    outputs: Annotated[list[_Output], Field(min_length=1, max_length=1)]
