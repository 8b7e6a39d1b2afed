"""Converts images of every form that Inference passes to models."""

from typing import Any

import cv2
import numpy as np
import torch
from inference_models.errors import ModelInputError

from workflow_blocks.moondream2.image_crops import UInt8Array

Images = torch.Tensor | list[torch.Tensor] | UInt8Array | list[UInt8Array]


def to_rgb_arrays(images: Images, color_format: str | None) -> list[UInt8Array]:
    """Checks images and converts them to RGB arrays (H, W, 3).

    Args:
        images: uint8 arrays (H, W, 3) or tensors (3, H, W), one or a list, or a tensor (N, 3, H, W).
        color_format: "bgr" or "rgb"; by default arrays are BGR and tensors RGB.

    Raises:
        ModelInputError: there are no images, or an image has another form.
    """
    if not isinstance(images, (list, tuple, torch.Tensor, np.ndarray)):
        raise ModelInputError(f"images is of type {type(images).__name__}; give arrays or tensors")
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
