"""Detection on another Inference server: with this plugin one request an image, without it one a prompt."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Annotated, Any, TypeVar

import numpy as np
from inference.core.env import (
    LOCAL_INFERENCE_API_URL,
    WORKFLOWS_REMOTE_API_KEY_TRANSPORT,
    WORKFLOWS_REMOTE_API_TARGET,
    WORKFLOWS_REMOTE_EXECUTION_MAX_STEP_CONCURRENT_REQUESTS,
)
from inference.core.workflows.core_steps.common.entities import StepExecutionMode
from inference.core.workflows.core_steps.common.utils import run_in_parallel
from pydantic import (
    AnyHttpUrl,
    BaseModel,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from workflow_blocks.blocks.common.client_errors import InvalidInputError, UnavailableError
from workflow_blocks.blocks.common.model_version import DEMO_MODEL
from workflow_blocks.blocks.common.remote_http import RemoteRefusedError, RemoteServer
from workflow_blocks.blocks.moondream2_prompt_detection.predictions import ImageDetections

BLOCK_TYPE = "workflow_blocks/moondream2_prompt_detection@v1"
# Whether a server has the plugin is asked again after this long: it may have got it.
PLUGIN_KNOWN_FOR_S = 300.0

_Answer = TypeVar("_Answer", bound=BaseModel)


class RemoteSettings(BaseSettings):
    """Where this block's inference goes, from the environment; no workflow can choose it."""

    model_config = SettingsConfigDict(
        env_prefix="MOONDREAM2_API_",
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    url: AnyHttpUrl | None = None
    key: SecretStr | None = None
    timeout: float = Field(default=120.0, gt=0, le=3600)

    @field_validator("url")
    @classmethod
    def _has_no_key(cls, url: AnyHttpUrl | None) -> AnyHttpUrl | None:
        if url is not None and (url.username or url.password or url.query or url.fragment):
            raise ValueError(
                "give an address without user, password and query; the key goes into MOONDREAM2_API_KEY"
            )
        return url


def remote_server(mode: StepExecutionMode, api_key: str | None) -> RemoteServer | None:
    """The server that does the inference, or None for this one.

    Args:
        mode: the engine's step execution mode.
        api_key: the workflow's; it goes to the engine's own remote target only.

    Raises:
        UnavailableError: a setting is wrong, or the target is Roboflow's hosted API, which has no Moondream2.
    """
    try:
        settings = RemoteSettings()
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        name = f"MOONDREAM2_API_{str(problem['loc'][0]).upper()}"
        raise UnavailableError(f"the server's setting {name} is wrong: {problem['msg']}", 500) from error
    if settings.url is not None:
        return _server(str(settings.url), settings.key, settings.timeout, "the server at MOONDREAM2_API_URL")
    if mode is StepExecutionMode.LOCAL:
        return None
    if WORKFLOWS_REMOTE_API_TARGET == "hosted":
        raise UnavailableError(
            "Roboflow's hosted API has no Moondream2; set MOONDREAM2_API_URL to an Inference server "
            "that has it, or WORKFLOWS_REMOTE_API_TARGET=self-hosted with LOCAL_INFERENCE_API_URL, or "
            "WORKFLOWS_STEP_EXECUTION_MODE=local",
            501,
        )
    key = SecretStr(api_key) if api_key else None
    return _server(LOCAL_INFERENCE_API_URL, key, settings.timeout, "the server at LOCAL_INFERENCE_API_URL")


@lru_cache(maxsize=64)
def _server(url: str, key: SecretStr | None, timeout_s: float, name: str) -> RemoteServer:
    """One for each address and key, whose connections stay open."""
    return RemoteServer(url.rstrip("/"), key, WORKFLOWS_REMOTE_API_KEY_TRANSPORT, timeout_s, name)


def detect_remotely(
    server: RemoteServer,
    images_jpeg_base64: Sequence[str],
    prompts_of_images: Sequence[Sequence[str]],
    model_version: str,
    max_detections: int,
) -> list[ImageDetections]:
    """What a server finds in images, with its scores, nothing dropped; class ids are places in the prompts.

    Requests run together, as many as the engine allows a step.

    Raises:
        InvalidInputError: the server finds fault with the model, an image or a prompt.
        UnavailableError: the server cannot be reached, is too slow, or gives no good answer.
    """
    detect = _detect_with_plugin if _has_plugin(server) else _detect_without_plugin
    tasks: list[list[Callable[[], ImageDetections]]] = [
        detect(server, image, prompts, model_version, max_detections)
        for image, prompts in zip(images_jpeg_base64, prompts_of_images, strict=True)
    ]
    try:
        answers = iter(
            run_in_parallel(
                [task for of_image in tasks for task in of_image],
                max_workers=WORKFLOWS_REMOTE_EXECUTION_MAX_STEP_CONCURRENT_REQUESTS,
            )
        )
    except RemoteRefusedError as error:
        raise InvalidInputError(f"{server.name} refuses the request: {error}") from error
    return [ImageDetections.joined([next(answers) for _ in of_image]) for of_image in tasks]


# By address: when it was asked, and the answer.
_plugin_known: dict[str, tuple[float, bool]] = {}


def _has_plugin(server: RemoteServer) -> bool:
    asked_at, answer = _plugin_known.get(server.url, (-PLUGIN_KNOWN_FOR_S, False))
    if time.monotonic() - asked_at > PLUGIN_KNOWN_FOR_S:
        try:
            server.post("/workflows/validate", _workflow(max_detections=1))
            answer = True
        except RemoteRefusedError:
            answer = False
        _plugin_known[server.url] = (time.monotonic(), answer)
    return answer


def _workflow(max_detections: int) -> dict[str, Any]:
    """The block alone, keeping all that the model finds: what to drop is decided here."""
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
        answer = _parsed(server, _WorkflowAnswer, server.post("/workflows/run", body))
        return answer.outputs[0].predictions.to_detections(server, len(prompts))

    return [detect]


def _detect_without_plugin(
    server: RemoteServer, image: str, prompts: Sequence[str], model_version: str, max_detections: int
) -> list[Callable[[], ImageDetections]]:
    """Inference's own route takes one prompt and has no limit on boxes."""
    if model_version == DEMO_MODEL:
        raise InvalidInputError(
            f"`model_version` {DEMO_MODEL!r} comes with this plugin, which {server.name} does not have; "
            "install it there, or give a model that it has"
        )

    def detect(class_id: int) -> ImageDetections:
        body = {"image": _base64(image), "model_id": model_version, "prompt": prompts[class_id]}
        answer = _parsed(server, _Predictions, server.post("/infer/lmm", body))
        return answer.to_detections(server, n_classes=None).of_class(class_id)

    return [partial(detect, class_id) for class_id in range(len(prompts))]


def _base64(image: str) -> dict[str, str]:
    return {"type": "base64", "value": image}


class _Box(BaseModel):
    """Pixels; `x` and `y` are the middle."""

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
            raise UnavailableError(f"{server.name} found classes that it was not asked for", 502)
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


def _parsed(server: RemoteServer, model: type[_Answer], answer: Any) -> _Answer:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise UnavailableError(
            f"{server.name} gave an answer that is no detection (at {place!r})", 502
        ) from error
