"""The rows of a table, and the rows as text."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import supervision as sv
from inference.core.workflows.execution_engine.constants import (
    PARENT_ID_KEY,
    ROOT_PARENT_COORDINATES_KEY,
    ROOT_PARENT_ID_KEY,
)
from inference.core.workflows.execution_engine.entities.base import WorkflowImageData

from workflow_blocks.blocks.common.attributes import attribute, attribute_names
from workflow_blocks.blocks.common.class_names import class_names_of
from workflow_blocks.blocks.common.csv_text import with_line_feeds

_PIXEL_DECIMALS = 2
_CONFIDENCE_DECIMALS = 4
_SECOND_DECIMALS = 3

Row = dict[str, Any]

COLUMNS = ("image_name", "class_name", "class_id", "confidence", "x_min", "y_min", "x_max", "y_max")
FRAME_COLUMNS = ("frame_number", "frame_time")
PIXELS_COLUMN = "pixels_of"


def detections_to_rows(
    detections: sv.Detections, image_name: str, image: WorkflowImageData | None = None
) -> Iterator[Row]:
    """A row for each detection, with its box in pixels of the original image.

    What is not known is None. Detections with answers have a column for each. Rows of a video's frames have
    `FRAME_COLUMNS` too. If neither the detections nor the image know the original image, the row has the
    column `PIXELS_COLUMN`.

    Raises:
        InvalidInputError: the detections have no class names.
    """
    names = class_names_of(detections)
    offsets = _offsets(detections, image)
    extra = _frame(image)
    attributes = attribute_names(detections)
    for index, name in enumerate(names):
        left, top = (0, 0) if offsets is None else offsets[index]
        x_min, y_min, x_max, y_max = detections.xyxy[index].tolist()
        row: Row = {
            "image_name": _text(image_name),
            "class_name": _text(name),
            "class_id": _whole(_at(detections.class_id, index)),
            "confidence": _number(_at(detections.confidence, index), _CONFIDENCE_DECIMALS),
            "x_min": _number(x_min + float(left), _PIXEL_DECIMALS),
            "y_min": _number(y_min + float(top), _PIXEL_DECIMALS),
            "x_max": _number(x_max + float(left), _PIXEL_DECIMALS),
            "y_max": _number(y_max + float(top), _PIXEL_DECIMALS),
        }
        if offsets is None:
            row[PIXELS_COLUMN] = _parent(detections, index)
        answers = {_text(own): _value(own, attribute(detections, own, index)) for own in attributes}
        yield row | answers | extra


def columns_of(
    detections: sv.Detections, image: WorkflowImageData | None, rows: Sequence[Row]
) -> tuple[str, ...]:
    if rows:
        return tuple(rows[0])
    return (*COLUMNS, *map(_text, attribute_names(detections)), *_frame(image))


def is_place_known(detections: sv.Detections, image: WorkflowImageData | None) -> bool:
    """Whether rows have no `PIXELS_COLUMN`: it is known where in the original image the detections are."""
    return image is not None or any(
        ROOT_PARENT_COORDINATES_KEY in known for known in (detections.data, detections.metadata)
    )


def rows_to_csv(rows: Sequence[Row], columns: Sequence[str] = COLUMNS) -> str:
    """CSV text: a header line and one line for each row, each ending in a line feed.

    None is empty. Lists and booleans are written as in JSON.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _as_csv(value) for column, value in row.items()} for row in rows)
    return text.getvalue()


def rows_to_json_lines(rows: Sequence[Row]) -> str:
    """JSON Lines text: a JSON object on its own line for each row; None is null."""
    return "".join(f"{json.dumps(row, ensure_ascii=False, allow_nan=False)}\n" for row in rows)


def name_of(image: WorkflowImageData | None, detections: sv.Detections) -> str:
    """The name under which the workflow knows the original image."""
    if image is not None:
        return str(image.workflow_root_ancestor_metadata.parent_id)
    names = detections.data.get(ROOT_PARENT_ID_KEY)
    return str(names[0]) if names is not None and len(names) else ""


def _offsets(detections: sv.Detections, image: WorkflowImageData | None) -> npt.NDArray[Any] | None:
    """Where the detections' image lies in the original image, (N, 2): x and y; None if nothing knows."""
    offsets = detections.data.get(ROOT_PARENT_COORDINATES_KEY)
    if offsets is not None:
        return np.asarray(offsets)
    if image is None:
        return None
    origin = image.workflow_root_ancestor_metadata.origin_coordinates
    return np.tile([origin.left_top_x, origin.left_top_y], (len(detections), 1))


def _parent(detections: sv.Detections, index: int) -> str:
    parents = detections.data.get(PARENT_ID_KEY)
    return "unknown" if parents is None else _text(str(parents[index]))


def _frame(image: WorkflowImageData | None) -> Row:
    """The columns of a video's frame; none for an image.

    `frame_time` is in seconds from the start of a video file, and for streams the time of day.
    """
    if image is None:
        return {}
    video = image.video_metadata
    if not video.frame_number and video.comes_from_video_file is None:  # what the engine gives an image
        return {}
    time: str | float | None = video.frame_timestamp.isoformat()
    if video.comes_from_video_file and video.fps:
        time = _number((video.frame_number - 1) / video.fps, _SECOND_DECIMALS)
    return {"frame_number": video.frame_number, "frame_time": time}


def _at(values: npt.NDArray[Any] | None, index: int) -> float | None:
    value = None if values is None else values[index]
    return None if value is None else float(value)


def _number(value: float | None, decimals: int) -> float | None:
    """None for what is not a number of JSON."""
    return None if value is None or not math.isfinite(value) else round(value, decimals)


def _value(name: str, value: Any) -> Any:
    """An attribute: probabilities have as many decimals as confidences, and answers all of theirs."""
    is_probability = name.endswith("_probability") and isinstance(value, float)
    return _number(value, _CONFIDENCE_DECIMALS) if is_probability else _answer(value)


def _answer(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_answer(item) for item in value]
    return _text(value) if isinstance(value, str) else value


def _as_csv(value: Any) -> Any:
    is_json = isinstance(value, (bool, list))
    return json.dumps(value, ensure_ascii=False) if is_json else with_line_feeds(value)


def _whole(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(value) else int(value)


def _text(value: str) -> str:
    """Without lone surrogates, which come from file names that are not UTF-8, and NUL: CSV holds neither."""
    return value.encode(errors="replace").decode().replace("\0", "?")
