"""Scores, prompts, answers and masks of detections, for a dataset."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import supervision as sv
from inference.core.workflows.execution_engine.constants import RLE_MASK_KEY_IN_SV_DETECTIONS

from workflow_blocks.blocks.common.attributes import attribute, attribute_names
from workflow_blocks.blocks.common.client_errors import InvalidInputError
from workflow_blocks.blocks.common.detections import PROMPT_KEY
from workflow_blocks.datasets.details import Detail, with_mask


def details_of(
    detections: sv.Detections, shifts: npt.NDArray[np.float64], width: int, height: int
) -> list[Detail]:
    """What a dataset records of each detection besides box and class; empty if nothing is known.

    Args:
        detections: boxes in pixels of the image; their masks may be of a crop of it.
        shifts: (N, 2) from pixels of each mask to pixels of the image.
        width: of the image.
        height: of the image.

    Raises:
        InvalidInputError: a mask cannot be read.
    """
    scores = _scores(detections)
    prompts = [str(prompt) for prompt in detections.data.get(PROMPT_KEY, [""] * len(detections))]
    names = attribute_names(detections)
    details = []
    for index, (score, prompt) in enumerate(zip(scores, prompts, strict=True)):
        answers = {_text(name): _finite(attribute(detections, name, index)) for name in names}
        detail = Detail(score, prompt, attributes=answers)
        mask = _mask(detections, index)
        if mask is not None:
            detail = with_mask(detail, _placed(mask, shifts[index], width, height))
        details.append(detail)
    return [] if all(detail == Detail() for detail in details) else details


def _scores(detections: sv.Detections) -> Sequence[float | None]:
    if detections.confidence is None:
        return [None] * len(detections)
    return [float(score) if np.isfinite(score) else None for score in detections.confidence]


def _text(value: str) -> str:
    return value.encode(errors="replace").decode()  # UTF-8 has no lone surrogates


def _finite(value: Any) -> Any:
    """None for a number that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mask(detections: sv.Detections, index: int) -> npt.NDArray[np.bool_] | None:
    """The mask (H, W) of a detection, which segmentation blocks give as pixels or as run lengths."""
    rle = detections.data.get(RLE_MASK_KEY_IN_SV_DETECTIONS)
    if rle is not None and rle[index] is not None:
        try:
            height, width = rle[index]["size"]
            return sv.rle_to_mask(rle[index]["counts"], (width, height)).astype(bool)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise InvalidInputError(
                f"`predictions` has a mask that cannot be read (detection {index}: {error}); give the "
                "predictions of a segmentation step"
            ) from error
    return None if detections.mask is None else np.asarray(detections.mask[index], bool)


def _placed(
    mask: npt.NDArray[np.bool_], shift: npt.NDArray[np.float64], width: int, height: int
) -> npt.NDArray[np.bool_]:
    """A mask of a crop as a mask (height, width) of the image."""
    if mask.shape == (height, width):
        return mask
    left, top = (round(float(value)) for value in shift)
    placed = np.zeros((height, width), bool)
    inside = mask[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    top, left = max(top, 0), max(left, 0)
    placed[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return placed
