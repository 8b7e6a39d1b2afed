"""The block `workflow_blocks/detections_dataset_export@v1`."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

from inference.core.workflows.execution_engine.entities.base import OutputDefinition, WorkflowImageData
from inference.core.workflows.execution_engine.entities.types import (
    BOOLEAN_KIND,
    DICTIONARY_KIND,
    FLOAT_KIND,
    FLOAT_ZERO_TO_ONE_KIND,
    IMAGE_KIND,
    INTEGER_KIND,
    LANGUAGE_MODEL_OUTPUT_KIND,
    LIST_OF_VALUES_KIND,
    STRING_KIND,
    Selector,
)
from inference.core.workflows.prototypes.block import (
    COOLDOWN_HTTP_SOFT_RESTRICTION,
    BlockResult,
    DependentResource,
    WorkflowBlock,
    WorkflowBlockManifest,
    actual_restrictions_of,
    is_workflow_selector,
)
from pydantic import ConfigDict, Field, field_validator
from roboflow_workflows.core_steps.common.workload_presets import (
    COOLDOWN_ACTUAL_RESTRICTION,
    FIRE_AND_FORGET_RESTRICTION,
    LOCAL_FILE_SINK_RESTRICTIONS,
)
from roboflow_workflows.core_steps.sinks.local_file.v1 import BlockManifest as LocalFileSinkManifest
from roboflow_workflows.core_steps.sinks.noop import disabled_sink_message
from roboflow_workflows.execution_engine.entities.workload import (
    Discovery,
    RuntimeRestriction,
    WorkOperation,
    incomplete_discovery,
    unresolved_selector_problem,
)

from workflow_blocks.blocks.common.client_errors import InvalidInputError, as_client_error
from workflow_blocks.blocks.common.data_representation import from_engine
from workflow_blocks.blocks.common.images import check_image
from workflow_blocks.blocks.common.kinds import KINDS_WITH_BOXES
from workflow_blocks.blocks.common.manifest_fields import Flag, checked, explain_errors
from workflow_blocks.blocks.common.prompts import OTHER_CLASSES, Threshold, ThresholdsByClass
from workflow_blocks.blocks.detections_dataset_export.settings import (
    MAX_CLASS_NAME_LENGTH,
    MAX_JPEG_QUALITY,
    Caption,
    ClassesWithPrompts,
    ClassName,
    ClassNames,
    CooldownSeconds,
    DatasetFormat,
    ExportSettings,
    ImageFormat,
    ImageName,
    JpegQuality,
    Labels,
    SinkSwitches,
    Split,
    TargetDirectory,
)
from workflow_blocks.blocks.detections_dataset_export.writing import (
    DatasetWriter,
    LabelledImage,
    label,
    outputs,
)

SHORT_DESCRIPTION = "Write images and detections to a dataset on disk, as COCO, YOLO or Pascal VOC."

LONG_DESCRIPTION = """
Build a dataset while a workflow runs. Every image is written with its detections, in a layout that Roboflow
and Ultralytics can import.

## How This Block Works

The block:

1. Takes an image and its detections, and clips the boxes to the image
2. Chooses the split: the one that `split` names, or one by the shares in `split`. The image's content
   decides, so an image goes to the same split in every run
3. Writes the image and its labels to `target_directory`. An image that is already in the dataset is
   replaced, so a workflow can run again over the same images
4. Returns `error_status` (whether writing failed), `throttling_status` (whether the cooldown applied),
   `message`, and `image_path` (where the image was written, empty if it was not)

Several servers may write to one dataset at the same time. If one of them is killed, nothing that was written
is lost.

| format | files |
| --- | --- |
| `coco` | `<target>/<split>/_annotations.coco.json` and the images beside it |
| `yolo` | `<target>/<split>/images`, `<target>/<split>/labels`, `<target>/data.yaml` |
| `pascal_voc` | `<target>/<split>/` with the XML file of each image beside it |

COCO also has what the Moondream2 block answered about each detection, in `attributes`. With `caption`,
`metadata.jsonl` beside the images has a line for each: `{"file_name": "photo.jpg", "text": "A red car."}`.

## Example

This step writes a YOLO dataset. Ten percent of the images go to each of the splits `valid` and `test`.

```json
{
  "type": "workflow_blocks/detections_dataset_export@v1",
  "name": "dataset",
  "images": "$inputs.image",
  "predictions": "$steps.detection.predictions",
  "target_directory": "datasets/shapes",
  "format": "yolo",
  "split": {"train": 0.8, "valid": 0.1, "test": 0.1},
  "class_names": ["red circle", "blue star"]
}
```

## Common Use Cases

- **Dataset Labeling**: Label images with prompts or a large model, and train a small model on the dataset
- **Collecting Data**: Store images from a camera with their detections, one every few seconds
- **Hard Examples**: Store only the images that a filter lets through, such as those of low confidence

## Connecting to Other Blocks

- **After blocks that output object detections, segmentations, key points or codes** (e.g., Moondream2 Prompt
  Detection, Segment Anything); their boxes are written, and masks to COCO and YOLO
- **After Detections Filter** to write some of the detections only
- **After Continue If** to write some of the images only
- **Prompts as class names**: give the detection block's prompts as `class_names`, and class ids do not depend
  on the order in which objects appear

## Requirements

The server decides whether and where workflows may write files:
`ALLOW_WORKFLOW_BLOCKS_ACCESSING_LOCAL_STORAGE=True` allows it, and `WORKFLOW_BLOCKS_WRITE_DIRECTORY`
limits it to one folder. The block needs no network.
"""


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
        title="Image", description="The images to write.", examples=["$inputs.image"]
    )
    predictions: Selector(kind=KINDS_WITH_BOXES) = Field(
        description="The detections of each image. Masks of segmentations are written to COCO and YOLO; of "
        "key points and codes, the boxes are written.",
        examples=["$steps.detection.predictions"],
    )
    target_directory: Selector(kind=[STRING_KIND]) | TargetDirectory = Field(
        description="The dataset's folder, created if it does not exist. If the server sets "
        "WORKFLOW_BLOCKS_WRITE_DIRECTORY, it must be in that folder.",
        examples=["datasets/shapes", "$inputs.target_directory"],
    )
    format: DatasetFormat | Selector(kind=[STRING_KIND]) = Field(
        default="coco",
        description="The dataset's format.",
        examples=["coco", "yolo", "pascal_voc", "$inputs.format"],
        json_schema_extra={
            "always_visible": True,
            "values_metadata": {
                "coco": {"name": "COCO", "description": "One JSON file of annotations for each split"},
                "yolo": {"name": "YOLO", "description": "One text file for each image, and data.yaml"},
                "pascal_voc": {"name": "Pascal VOC", "description": "One XML file for each image"},
            },
        },
    )
    split: Split | Selector(kind=[STRING_KIND, DICTIONARY_KIND]) = Field(
        default="train",
        description="Where images go: one split, or the share of each split. With shares, the content of an "
        "image decides, so it goes to the same split in every run.",
        examples=["train", {"train": 0.8, "valid": 0.1, "test": 0.1}, "$inputs.split"],
        json_schema_extra={
            "values_metadata": {
                "train": {"name": "Train", "description": "Images to train on"},
                "valid": {"name": "Valid", "description": "Images to validate on during training"},
                "test": {"name": "Test", "description": "Images to test the trained model on"},
            },
        },
    )
    class_names: (
        Selector(kind=[STRING_KIND, LIST_OF_VALUES_KIND, DICTIONARY_KIND])
        | ClassName
        | ClassNames
        | ClassesWithPrompts
        | None
    ) = Field(
        default=None,
        description="The dataset's classes, in the order of their ids: names of at most "
        f"{MAX_CLASS_NAME_LENGTH} characters. The rules of prompts hold: surrounding whitespace is removed, "
        "repeats count once, a string is one name, and of a dictionary, the keys are the names. A detection "
        "of another class is an error. If empty, classes are added in order of appearance.",
        examples=[["red circle", "blue star"], "$inputs.prompts"],
        json_schema_extra={"always_visible": True},
    )
    image_format: ImageFormat | Selector(kind=[STRING_KIND]) = Field(
        default="jpg",
        description="The format of the image files.",
        examples=["jpg", "png", "$inputs.image_format"],
        json_schema_extra={
            "values_metadata": {
                "jpg": {"name": "JPEG", "description": "Small files, slightly changed pixels"},
                "png": {"name": "PNG", "description": "Larger files, unchanged pixels"},
            },
        },
    )
    jpeg_quality: JpegQuality | Selector(kind=[INTEGER_KIND]) = Field(
        default=95,
        title="JPEG Quality",
        description=f"From 1 (small files) to {MAX_JPEG_QUALITY} (best quality).",
        examples=[95, "$inputs.quality"],
        json_schema_extra={"relevant_for": {"image_format": {"values": ["jpg"], "required": True}}},
    )
    include_images_without_detections: Flag | Selector(kind=[BOOLEAN_KIND]) = Field(
        default=True,
        description="Whether images without detections are written; they teach a detector what not to "
        "detect. If not, an image in the dataset whose detections are gone is removed from it.",
        examples=[True, "$inputs.include_empty"],
    )
    fire_and_forget: Flag | Selector(kind=[BOOLEAN_KIND]) = Field(
        default=False,
        title="Fire and Forget",
        description="Whether the workflow continues without waiting for the files. What can be checked at "
        "once still sets `error_status`; a later failure is in the server's log.",
        examples=[False, "$inputs.fire_and_forget"],
    )
    disable_sink: Flag | Selector(kind=[BOOLEAN_KIND]) = Field(
        default=False,
        description="Whether to write nothing.",
        examples=[False, "$inputs.disable_export"],
    )
    image_name: Selector(kind=[STRING_KIND]) | ImageName | None = Field(
        default=None,
        description="The name under which the image came, such as its file name. The image's file in the "
        "dataset starts with it; COCO and Pascal VOC hold it too. If empty, the name of the file or of the "
        "web address that the image was loaded from.",
        examples=["photo.jpg", "$inputs.image_name"],
    )
    cooldown_seconds: CooldownSeconds | Selector(
        kind=[INTEGER_KIND, FLOAT_KIND, FLOAT_ZERO_TO_ONE_KIND]
    ) = Field(
        default=0,
        description="For video: seconds to wait before the next image is written. Each running workflow "
        "counts for itself, so the cooldown has no effect between requests to a server.",
        examples=[0, 0.5, "$inputs.cooldown_seconds"],
        json_schema_extra={"always_visible": True},
    )

    caption: Selector(kind=[STRING_KIND, LANGUAGE_MODEL_OUTPUT_KIND]) | Caption | None = Field(
        default=None,
        description="A text about the image. It is written to `metadata.jsonl` beside the images, which "
        "Hugging Face's `imagefolder` reads.",
        examples=["$steps.caption.output", "$inputs.caption"],
    )
    labels: Labels | Selector(kind=[STRING_KIND]) = Field(
        default="all",
        description="Which images are written. With two of these steps, images whose boxes are all sure go "
        "to one dataset, and the others to another one that somebody reviews.",
        examples=["all", "sure", "review", "$inputs.labels"],
        json_schema_extra={
            "values_metadata": {
                "all": {"name": "All", "description": "All images"},
                "sure": {"name": "Sure", "description": "Images whose boxes all have sure_confidence"},
                "review": {"name": "Review", "description": "Images with a box below sure_confidence"},
            },
        },
    )
    sure_confidence: (
        Threshold | ThresholdsByClass | Selector(kind=[FLOAT_ZERO_TO_ONE_KIND, DICTIONARY_KIND])
    ) = Field(
        default=0.5,
        title="Sure From",
        description="The lowest confidence of a sure box, 0 to 1: one number, or a dictionary of class names "
        f"with a number each. There, '{OTHER_CLASSES}' stands for all other classes; without it, their "
        "threshold is 0.",
        examples=[0.5, {"red circle": 0.7, OTHER_CLASSES: 0.5}, "$inputs.confidence"],
        json_schema_extra={"relevant_for": {"labels": {"values": ["sure", "review"], "required": False}}},
    )

    _explain_errors = field_validator(
        "images",
        "predictions",
        "target_directory",
        "format",
        "split",
        "class_names",
        "image_format",
        "jpeg_quality",
        "include_images_without_detections",
        "fire_and_forget",
        "disable_sink",
        "cooldown_seconds",
        "image_name",
        "caption",
        "labels",
        "sure_confidence",
        mode="wrap",
    )(explain_errors)

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

    @classmethod
    def get_restrictions(cls) -> list[RuntimeRestriction]:
        return [*LocalFileSinkManifest.get_restrictions(), COOLDOWN_HTTP_SOFT_RESTRICTION]

    def get_actual_restrictions(
        self, *, ignore_environment_restrictions: bool = False
    ) -> Discovery[RuntimeRestriction]:
        return actual_restrictions_of(
            declared=self._restrictions(),
            node_id=f"$steps.{self.name}",
            ignore_environment_restrictions=ignore_environment_restrictions,
        )

    def discover_work_operations(self) -> list[WorkOperation]:
        return [WorkOperation.STORAGE_WRITE]

    def discover_dependent_resources(self) -> list[DependentResource]:
        return []

    def _restrictions(self) -> list[RuntimeRestriction] | Discovery[RuntimeRestriction]:
        always = [*LOCAL_FILE_SINK_RESTRICTIONS, COOLDOWN_ACTUAL_RESTRICTION]
        if is_workflow_selector(self.fire_and_forget):
            unknown = unresolved_selector_problem(
                f"$steps.{self.name}", "restrictions", "fire_and_forget", str(self.fire_and_forget)
            )
            return incomplete_discovery(always, [unknown])
        return [*always, FIRE_AND_FORGET_RESTRICTION] if self.fire_and_forget else always


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
        format: str,
        split: str | dict[str, float],
        class_names: str | list[str] | dict[str, Any] | None,
        image_format: str,
        jpeg_quality: int,
        include_images_without_detections: bool,
        fire_and_forget: bool,
        disable_sink: bool,
        cooldown_seconds: float,
        image_name: str | None = None,
        labels: str = "all",
        sure_confidence: float | dict[str, float] = 0.5,
        caption: str | None = None,
    ) -> BlockResult:
        if self._disable_sinks:
            return outputs(disabled_sink_message(disabled_by_execution_policy=True))
        try:
            switches = checked(SinkSwitches, disable_sink=disable_sink, fire_and_forget=fire_and_forget)
            if switches.disable_sink:
                return outputs(disabled_sink_message(disabled_by_execution_policy=False))
            settings = checked(
                ExportSettings,
                target_directory=target_directory,
                format=format,
                split=split,
                class_names=class_names,
                image_format=image_format,
                jpeg_quality=jpeg_quality,
                include_images_without_detections=include_images_without_detections,
                cooldown_seconds=cooldown_seconds,
                image_name=image_name,
                labels=labels,
                sure_confidence=sure_confidence,
                caption=caption,
            )
            self._check_access()
            detections = from_engine(predictions, self.__class__.__name__)
            labelled = label(check_image(images), detections, settings.image_name)
        except InvalidInputError as error:
            raise as_client_error(error, self) from error
        if time.monotonic() - self._last_written < settings.cooldown_seconds:
            return outputs("Sink cooldown applies", throttled=True)
        writer = DatasetWriter(settings, self._allowed_write_directory)
        started = time.monotonic()
        is_later = switches.fire_and_forget and (self._background_tasks or self._thread_pool_executor)
        result = self._write_later(writer, labelled) if is_later else writer.write(labelled)
        if writer.is_wanted(labelled) and not result["error_status"]:
            self._last_written = started
        return result

    def _write_later(self, writer: DatasetWriter, labelled: LabelledImage) -> dict[str, Any]:
        problem = writer.problem_with(labelled)
        if problem is not None:
            return problem
        write = partial(writer.write_and_log, labelled)
        if self._background_tasks:
            self._background_tasks.add_task(write)
        elif self._thread_pool_executor:
            self._thread_pool_executor.submit(write)
        return outputs("Image is being written in a background task")

    def _check_access(self) -> None:
        if not self._allow_access_to_file_system:
            raise InvalidInputError(
                "this server does not let workflows write files; its administrator can allow it with "
                "ALLOW_WORKFLOW_BLOCKS_ACCESSING_LOCAL_STORAGE=True"
            )
