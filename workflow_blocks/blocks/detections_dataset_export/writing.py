"""Writing one image and its detections to a dataset."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import supervision as sv
from filelock import Timeout
from inference.core.workflows.execution_engine.entities.base import WorkflowImageData

from workflow_blocks.blocks.common.boxes import clip_to_image, in_pixels_of
from workflow_blocks.blocks.common.class_names import class_names_of
from workflow_blocks.blocks.common.client_errors import InvalidInputError
from workflow_blocks.blocks.common.images import to_bgr_uint8
from workflow_blocks.blocks.common.manifest_fields import checked
from workflow_blocks.blocks.detections_dataset_export.details import details_of
from workflow_blocks.blocks.detections_dataset_export.settings import DetectedNames, ExportSettings
from workflow_blocks.blocks.detections_dataset_export.source import original_bytes, source_name
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.details import Detail
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.records import Box

logger = logging.getLogger(__name__)

_SHIFT = "shift_of_crop"


@dataclass(frozen=True)
class LabelledImage:
    """An image (H, W, 3) with boxes in its pixels, their class names, scores, prompts and masks."""

    image_bgr: npt.NDArray[np.uint8]
    boxes: list[Box]
    names: list[str]
    details: list[Detail]
    source_name: str
    original: bytes | None


def label(image: WorkflowImageData, detections: sv.Detections, image_name: str | None) -> LabelledImage:
    """An image with its detections, also those that were made on a crop of it; boxes are clipped to it.

    Raises:
        InvalidInputError: the image has no pixels, a coordinate is not a number, or a detection has no class
            name, or one that no file can hold.
    """
    image_bgr = to_bgr_uint8(image.numpy_image)
    height, width = image_bgr.shape[:2]
    if np.isnan(detections.xyxy).any():
        raise InvalidInputError("`predictions` holds a box whose coordinates are not all numbers")
    placed = in_pixels_of(image, detections)
    shifts = placed.xyxy[:, :2] - detections.xyxy[:, :2]
    placed = replace(placed, data=placed.data | {_SHIFT: shifts})
    visible = clip_to_image(placed, width, height)
    names = checked(DetectedNames, predictions=class_names_of(visible)).predictions
    boxes = [tuple(box) for box in visible.xyxy.tolist()]
    details = details_of(visible, visible[_SHIFT], width, height)
    return LabelledImage(
        image_bgr, boxes, names, details, image_name or source_name(image), original_bytes(image)
    )


class DatasetWriter:
    """Writes images to the dataset that the settings name."""

    def __init__(self, settings: ExportSettings, allowed_directory: str | None) -> None:
        self._settings = settings
        self._allowed_directory = allowed_directory

    def is_wanted(self, labelled: LabelledImage) -> bool:
        """Whether the settings do not leave the image out."""
        return self._why_left_out(labelled) is None

    def problem_with(self, labelled: LabelledImage) -> dict[str, Any] | None:
        """The outputs of an image that certainly cannot be written, or None."""
        try:
            with self._open() as dataset:
                if self.is_wanted(labelled):
                    dataset.check(
                        labelled.image_bgr,
                        labelled.boxes,
                        labelled.names,
                        self._settings.split,
                        f".{self._settings.image_format}",
                        labelled.source_name,
                    )
        except (DatasetError, OSError, Timeout) as error:
            return _failure(error)
        return None

    def write(self, labelled: LabelledImage) -> dict[str, Any]:
        """Writes an image, or removes it if it has no detections any more; returns the step's outputs."""
        settings = self._settings
        try:
            with self._open() as dataset:
                if (reason := self._why_left_out(labelled)) is not None:
                    dataset.discard(labelled.image_bgr)
                    return outputs(reason)
                path = dataset.add(
                    labelled.image_bgr,
                    labelled.boxes,
                    labelled.names,
                    settings.split,
                    f".{settings.image_format}",
                    settings.jpeg_quality,
                    labelled.source_name,
                    labelled.original,
                    labelled.details,
                    self._file_prefix(labelled),
                    settings.caption or "",
                )
        except (DatasetError, OSError, Timeout) as error:
            return _failure(error)
        return outputs("Image written", path)

    def write_and_log(self, labelled: LabelledImage) -> dict[str, Any]:
        """Like `write`; a failure is logged, since nobody looks at the outputs of a background task."""
        try:
            result = self.write(labelled)
        except Exception:
            logger.exception("Could not write to the dataset %s", self._settings.target_directory)
            raise
        if result["error_status"]:
            logger.warning("%s: %s", self._settings.target_directory, result["message"])
        return result

    def _why_left_out(self, labelled: LabelledImage) -> str | None:
        if not labelled.boxes and not self._settings.include_images_without_detections:
            return "Image without detections left out"
        if not self._settings.is_wanted(labelled.names, labelled.details):
            return f"Image left out: its labels are not for {self._settings.labels!r}"
        return None

    def _file_prefix(self, labelled: LabelledImage) -> str:
        """Makes the files of sure labels, and of those to review, sort by their lowest score."""
        scores = [detail.score for detail in labelled.details if detail.score is not None]
        return "" if self._settings.labels == "all" or not scores else f"{min(scores):.2f}_"

    def _open(self) -> Dataset:
        return Dataset(self._allowed_folder(), self._settings.format, self._settings.class_list)

    def _allowed_folder(self) -> Path:
        """The dataset's folder, with all symbolic links resolved.

        Raises:
            DatasetError: it is outside the folder in which blocks may write, or has a link to itself.
        """
        target = self._settings.target_directory
        folder = _resolved(Path(target).expanduser())
        if self._allowed_directory is not None:
            allowed = Path(self._allowed_directory).resolve()
            if not folder.is_relative_to(allowed):
                raise DatasetError(
                    f"{target} is outside the folder in which this server lets blocks write; choose a folder "
                    "inside it"
                )
        return folder


def _resolved(path: Path) -> Path:
    try:
        folder = path.resolve()
        # `resolve` leaves what comes after a link to itself as it is: `loop/../link` becomes `link`.
        if folder.resolve() == folder:
            return folder
    except RuntimeError:  # what `resolve` raises up to Python 3.12 for a link to itself
        pass
    raise DatasetError(f"{path} has a link to itself; choose another folder")


def outputs(
    message: str, path: Path | None = None, failed: bool = False, throttled: bool = False
) -> dict[str, Any]:
    """The outputs of the step."""
    return {
        "error_status": failed,
        "throttling_status": throttled,
        "message": message,
        "image_path": str(path) if path else "",
    }


def _failure(error: Exception) -> dict[str, Any]:
    return outputs(f"Could not write to the dataset: {error}", failed=True)
