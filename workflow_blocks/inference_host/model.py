"""The model class that Inference loads from a package and runs (`model_package.py` builds packages)."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from inference_models import Detections
from inference_models.errors import ModelInputError

from workflow_blocks.moondream2.config import MAX_OBJECTS, STEPS_PER_OBJECT
from workflow_blocks.moondream2.detector import (
    DetectedObject,
    Detector,
    PromptTooLongError,
    Query,
)
from workflow_blocks.moondream2.image_crops import UInt8Array
from workflow_blocks.moondream2.settings import load_settings

Images = torch.Tensor | list[torch.Tensor] | UInt8Array | list[UInt8Array]


class Moondream2Model:
    """A Moondream2 with the methods that Inference calls. Threads may share it."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    @classmethod
    def from_pretrained(
        cls, model_name_or_path: str, device: torch.device | str | None = None, **_: Any
    ) -> "Moondream2Model":
        """Loads a package folder; other arguments that Inference passes are ignored.

        Raises:
            CheckpointError, ConfigError: the package is incomplete or damaged.
            SettingsError: a `MOONDREAM2_*` variable has an invalid value.
        """
        return cls(load_detector(Path(model_name_or_path), device or "cpu"))

    def detect(
        self,
        images: Images,
        classes: list[str],
        input_color_format: str | None = None,
        max_new_tokens: int | None = None,
        **_: Any,
    ) -> list[Detections]:
        """Finds objects of each class in each image.

        Args:
            images: uint8 arrays (H, W, 3) or tensors (3, H, W), one or a list.
            classes: prompts; a detection's class id is an index into them.
            input_color_format: "bgr" or "rgb"; by default arrays are BGR and tensors RGB.
            max_new_tokens: each object of a class takes three.

        Returns:
            For each image its boxes (N, 4) in pixels, clipped to the image, with class ids and
            confidences (N,).

        Raises:
            ModelInputError: there are no images or no classes, an image has another form, or a class is
                too long for the model's context.
        """
        arrays = _to_rgb_arrays(images, input_color_format)
        _check_classes(classes)
        max_objects = MAX_OBJECTS
        if max_new_tokens is not None:
            max_objects = min(max_objects, max(1, max_new_tokens // STEPS_PER_OBJECT))
        try:
            self._detector.check_prompts(classes, max_objects)
        except PromptTooLongError as error:
            raise ModelInputError(str(error)) from error
        results: list[Detections] = []
        at_once = self._detector.images_at_once
        for start in range(0, len(arrays), at_once):
            results += self._detect_together(arrays[start : start + at_once], classes, max_objects)
        return results

    def _detect_together(
        self, images_rgb: list[UInt8Array], classes: list[str], max_objects: int
    ) -> list[Detections]:
        encoded = self._detector.encode_images(images_rgb)
        queries = [Query(image, prompt) for image, prompt in product(encoded, classes)]
        found = self._detector.detect(queries, max_objects)
        return [
            _to_detections(found[i * len(classes) : (i + 1) * len(classes)], *image.shape[:2])
            for i, image in enumerate(images_rgb)
        ]


def load_detector(folder: Path, default_device: str | torch.device) -> Detector:
    """Loads a checkpoint folder with the settings applied; raises as `Moondream2Model.from_pretrained`."""
    settings = load_settings()
    device = settings.device_or(default_device)
    detector = Detector.from_folder(
        folder,
        device,
        settings.dtype_on(device),
        memory=settings.working_memory_on(device),
        cache_bytes=settings.image_cache_bytes,
        refine_boxes=settings.refine_boxes,
    )
    if settings.compile:
        detector.model.compile_blocks()
    return detector


def _to_rgb_arrays(images: Images, color_format: str | None) -> list[UInt8Array]:
    """Checks images of every form that Inference passes, and converts them to RGB arrays (H, W, 3)."""
    is_one = not isinstance(images, (list, tuple)) and images.ndim == 3
    given: list[Any] = [images] if is_one else list(images)
    if not given:
        raise ModelInputError("no images; give at least one")
    if color_format not in (None, "bgr", "rgb"):
        raise ModelInputError(f"input_color_format is {color_format!r}; give 'bgr' or 'rgb'")
    return [_to_rgb_array(image, color_format) for image in given]


def _to_rgb_array(image: Any, color_format: str | None) -> UInt8Array:
    array, form = image, "array (H, W, 3)"
    if isinstance(image, torch.Tensor):
        array, form = image.movedim(0, -1).cpu().numpy() if image.ndim == 3 else None, "tensor (3, H, W)"
    if (
        not isinstance(array, np.ndarray)
        or array.ndim != 3
        or array.shape[2] != 3
        or array.dtype != np.uint8
        or array.size == 0
    ):
        found = f"{image.dtype} {tuple(image.shape)}" if hasattr(image, "shape") else type(image).__name__
        raise ModelInputError(f"an image is {found}; give a uint8 {form} with H and W at least 1")
    if (color_format or ("rgb" if isinstance(image, torch.Tensor) else "bgr")) == "bgr":
        return np.asarray(cv2.cvtColor(array, cv2.COLOR_BGR2RGB), np.uint8)
    return np.ascontiguousarray(array)


def _check_classes(classes: Sequence[str]) -> None:
    if isinstance(classes, str) or not classes:
        raise ModelInputError(f"classes is {classes!r}; give a list of at least one prompt")
    for prompt in classes:
        if not isinstance(prompt, str) or not prompt.strip():
            raise ModelInputError(f"classes holds {prompt!r}; a prompt must be a string that is not blank")


def _to_detections(found: list[list[DetectedObject]], height: int, width: int) -> Detections:
    """The objects of all classes as one set of boxes in pixels."""
    objects = [(class_id, item) for class_id, items in enumerate(found) for item in items]
    relative = torch.tensor([(o.x_min, o.y_min, o.x_max, o.y_max) for _, o in objects]).reshape(-1, 4)
    scale = torch.tensor([width, height, width, height], dtype=torch.float32)
    return Detections(
        xyxy=relative.clamp(0, 1) * scale,
        class_id=torch.tensor([class_id for class_id, _ in objects], dtype=torch.int64),
        confidence=torch.tensor([o.confidence for _, o in objects], dtype=torch.float32),
    )
