"""Images of common layouts, converted to what models take."""

from typing import Any

import numpy as np
import numpy.typing as npt
from inference.core.workflows.execution_engine.entities.base import WorkflowImageData

from workflow_blocks.blocks.common.client_errors import InvalidInputError, shown


def check_image(value: Any, field: str = "images") -> WorkflowImageData:
    """An image that a step gave. The engine does not check what comes from outputs of any kind (`*`).

    Raises:
        InvalidInputError: it is something else.
    """
    if not isinstance(value, WorkflowImageData):
        raise InvalidInputError(f"`{field}` is {shown(value)}; give the image of an input or of a step")
    return value


def to_bgr_uint8(image: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Converts an image to a contiguous uint8 BGR array (H, W, 3).

    Takes grey (H, W) or (H, W, 1), BGR (H, W, 3) and BGRA (H, W, 4; the alpha channel is dropped), with
    8 bits per channel, 16 bits (scaled down) or booleans.

    Raises:
        InvalidInputError: the array has another layout, or no pixels.
    """
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.size == 0:
        raise InvalidInputError(
            f"`images` holds an array of shape {image.shape}; give images of shape (height, width), "
            "(height, width, 3) or (height, width, 4), each side at least 1"
        )
    channels = image[..., :3]
    if channels.dtype == np.uint16:
        channels = channels // 257
    elif channels.dtype == np.bool_:
        channels = channels.astype(np.uint8) * 255
    elif channels.dtype != np.uint8:
        raise InvalidInputError(
            f"`images` holds an array of dtype {image.dtype}; give uint8 values from 0 to 255, or uint16"
        )
    colour = np.broadcast_to(channels, (*channels.shape[:2], 3))
    return np.ascontiguousarray(colour, dtype=np.uint8)


def to_jpeg_base64(image: WorkflowImageData) -> str:
    """The image as base64 for a request: as the caller sent it, unless that was not 8-bit BGR.

    Raises:
        InvalidInputError: see `to_bgr_uint8`.
    """
    given = image.numpy_image
    bgr = to_bgr_uint8(given)
    if given.shape != bgr.shape or given.dtype != bgr.dtype:
        image = WorkflowImageData.copy_and_replace(origin_image_data=image, numpy_image=bgr)
    return str(image.base64_image)
