"""The block `workflow_blocks/detections_table@v1`."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import supervision as sv
from inference.core.workflows.execution_engine.constants import (
    ROOT_PARENT_COORDINATES_KEY,
    ROOT_PARENT_ID_KEY,
)
from inference.core.workflows.execution_engine.entities.base import OutputDefinition, WorkflowImageData
from inference.core.workflows.execution_engine.entities.types import (
    IMAGE_KIND,
    INSTANCE_SEGMENTATION_PREDICTION_KIND,
    KEYPOINT_DETECTION_PREDICTION_KIND,
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
from pydantic import BaseModel, ConfigDict, Field, field_validator
from roboflow_workflows.execution_engine.entities.workload import (
    Discovery,
    RuntimeRestriction,
    WorkOperation,
)

from workflow_blocks.blocks.common.client_errors import InvalidInputError, as_client_error
from workflow_blocks.blocks.common.data_representation import from_engine
from workflow_blocks.blocks.common.manifest_fields import Fix, checked, explain_errors

SHORT_DESCRIPTION = "Turn predictions into CSV or JSON Lines, one row per detection."

LONG_DESCRIPTION = """
Write predictions as a table with one row per detection, as CSV or JSON Lines text.

## How This Block Works

The block:

1. Takes the predictions of one image: boxes, masks or keypoints
2. Makes a row for each detection: the image's name, class name, class id, confidence, and the box in pixels
   of the original image, also for predictions made on crops or slices of it
3. Names the image by `image_name`, or else by the name under which the workflow knows the image
4. Returns `content`, the text of the table

CSV text starts with a header line. If nothing was detected, it has only the header line; JSON Lines text is
then empty.

## Example

This step writes a table for each image.

```json
{
  "type": "workflow_blocks/detections_table@v1",
  "name": "table",
  "predictions": "$steps.detection.predictions",
  "image": "$inputs.image",
  "image_name": "photo.jpg"
}
```

`$steps.table.content` is then, for example:

```
image_name,class_name,class_id,confidence,x_min,y_min,x_max,y_max
photo.jpg,red circle,0,0.9731,12.0,30.5,80.25,99.0
```

## Common Use Cases

- **Spreadsheets and Data Frames**: Analyze detections outside of the workflow
- **Logging**: Append the detections of each image to a log file
- **Comparing Models**: Write what two models detect in the same images

## Connecting to Other Blocks

- **After blocks that output object detections, instance segmentations or keypoints**, also after filters,
  trackers and Detections Stitch
- **Before Local File Sink** to save `content`, with `file_type` `csv`
- **Before notification blocks** (e.g., Email Notification) to send `content`

The block needs no network.
"""

CLASS_NAME_KEY = "class_name"
_PIXEL_DECIMALS = 2
_CONFIDENCE_DECIMALS = 4

Row = dict[str, str | int | float]

TableFormat = Annotated[Literal["csv", "jsonl"], Fix("give 'csv' or 'jsonl'")]

COLUMNS = ("image_name", "class_name", "class_id", "confidence", "x_min", "y_min", "x_max", "y_max")


class _Fields(BaseModel):
    format: TableFormat


class BlockManifest(WorkflowBlockManifest):
    model_config = ConfigDict(
        json_schema_extra={
            "name": "Detections Table",
            "version": "v1",
            "short_description": SHORT_DESCRIPTION,
            "long_description": LONG_DESCRIPTION,
            "license": "Apache-2.0",
            "block_type": "formatter",
            "search_keywords": ["csv", "jsonl", "json lines", "table", "export", "rows"],
            "ui_manifest": {"section": "data_storage", "icon": "fal fa-table", "blockPriority": 3},
        }
    )
    type: Literal["workflow_blocks/detections_table@v1"]
    predictions: Selector(
        kind=[
            OBJECT_DETECTION_PREDICTION_KIND,
            INSTANCE_SEGMENTATION_PREDICTION_KIND,
            KEYPOINT_DETECTION_PREDICTION_KIND,
        ]
    ) = Field(
        description="The detections to write.",
        examples=["$steps.detection.predictions"],
    )
    image: Selector(kind=[IMAGE_KIND]) | None = Field(
        default=None,
        description="The image that the detections belong to. Its name is written if `image_name` is empty; "
        "without it, the predictions' own name of their image.",
        examples=["$inputs.image"],
        json_schema_extra={"always_visible": True},
    )
    image_name: Selector(kind=[STRING_KIND]) | str | None = Field(
        default=None,
        description="The image's name in the table, such as its file name.",
        examples=["photo.jpg", "$inputs.image_name"],
        json_schema_extra={"always_visible": True},
    )
    format: TableFormat | Selector(kind=[STRING_KIND]) = Field(
        default="csv",
        description="The format of the text: `csv` or `jsonl` (JSON Lines).",
        examples=["csv", "jsonl", "$inputs.format"],
        json_schema_extra={
            "always_visible": True,
            "values_metadata": {
                "csv": {"name": "CSV", "description": "A header line, and one line for each detection"},
                "jsonl": {
                    "name": "JSON Lines",
                    "description": "One line with a JSON object for each detection",
                },
            },
        },
    )

    _explain_errors = field_validator("predictions", "image", "image_name", "format", mode="wrap")(
        explain_errors
    )

    @classmethod
    def describe_outputs(cls) -> list[OutputDefinition]:
        return [OutputDefinition(name="content", kind=[STRING_KIND])]

    @classmethod
    def get_execution_engine_compatibility(cls) -> str | None:
        return ">=1.3.0,<2.0.0"

    def discover_work_operations(self) -> list[WorkOperation]:
        return [WorkOperation.DATA_TRANSFORMATION]

    def get_actual_restrictions(
        self, *, ignore_environment_restrictions: bool = False
    ) -> Discovery[RuntimeRestriction]:
        return Discovery[RuntimeRestriction](items=[], complete=True, unknown_reasons=[])

    def discover_dependent_resources(self) -> list[DependentResource]:
        return []


class DetectionsTableBlockV1(WorkflowBlock):
    """Writes one image's detections as text."""

    @classmethod
    def get_manifest(cls) -> type[WorkflowBlockManifest]:
        return BlockManifest

    def run(
        self,
        predictions: Any,
        image: WorkflowImageData | None,
        image_name: str | None,
        format: str,
    ) -> BlockResult:
        try:
            table_format = checked(_Fields, format=format).format
        except InvalidInputError as error:
            raise as_client_error(error, self) from error
        detections = from_engine(predictions, self.__class__.__name__)
        rows = list(detections_to_rows(detections, image_name or _name_of(image, detections)))
        return {"content": rows_to_csv(rows) if table_format == "csv" else rows_to_json_lines(rows)}


def detections_to_rows(detections: sv.Detections, image_name: str) -> Iterator[Row]:
    """A row for each detection, with its box in pixels of the original image."""
    offsets = detections.data.get(ROOT_PARENT_COORDINATES_KEY)
    for index in range(len(detections)):
        left, top = offsets[index] if offsets is not None else (0, 0)
        x_min, y_min, x_max, y_max = detections.xyxy[index].tolist()
        confidence = detections.confidence[index] if detections.confidence is not None else 1.0
        yield {
            "image_name": image_name,
            "class_name": str(detections.data[CLASS_NAME_KEY][index]),
            "class_id": int(detections.class_id[index]) if detections.class_id is not None else 0,
            "confidence": round(float(confidence), _CONFIDENCE_DECIMALS),
            "x_min": round(x_min + float(left), _PIXEL_DECIMALS),
            "y_min": round(y_min + float(top), _PIXEL_DECIMALS),
            "x_max": round(x_max + float(left), _PIXEL_DECIMALS),
            "y_max": round(y_max + float(top), _PIXEL_DECIMALS),
        }


def rows_to_csv(rows: list[Row]) -> str:
    """CSV text: a header line and one line for each row, each ending in a line feed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def rows_to_json_lines(rows: list[Row]) -> str:
    """JSON Lines text: a JSON object on its own line for each row."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def _name_of(image: WorkflowImageData | None, detections: sv.Detections) -> str:
    """The name under which the workflow knows the original image."""
    if image is not None:
        return str(image.workflow_root_ancestor_metadata.parent_id)
    names = detections.data.get(ROOT_PARENT_ID_KEY)
    return str(names[0]) if names is not None and len(names) else ""
