"""Detection on another Inference server: one request per image if it has this plugin, else per prompt."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
from inference.core.env import (
    WORKFLOWS_REMOTE_EXECUTION_MAX_STEP_CONCURRENT_REQUESTS as MAX_REQUESTS_AT_ONCE,
)
from inference.core.workflows.core_steps.common.utils import run_in_parallel
from pydantic import BaseModel, Field, FiniteFloat, NonNegativeFloat, NonNegativeInt

from workflow_blocks.blocks.common.client_errors import InvalidInputError, UnavailableError
from workflow_blocks.blocks.common.remote import has_plugin, parsed
from workflow_blocks.blocks.common.remote_http import RemoteRefusedError, RemoteServer
from workflow_blocks.blocks.moondream2_prompt_detection.predictions import ImageDetections
from workflow_blocks.bundled_model import DEMO_MODEL

BLOCK_TYPE = "workflow_blocks/moondream2_prompt_detection@v1"


def detect_remotely(
    server: RemoteServer,
    images_jpeg_base64: Sequence[str],
    prompts_of_images: Sequence[Sequence[str]],
    model_version: str,
    max_detections: int,
) -> list[ImageDetections]:
    """Detects on another server. Returns all its boxes and confidences; class ids index an image's prompts.

    Requests run in parallel, as many as the engine allows for a step.

    Raises:
        InvalidInputError: the server rejects the model, an image or a prompt.
        UnavailableError: the server cannot be reached, is too slow, or gives an unusable answer.
    """
    detect = (
        _detect_with_plugin if has_plugin(server, _workflow(max_detections=1)) else _detect_without_plugin
    )
    tasks: list[list[Callable[[], ImageDetections]]] = [
        detect(server, image, prompts, model_version, max_detections)
        for image, prompts in zip(images_jpeg_base64, prompts_of_images, strict=True)
    ]
    try:
        answers = iter(
            run_in_parallel(
                [task for of_image in tasks for task in of_image],
                max_workers=MAX_REQUESTS_AT_ONCE,
            )
        )
    except RemoteRefusedError as error:
        raise InvalidInputError(f"{server.name} rejects the request: {error}") from error
    return [ImageDetections.joined([next(answers) for _ in of_image]) for of_image in tasks]


def _workflow(max_detections: int) -> dict[str, Any]:
    """A workflow of the block alone that drops nothing; this server applies the limits."""
    names = ("prompts", "model_version")
    step = {
        "type": BLOCK_TYPE,
        "name": "detection",
        "images": "$inputs.image",
        "prompts": "$inputs.prompts",
        "model_version": "$inputs.model_version",
        "confidence": 0.0,
        "max_detections": max_detections,
        "iou_threshold": 1.0,
    }
    return {
        "version": "1.0",
        "inputs": [
            {"type": "WorkflowImage", "name": "image"},
            *({"type": "WorkflowParameter", "name": name} for name in names),
        ],
        "steps": [step],
        "outputs": [{"type": "JsonField", "name": "predictions", "selector": "$steps.detection.predictions"}],
    }


def _detect_with_plugin(
    server: RemoteServer, image: str, prompts: Sequence[str], model_version: str, max_detections: int
) -> list[Callable[[], ImageDetections]]:
    inputs = {"image": _base64(image), "prompts": list(prompts), "model_version": model_version}
    body = {"specification": _workflow(max_detections), "inputs": inputs}

    def detect() -> ImageDetections:
        answer = parsed(server, _WorkflowAnswer, server.post("/workflows/run", body))
        return answer.outputs[0].predictions.to_detections(server, len(prompts))

    return [detect]


def _detect_without_plugin(
    server: RemoteServer, image: str, prompts: Sequence[str], model_version: str, max_detections: int
) -> list[Callable[[], ImageDetections]]:
    """Uses Inference's own route, which takes one prompt and has no limit of boxes."""
    if model_version == DEMO_MODEL:
        raise InvalidInputError(
            f"`model_version` {DEMO_MODEL!r} is part of this plugin, which {server.name} does not have; "
            "install the plugin there, or give a model that the server has"
        )

    def detect(class_id: int) -> ImageDetections:
        body = {"image": _base64(image), "model_id": model_version, "prompt": prompts[class_id]}
        answer = parsed(server, _Predictions, server.post("/infer/lmm", body))
        return answer.to_detections(server, n_classes=None).of_class(class_id)

    return [partial(detect, class_id) for class_id in range(len(prompts))]


def _base64(image: str) -> dict[str, str]:
    return {"type": "base64", "value": image}


class _Box(BaseModel):
    """A box in pixels; `x` and `y` are its center."""

    x: FiniteFloat
    y: FiniteFloat
    width: NonNegativeFloat
    height: NonNegativeFloat
    confidence: Annotated[float, Field(ge=0, le=1)] = 1.0
    class_id: NonNegativeInt = 0


class _Predictions(BaseModel):
    predictions: list[_Box]

    def to_detections(self, server: RemoteServer, n_classes: int | None) -> ImageDetections:
        boxes = self.predictions
        if n_classes is not None and any(box.class_id >= n_classes for box in boxes):
            raise UnavailableError(f"{server.name} gave classes that were not requested", 502)
        centres = np.array([(box.x, box.y) for box in boxes], np.float64).reshape(-1, 2)
        sizes = np.array([(box.width, box.height) for box in boxes], np.float64).reshape(-1, 2)
        return ImageDetections(
            xyxy=np.hstack([centres - sizes / 2, centres + sizes / 2]),
            class_id=np.array([box.class_id for box in boxes], np.int64),
            confidence=np.array([box.confidence for box in boxes], np.float64),
        )


class _Output(BaseModel):
    predictions: _Predictions


class _WorkflowAnswer(BaseModel):
    outputs: Annotated[list[_Output], Field(min_length=1, max_length=1)]
