"""The block `workflow_blocks/detections_dataset_export@v1`."""

import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import supervision as sv
from filelock import Timeout
from inference.core.workflows.execution_engine.entities.base import OutputDefinition, WorkflowImageData
from inference.core.workflows.execution_engine.entities.types import (
    BOOLEAN_KIND,
    DICTIONARY_KIND,
    IMAGE_KIND,
    INTEGER_KIND,
    LIST_OF_VALUES_KIND,
    OBJECT_DETECTION_PREDICTION_KIND,
    STRING_KIND,
    Selector,
)
from inference.core.workflows.prototypes.block import (
    BlockResult,
    DependentResource,
    WorkflowBlock,
    WorkflowBlockManifest,
)
from pydantic import ConfigDict, Field
from roboflow_workflows.core_steps.sinks.noop import disabled_sink_message
from roboflow_workflows.execution_engine.entities.workload import WorkOperation

from workflow_blocks.blocks.common.client_errors import InvalidInputError, as_client_error, shown
from workflow_blocks.blocks.common.data_representation import from_engine
from workflow_blocks.blocks.common.images import to_bgr_uint8
from workflow_blocks.blocks.common.manifest_fields import check_whole_number, unless_selector
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.formats import SPLITS
from workflow_blocks.datasets.records import Box, DatasetError

SHORT_DESCRIPTION = "Write images and detections to a dataset on disk, as COCO, YOLO or Pascal VOC."

LONG_DESCRIPTION = """
Build a dataset while a workflow runs: every image is written with its detections, in the layout that
Roboflow and Ultralytics import. The same image again replaces what it had, so a workflow can be run again
over the same images. A dataset can be written by several servers at once, and nothing that was written is
lost when one of them is killed.

| format | files |
| --- | --- |
| `coco` | `<target>/<split>/_annotations.coco.json` with the images beside it |
| `yolo` | `<target>/<split>/images`, `<target>/<split>/labels`, `<target>/data.yaml` |
| `pascal_voc` | `<target>/<split>/` with each XML beside its image |

The server decides whether and where blocks may write (`ALLOW_WORKFLOW_BLOCKS_ACCESSING_LOCAL_STORAGE`,
`WORKFLOW_BLOCKS_WRITE_DIRECTORY`).
"""

MAX_CLASS_NAME_LENGTH = 256


def _check_target_directory(value: object) -> object:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise InvalidInputError(f"`target_directory` is {shown(value)}; give the path of a folder")
    return value


def _check_split(value: object) -> object:
    if value in SPLITS:
        return value
    if (
        isinstance(value, Mapping)
        and value
        and all(
            name in SPLITS
            and isinstance(share, (int, float))
            and not isinstance(share, bool)
            and share >= 0
            and math.isfinite(share)
            for name, share in value.items()
        )
        and sum(value.values()) > 0
    ):
        return value
    raise InvalidInputError(
        f"`split` is {shown(value)}; give 'train', 'valid' or 'test', or the share of each, "
        'such as {"train": 0.8, "valid": 0.2}'
    )


def _check_class_names(value: object) -> object:
    if value is None:
        return value
    if (
        isinstance(value, list)
        and value
        and len(set(map(str, value))) == len(value)
        and all(isinstance(name, str) and 0 < len(name.strip()) <= MAX_CLASS_NAME_LENGTH for name in value)
    ):
        return value
    raise InvalidInputError(f"`class_names` is {shown(value)}; give a list of different, non-empty names")


def _check_quality(value: object) -> object:
    return check_whole_number("jpeg_quality", value, 1, 100)


def _check_cooldown(value: object) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf:
        return value
    raise InvalidInputError(f"`cooldown_seconds` is {shown(value)}; give a number of seconds, 0 for none")


class BlockManifest(WorkflowBlockManifest):
    model_config = ConfigDict(
        json_schema_extra={
            "name": "Detections Dataset Export",
            "version": "v1",
            "short_description": SHORT_DESCRIPTION,
            "long_description": LONG_DESCRIPTION,
            "license": "Apache-2.0",
            "block_type": "sink",
            "search_keywords": ["dataset", "export", "COCO", "YOLO", "Pascal VOC", "annotations", "labels"],
            "ui_manifest": {"section": "data_storage", "icon": "fal fa-images", "blockPriority": 3.1},
        },
        protected_namespaces=(),
    )
    type: Literal["workflow_blocks/detections_dataset_export@v1"]
    images: Selector(kind=[IMAGE_KIND]) = Field(
        title="Images", description="The images to write.", examples=["$inputs.image"]
    )
    predictions: Selector(kind=[OBJECT_DETECTION_PREDICTION_KIND]) = Field(
        description="The detections of each image.", examples=["$steps.detection.predictions"]
    )
    target_directory: Annotated[
        Selector(kind=[STRING_KIND]) | str, unless_selector(_check_target_directory)
    ] = Field(
        description="The dataset's folder; made if it is not there. With WORKFLOW_BLOCKS_WRITE_DIRECTORY set "
        "on the server it must lie in that folder.",
        examples=["datasets/shapes", "$inputs.target_directory"],
    )
    format: Literal["coco", "yolo", "pascal_voc"] = Field(
        default="coco", description="The dataset's format.", examples=["coco", "yolo", "pascal_voc"]
    )
    split: Annotated[
        Literal["train", "valid", "test"] | dict[str, float] | Selector(kind=[STRING_KIND, DICTIONARY_KIND]),
        unless_selector(_check_split),
    ] = Field(
        default="train",
        description="Where images go: one split, or the share of each. Shares are dealt out by the content "
        "of the image, so an image goes to the same split at every run.",
        examples=["train", {"train": 0.8, "valid": 0.1, "test": 0.1}, "$inputs.split"],
    )
    class_names: Annotated[
        list[str] | Selector(kind=[LIST_OF_VALUES_KIND]) | None, unless_selector(_check_class_names)
    ] = Field(
        default=None,
        description="The dataset's classes, in the order of their ids; a detection of another class is an "
        "error. Without it, classes are added in order of appearance.",
        examples=[["red circle", "blue star"], "$inputs.prompts"],
    )
    image_format: Literal["jpg", "png"] = Field(
        default="jpg", description="How images are written.", examples=["jpg", "png"]
    )
    jpeg_quality: Annotated[int | Selector(kind=[INTEGER_KIND]), unless_selector(_check_quality)] = Field(
        default=95, description="From 1 (small) to 100 (faithful).", examples=[95, "$inputs.quality"]
    )
    include_images_without_detections: bool | Selector(kind=[BOOLEAN_KIND]) = Field(
        default=True,
        description="Whether images without detections are written: a detector learns from them what not to "
        "find. If not, an image that had some and now has none leaves the dataset.",
        examples=[True, "$inputs.include_empty"],
    )
    fire_and_forget: bool | Selector(kind=[BOOLEAN_KIND]) = Field(
        default=False,
        description="Whether the workflow goes on without waiting; `error_status` then tells nothing.",
        examples=[False, "$inputs.fire_and_forget"],
    )
    disable_sink: bool | Selector(kind=[BOOLEAN_KIND]) = Field(
        default=False, description="Whether to write nothing.", examples=[False, "$inputs.disable_export"]
    )
    cooldown_seconds: Annotated[float | Selector(kind=[INTEGER_KIND]), unless_selector(_check_cooldown)] = (
        Field(
            default=0,
            description="For video: how long to wait before the next image is written. It is counted by each "
            "running workflow for itself, so it does nothing between requests to a server.",
            examples=[0, 5, "$inputs.cooldown_seconds"],
        )
    )

    @classmethod
    def describe_outputs(cls) -> list[OutputDefinition]:
        return [
            OutputDefinition(name="error_status", kind=[BOOLEAN_KIND]),
            OutputDefinition(name="throttling_status", kind=[BOOLEAN_KIND]),
            OutputDefinition(name="message", kind=[STRING_KIND]),
            OutputDefinition(name="image_path", kind=[STRING_KIND]),
        ]

    @classmethod
    def get_execution_engine_compatibility(cls) -> str | None:
        return ">=1.3.0,<2.0.0"

    def discover_work_operations(self) -> list[WorkOperation]:
        return [WorkOperation.STORAGE_WRITE]

    def discover_dependent_resources(self) -> list[DependentResource]:
        return []


class DetectionsDatasetExportBlockV1(WorkflowBlock):
    """Writes an image and its detections to a dataset."""

    def __init__(
        self,
        allow_access_to_file_system: bool,
        allowed_write_directory: str | None,
        background_tasks: Any,
        thread_pool_executor: ThreadPoolExecutor | None,
        disable_sinks: bool = False,
    ) -> None:
        self._allow_access_to_file_system = allow_access_to_file_system
        self._allowed_write_directory = allowed_write_directory
        self._background_tasks = background_tasks
        self._thread_pool_executor = thread_pool_executor
        self._disable_sinks = disable_sinks
        self._last_written = -math.inf

    @classmethod
    def get_init_parameters(cls) -> list[str]:
        return [
            "allow_access_to_file_system",
            "allowed_write_directory",
            "background_tasks",
            "thread_pool_executor",
            "disable_sinks",
        ]

    @classmethod
    def get_manifest(cls) -> type[WorkflowBlockManifest]:
        return BlockManifest

    def run(
        self,
        images: WorkflowImageData,
        predictions: Any,
        target_directory: str,
        format: Literal["coco", "yolo", "pascal_voc"],
        split: str | dict[str, float],
        class_names: list[str] | None,
        image_format: Literal["jpg", "png"],
        jpeg_quality: int,
        include_images_without_detections: bool,
        fire_and_forget: bool,
        disable_sink: bool,
        cooldown_seconds: float,
    ) -> BlockResult:
        if self._disable_sinks or disable_sink:
            return _outputs(disabled_sink_message(disabled_by_execution_policy=self._disable_sinks))
        try:
            _check_target_directory(target_directory)
            _check_split(split)
            _check_class_names(class_names)
            _check_quality(jpeg_quality)
            _check_cooldown(cooldown_seconds)
            self._check_access()
            image_bgr = to_bgr_uint8(images.numpy_image)
        except InvalidInputError as error:
            raise as_client_error(error, self) from error
        if time.monotonic() - self._last_written < cooldown_seconds:
            return _outputs("Sink cooldown applies", throttled=True)
        self._last_written = time.monotonic()
        detections = from_engine(predictions, self.__class__.__name__)
        boxes, names = _visible_boxes(detections, *image_bgr.shape[:2])
        write = partial(
            self._write,
            image_bgr,
            boxes,
            names,
            Path(target_directory),
            format,
            split,
            class_names,
            f".{image_format}",
            jpeg_quality,
            include_images_without_detections,
        )
        if fire_and_forget and self._background_tasks:
            self._background_tasks.add_task(write)
        elif fire_and_forget and self._thread_pool_executor:
            self._thread_pool_executor.submit(write)
        else:
            return write()
        return _outputs("Image written in a background task")

    def _write(
        self,
        image_bgr: np.ndarray[Any, np.dtype[np.uint8]],
        boxes: list[Box],
        names: list[str],
        target_directory: Path,
        format: str,
        split: str | dict[str, float],
        class_names: list[str] | None,
        image_suffix: str,
        jpeg_quality: int,
        include_images_without_detections: bool,
    ) -> BlockResult:
        try:
            folder = self._allowed(target_directory)
            with Dataset(folder, format, class_names) as dataset:
                if not boxes and not include_images_without_detections:
                    dataset.discard(image_bgr)
                    return _outputs("Image without detections left out")
                path = dataset.add(image_bgr, boxes, names, split, image_suffix, jpeg_quality)
        except (DatasetError, OSError, Timeout) as error:
            return _outputs(f"Could not write to the dataset: {error}", failed=True)
        return _outputs("Image written", path)

    def _check_access(self) -> None:
        if not self._allow_access_to_file_system:
            raise InvalidInputError(
                "this server does not let workflows write files; ask who runs it to set "
                "ALLOW_WORKFLOW_BLOCKS_ACCESSING_LOCAL_STORAGE=True"
            )

    def _allowed(self, target_directory: Path) -> Path:
        """The folder with all links followed.

        Raises:
            DatasetError: it lies outside the folder in which blocks may write.
        """
        folder = target_directory.expanduser().resolve()
        if self._allowed_write_directory is not None:
            allowed = Path(self._allowed_write_directory).resolve()
            if not folder.is_relative_to(allowed):
                raise DatasetError(
                    f"{target_directory} lies outside the folder in which this server lets blocks write; "
                    "choose one inside"
                )
        return folder


def _visible_boxes(predictions: sv.Detections, height: int, width: int) -> tuple[list[Box], list[str]]:
    """Boxes clipped to the image, with their class names; those outside it are left out."""
    corners = sv.clip_boxes(predictions.xyxy.astype(np.float64), (width, height))
    has_area = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
    names = predictions.data.get("class_name", np.empty(0, str))
    boxes = [tuple(box) for box in corners[has_area].tolist()]
    return boxes, [str(name) for name in np.asarray(names)[has_area]]


def _outputs(
    message: str, path: Path | None = None, failed: bool = False, throttled: bool = False
) -> dict[str, Any]:
    return {
        "error_status": failed,
        "throttling_status": throttled,
        "message": message,
        "image_path": str(path) if path else "",
    }
