"""Converts images of every form that Inference passes to models."""

from typing import Any

import cv2
import numpy as np
import torch
from inference_models.errors import ModelInputError

from workflow_blocks.moondream2.image_crops import UInt8Array

Images = torch.Tensor | list[torch.Tensor] | UInt8Array | list[UInt8Array]


def to_arrays(images: Images, color_format: str | None) -> tuple[list[UInt8Array], bool]:
    """Checks images and converts them to arrays (H, W, 3). Arrays are not copied unless they must be.

    Args:
        images: uint8 arrays (H, W, 3) or tensors (3, H, W), one or a list, or a tensor (N, 3, H, W).
        color_format: "bgr" or "rgb"; by default arrays are BGR and tensors RGB.

    Returns:
        The arrays, and whether all of them are BGR; else all are RGB.

    Raises:
        ModelInputError: there are no images, or an image has another form.
    """
    if not isinstance(images, (list, tuple, torch.Tensor, np.ndarray)):
        raise ModelInputError(f"images is of type {type(images).__name__}; give arrays or tensors")
    is_one = not isinstance(images, (list, tuple)) and images.ndim != 4
    given: list[Any] = [images] if is_one else list(images)
    if not given:
        raise ModelInputError("no images; give at least one")
    if color_format not in (None, "bgr", "rgb"):
        raise ModelInputError(f"input_color_format is {color_format!r}; give 'bgr' or 'rgb'")
    arrays = [_to_array(image) for image in given]
    are_bgr = [(color_format or _usual_format(image)) == "bgr" for image in given]
    if all(are_bgr):
        return arrays, True
    return [
        np.asarray(cv2.cvtColor(array, cv2.COLOR_BGR2RGB), np.uint8) if is_bgr else array
        for array, is_bgr in zip(arrays, are_bgr, strict=True)
    ], False


def _usual_format(image: Any) -> str:
    return "rgb" if isinstance(image, torch.Tensor) else "bgr"


def _to_array(image: Any) -> UInt8Array:
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
    return np.ascontiguousarray(array)
