"""The door through which Inference loads and runs the model (see `package.py` for what it loads)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference_models import Detections
from inference_models.errors import ModelInputError
from inference_models.models.common.roboflow.pre_processing import images_to_pillow

from workflow_blocks.moondream2.checkpoint import CONFIG_FILE, load_model, load_tokenizer
from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.detector import (
    DEFAULT_MAX_OBJECTS,
    STEPS_PER_OBJECT,
    DetectedObject,
    Detector,
    PromptTooLongError,
)
from workflow_blocks.moondream2.image_crops import UInt8Array

Images = torch.Tensor | list[torch.Tensor] | UInt8Array | list[UInt8Array]


class Moondream2Model:
    """A Moondream2 with the methods that Inference expects of one."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    @classmethod
    def from_pretrained(
        cls, model_name_or_path: str, device: torch.device | str | None = None, **_: Any
    ) -> "Moondream2Model":
        """Loads a package folder; what else Inference passes does not concern this model.

        Raises:
            CheckpointError, ConfigError: the package is incomplete or damaged.
        """
        folder = Path(model_name_or_path)
        place = torch.device(device or "cpu")
        config = Moondream2Config.from_file(folder / CONFIG_FILE)
        tokenizer = load_tokenizer(folder, config)
        return cls(Detector(load_model(folder, config, place, _dtype_for(place)), tokenizer))

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
            max_new_tokens: three of them allow one object for each class.

        Returns:
            For each image its boxes (N, 4) in pixels, clipped to the image, with class ids and
            confidences (N,).

        Raises:
            ModelInputError: no images, or a class is too long for the model's context.
        """
        max_objects = DEFAULT_MAX_OBJECTS
        if max_new_tokens is not None:
            max_objects = min(max_objects, max(1, max_new_tokens // STEPS_PER_OBJECT))
        pillow_images, dimensions = images_to_pillow(
            images=images, input_color_format=input_color_format, model_color_format="rgb"
        )
        results = []
        for image, size in zip(pillow_images, dimensions, strict=True):
            encoded = self._detector.encode_image(np.asarray(image))
            try:
                found = self._detector.detect(encoded, classes, max_objects)
            except PromptTooLongError as error:
                raise ModelInputError(str(error)) from error
            results.append(_to_detections(found, size.width, size.height))
        return results


def _dtype_for(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _to_detections(found: list[list[DetectedObject]], width: int, height: int) -> Detections:
    """What each class found, as one set of boxes in pixels."""
    objects = [(class_id, item) for class_id, items in enumerate(found) for item in items]
    relative = torch.tensor([(o.x_min, o.y_min, o.x_max, o.y_max) for _, o in objects]).reshape(-1, 4)
    scale = torch.tensor([width, height, width, height], dtype=torch.float32)
    return Detections(
        xyxy=relative.clamp(0, 1) * scale,
        class_id=torch.tensor([class_id for class_id, _ in objects], dtype=torch.int64),
        confidence=torch.tensor([o.confidence for _, o in objects], dtype=torch.float32),
    )
