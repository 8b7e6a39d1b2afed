"""The block `workflow_blocks/detections_table@v1`."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, Literal

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
from inference.core.workflows.prototypes.block import BlockResult, WorkflowBlock, WorkflowBlockManifest
from pydantic import ConfigDict, Field

from workflow_blocks.blocks.common.data_representation import from_engine

SHORT_DESCRIPTION = "Turn predictions into CSV or JSON lines, one row per detection."

LONG_DESCRIPTION = """
Write predictions as a table: one row per detection, with the image's name, class name, class id,
confidence and the box in pixels of the original image, also when the predictions were made on crops or
slices of it. CSV text starts with a header line, and has nothing else when nothing was detected; JSON
lines hold one object per detection. Feed `content` to the Local File Sink.

The image's name is `image_name` if given, else the name under which the workflow knows the image.
"""

CLASS_NAME_KEY = "class_name"
_PIXEL_DECIMALS = 2
_CONFIDENCE_DECIMALS = 4

Row = dict[str, str | int | float]

COLUMNS = ("image_name", "class_name", "class_id", "confidence", "x_min", "y_min", "x_max", "y_max")


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
        description="The image that the detections were made on, for its name; without it the name comes "
        "from the predictions.",
        examples=["$inputs.image"],
    )
    image_name: Selector(kind=[STRING_KIND]) | str | None = Field(
        default=None,
        description="What to write as the image's name, such as its file name.",
        examples=["photo.jpg", "$inputs.image_name"],
    )
    format: Literal["csv", "jsonl"] | Selector(kind=[STRING_KIND]) = Field(
        default="csv",
        description="`csv` or `jsonl` (JSON lines).",
        examples=["csv", "jsonl", "$inputs.format"],
    )

    @classmethod
    def describe_outputs(cls) -> list[OutputDefinition]:
        return [OutputDefinition(name="content", kind=[STRING_KIND])]

    @classmethod
    def get_execution_engine_compatibility(cls) -> str | None:
        return ">=1.3.0,<2.0.0"


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
        detections = from_engine(predictions, self.__class__.__name__)
        rows = list(detections_to_rows(detections, image_name or _name_of(image, detections)))
        return {"content": rows_to_csv(rows) if format == "csv" else rows_to_json_lines(rows)}


def detections_to_rows(detections: sv.Detections, image_name: str) -> Iterator[Row]:
    """A row for each detection, its box in pixels of the original image."""
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
    """CSV text, header first, lines ended by a line feed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def rows_to_json_lines(rows: list[Row]) -> str:
    """A JSON object on a line for each row."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def _name_of(image: WorkflowImageData | None, detections: sv.Detections) -> str:
    """The name under which the workflow knows the original image."""
    if image is not None:
        return str(image.workflow_root_ancestor_metadata.parent_id)
    names = detections.data.get(ROOT_PARENT_ID_KEY)
    return str(names[0]) if names is not None and len(names) else ""
