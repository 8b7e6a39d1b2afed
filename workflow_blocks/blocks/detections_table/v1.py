"""The block `workflow_blocks/detections_table@v1`."""

from typing import Annotated, Any, Literal

import supervision as sv
from inference.core.workflows.execution_engine.entities.base import OutputDefinition, WorkflowImageData
from inference.core.workflows.execution_engine.entities.types import (
    IMAGE_KIND,
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
from workflow_blocks.blocks.common.images import check_image
from workflow_blocks.blocks.common.kinds import KINDS_WITH_BOXES
from workflow_blocks.blocks.common.manifest_fields import Fix, checked, explain_errors
from workflow_blocks.blocks.detections_table.rows import (
    columns_of,
    detections_to_rows,
    is_place_known,
    name_of,
    rows_to_csv,
    rows_to_json_lines,
)

SHORT_DESCRIPTION = "Turn predictions into CSV or JSON Lines, one row per detection."

LONG_DESCRIPTION = """
Write predictions as a table with one row per detection, as CSV or JSON Lines text.

## How This Block Works

The block:

1. Takes the predictions of one image: boxes, masks, key points, barcodes or QR codes
2. Makes a row for each detection: the image's name, class name, class id, confidence, and the box in pixels
   of the original image, also for predictions made on crops or slices of it. A value that is not known is
   empty in CSV and null in JSON Lines
3. Adds a column for each answer that the Moondream2 block gave about the detections, such as `answer` and
   `answer_probability`. CSV has lists and booleans as in JSON
4. Names the image by `image_name`, or else by the name under which the workflow knows the image
5. Adds `frame_number` and `frame_time` to the rows of a video if `image` is set: the time in seconds from the
   start of a file, or the time of day of a stream
6. Returns `content`, the text of the table, and `log_entry`, the same text, or nothing if nothing was
   detected. The first `log_entry` of a workflow has the CSV header in any case, if the columns are known: not
   in Inference's tensor-native mode, and not if the table may need the column `pixels_of` (see below)

CSV text starts with a header line. If nothing was detected, `content` has only the header line; JSON Lines
text is then empty.

Some blocks (e.g., Detections Merge) drop the place of a crop from its predictions. With `image` set to the
crop, boxes are still in pixels of the original image. Without it, the column `pixels_of` names the image that
the pixels belong to, or says `unknown`. If an image was resized or rotated before the detection, its pixels
are those of the changed image.

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

- **After blocks that output object detections, segmentations, key points or codes**, also after filters,
  trackers and Detections Stitch
- **Before Local File Sink** to save `log_entry`. With `output_mode` `append_log`: `csv` text with `file_type`
  `csv`, or `jsonl` text with `file_type` `txt` (`json` refuses several lines). The sink does not run for
  images without a `log_entry`
- **Before notification blocks** (e.g., Email Notification) to send `content`

The block needs no network.
"""

TableFormat = Annotated[Literal["csv", "jsonl"], Fix("give 'csv' or 'jsonl'")]
ImageName = Annotated[str, Field(strict=True), Fix("give a name such as 'photo.jpg'")]


class _Fields(BaseModel):
    format: TableFormat
    image_name: ImageName | None


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
    predictions: Selector(kind=KINDS_WITH_BOXES) = Field(
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
    image_name: Selector(kind=[STRING_KIND]) | ImageName | None = Field(
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
        return [
            OutputDefinition(name="content", kind=[STRING_KIND]),
            OutputDefinition(name="log_entry", kind=[STRING_KIND]),
        ]

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

    def __init__(self) -> None:
        self._is_log_begun = False

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
            table_format = checked(_Fields, format=format, image_name=image_name).format
            if image is not None:
                check_image(image, "image")
            detections = from_engine(predictions, self.__class__.__name__)
            name = image_name or name_of(image, detections)
            rows = list(detections_to_rows(detections, name, image))
        except InvalidInputError as error:
            raise as_client_error(error, self) from error
        if table_format == "csv":
            content = rows_to_csv(rows, columns_of(detections, image, rows))
        else:
            content = rows_to_json_lines(rows)
        # In tensor-native mode, empty predictions do not tell which answers later ones will have.
        are_columns_known = is_place_known(detections, image) and isinstance(predictions, sv.Detections)
        has_header = table_format == "csv" and are_columns_known
        is_entry = bool(rows) or (has_header and not self._is_log_begun)
        self._is_log_begun |= is_entry
        return {"content": content, "log_entry": content if is_entry else None}
