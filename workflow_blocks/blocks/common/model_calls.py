"""Calls of a loaded Moondream2. Images are uint8 BGR arrays (H, W, 3)."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from inference.core.workflows.prototypes.models_provider import ModelsProvider
from inference_models.errors import ModelInputError

from workflow_blocks.blocks.common.detections import ImageDetections
from workflow_blocks.moondream2.config import MAX_OBJECTS, STEPS_PER_OBJECT

DETECT = "detect"

Image = npt.NDArray[np.uint8]
_Key = TypeVar("_Key", bound=Hashable)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class LoadedModel:
    """A model in Inference's model manager."""

    manager: ModelsProvider
    model_id: str

    def run(self, images: Sequence[Any], task: str = DETECT, **arguments: Any) -> Any:
        """Runs a task of the model: see `run_tensor_native_inference` of this plugin's adapter.

        Raises:
            ModelInputError: the model does not have the task, or its arguments do not fit.
        """
        # Inference's own adapter takes no task: it only detects.
        named = {} if task == DETECT else {"task": task}
        try:
            return self._call(images=list(images), input_color_format="bgr", **named, **arguments)
        except TypeError as error:
            if task == DETECT or self._runtime is not None:
                raise
            raise ModelInputError(
                f"the task {task!r} needs this plugin's runtime, but Inference loaded the model before this "
                "plugin was registered; start the server with `workflow-blocks serve` or as "
                "`workflow_blocks.running.server_app:app`"
            ) from error

    def check(self, task: str, **arguments: Any) -> None:
        """Raises what `run` raises before it encodes an image. Inference's own class has no such checks."""
        if self._runtime == "workflow_blocks":
            self._call(images=None, task=task, **arguments)

    @property
    def _runtime(self) -> str | None:
        """What runs the model; None for one that was loaded before this plugin was registered."""
        try:
            return str(self._call(images=[], task="about")["runtime"])
        except TypeError:  # Inference's own adapter passes `task` to the model
            return None

    def _call(self, **arguments: Any) -> Any:
        return self.manager.run_tensor_native_inference(model_id=self.model_id, **arguments)


def detect_arguments(prompts: Sequence[str]) -> dict[str, Any]:
    """The arguments of `LoadedModel.run` that detect."""
    return {
        "task": DETECT,
        "classes": list(prompts),
        "max_new_tokens": STEPS_PER_OBJECT * MAX_OBJECTS,
    }


def detect(
    model: LoadedModel, images: Sequence[Any], prompts_of_images: Sequence[Sequence[str]]
) -> list[ImageDetections]:
    """All that the model finds; class ids index an image's prompts. All prompts are checked first."""

    def of_images(prompts: tuple[str, ...], chosen: list[Any]) -> list[ImageDetections]:
        if not prompts:
            return [ImageDetections.none()] * len(chosen)
        return list(map(ImageDetections.from_model, model.run(chosen, **detect_arguments(prompts))))

    keys = list(map(tuple, prompts_of_images))
    check_all(model, [detect_arguments(prompts) for prompts in dict.fromkeys(keys) if prompts])
    return call_by_group(keys, images, of_images)


def check_all(model: LoadedModel, calls: Sequence[dict[str, Any]]) -> None:
    """Checks several calls, so that the last does not fail when the others have run; one checks itself."""
    if len(calls) > 1:
        for arguments in calls:
            model.check(**arguments)


def call_by_group(
    keys: Sequence[_Key], images: Sequence[Any], call: Callable[[_Key, list[Any]], Sequence[_Result]]
) -> list[_Result]:
    """Calls once for all images with the same key. Returns a result for each image, in their order."""
    groups: dict[_Key, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        groups[key].append(index)
    results: dict[int, _Result] = {}
    for key, indices in groups.items():
        results.update(zip(indices, call(key, [images[index] for index in indices]), strict=True))
    return [results[index] for index in range(len(images))]
