"""Inference's adapter for Moondream2, with real confidences and with every skill of the model."""

import logging
from inspect import signature
from typing import Any

from inference.core.env import ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES
from inference.core.workflows.errors import ClientCausedStepExecutionError
from inference.models.moondream2.moondream2_inference_models import InferenceModelsMoondream2Adapter
from inference_models import Detections
from inference_models.errors import (
    BaseInferenceModelsError,
    CorruptedModelPackageError,
    ModelInputError,
    ModelLoadingError,
)
from inference_models.models.moondream2.moondream2_hf import MoonDream2HF
from inference_models.weights_providers.core import get_model_from_provider

from workflow_blocks.bundled_model import not_allowed
from workflow_blocks.inference_host.registry import ARCHITECTURE
from workflow_blocks.package_ids import folder_of

# The methods of a model that `run_tensor_native_inference` may call.
TASKS = ("encode_images", "detect", "point", "query", "caption", "answer", "classify", "describe")
ABOUT = "about"

_LOGGER = logging.getLogger(__name__)


class Moondream2Adapter(InferenceModelsMoondream2Adapter):  # type: ignore[misc]
    """Stands between Inference's model manager and a Moondream2 of any class.

    With a model of this plugin's runtime, boxes keep their confidences. With a model of Inference's own class
    nothing changes: its confidences are 1.
    """

    def __init__(self, model_id: str, api_key: str | None = None, **kwargs: Any) -> None:
        """Loads a model.

        Raises:
            ClientCausedStepExecutionError: the id is of a local package, which is not allowed.
            CorruptedModelPackageError: the id names a model of another architecture.
        """
        try:
            super().__init__(model_id=_package(model_id), api_key=api_key, **kwargs)
        except ModelLoadingError:
            _check_architecture(model_id, api_key)
            raise
        if _is_of_inference(self._model) and not isinstance(self._model, MoonDream2HF):
            _check_architecture(model_id, api_key)
        facts = ", ".join(f"{name} {value}" for name, value in self.about().items())
        _LOGGER.info("Loaded %s: %s", model_id, facts)

    def about(self) -> dict[str, str]:
        """What runs the model: `runtime` is "workflow_blocks" or "inference"; see `Moondream2Model.about`."""
        own = getattr(self._model, ABOUT, None)
        return own() if own is not None else {"runtime": "inference"}

    def run_tensor_native_inference(self, images: Any = None, task: str = "detect", **kwargs: Any) -> Any:
        """Calls a method of the model.

        Args:
            images: the images, as the model takes them.
            task: the method's name, one of `TASKS`; or "about", which takes no images.
            kwargs: the method's other arguments.

        Returns:
            What the method returns: see `Moondream2Model`.

        Raises:
            ModelInputError: there is no such task, the model does not have it, or it takes other arguments.
        """
        if task == ABOUT:
            return self.about()
        if task not in TASKS:
            raise ModelInputError(f"task is {task!r}; give one of {', '.join(TASKS)}")
        method = getattr(self._model, task, None)
        if method is None:
            raise ModelInputError(
                f"task is {task!r}, which the runtime {self.about()['runtime']!r} of this model does not have"
            )
        try:
            signature(method).bind(images=images, **kwargs)
        except TypeError as error:
            raise ModelInputError(f"the arguments of task {task!r} do not fit: {error}") from error
        return method(images=images, **kwargs)

    def make_response(self, predictions: list[Detections], image_sizes: Any, prompt: str) -> Any:
        """Inference's responses, with the confidences of the boxes."""
        responses = super().make_response(predictions, image_sizes, prompt=prompt)
        for response, detections in zip(responses, predictions, strict=True):
            for box, confidence in zip(response.predictions, detections.confidence.tolist(), strict=True):
                box.confidence = confidence
        return responses


def _package(model_id: str) -> str:
    """The folder of a package for an id of this plugin; other ids as they are."""
    folder = folder_of(model_id)
    if folder is None:
        return model_id
    if not ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES:
        raise ClientCausedStepExecutionError(
            block_id="",
            status_code=400,
            public_message=not_allowed(model_id),
            context="model_loading",
        )
    return folder


def _is_of_inference(model: Any) -> bool:
    return type(model).__module__.startswith("inference_models.")


def _check_architecture(model_id: str, api_key: str | None) -> None:
    """Refuses a model that is of another architecture, as the provider says, whatever its id."""
    try:
        architecture = get_model_from_provider(model_id, "roboflow", api_key).model_architecture
    except BaseInferenceModelsError:
        return
    if architecture != ARCHITECTURE:
        raise CorruptedModelPackageError(
            message=f"{model_id} is not a Moondream2: its architecture is {architecture!r}",
            help_url="https://inference-models.roboflow.com/errors/model-loading/#corruptedmodelpackageerror",
        )
