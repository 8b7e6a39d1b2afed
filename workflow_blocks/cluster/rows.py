"""The rows of results: their columns, and how a workflow's outputs become one."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

# Fields of a serialized detection that are columns here; the others are its `data`.
_CENTRE_AND_SIZE = ("x", "y", "width", "height")
_WITH_COLUMNS = (*_CENTRE_AND_SIZE, "class", "class_id", "confidence")

DETECTION = pa.struct(
    [
        ("class", pa.string()),
        ("class_id", pa.int64()),
        ("confidence", pa.float64()),
        ("x_min", pa.float64()),
        ("y_min", pa.float64()),
        ("x_max", pa.float64()),
        ("y_max", pa.float64()),
        ("output", pa.string()),  # the workflow's output that holds it
        ("data", pa.string()),  # JSON of what else a block attached
    ]
)
IDENTITY = [("id", pa.string()), ("uri", pa.string())]
RESULTS = [
    ("width", pa.int64()),
    ("height", pa.int64()),
    ("detections", pa.list_(DETECTION)),
    ("outputs", pa.string()),  # JSON of the workflow's other outputs, by name
    ("error", pa.string()),
    ("worker", pa.string()),
    ("seconds", pa.float64()),
]
# Every job writes these columns, whatever the workflow.
SCHEMA = pa.schema(IDENTITY + RESULTS)


@dataclass
class Result:
    """What became of one image; `error` is None if the workflow ran. Sizes are in pixels."""

    id: str
    uri: str
    width: int | None = None
    height: int | None = None
    detections: list[dict[str, Any]] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    worker: str = ""
    seconds: float = 0.0


def table_of(results: Sequence[Result]) -> pa.Table:
    """Results as rows of `SCHEMA`."""
    rows = [
        vars(result) | {"uri": _encodable(result.uri), "outputs": _json(result.outputs)} for result in results
    ]
    for row in rows:
        if row["error"] is not None:
            row.update(detections=None, outputs=None, error=_encodable(row["error"]))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def split_outputs(outputs: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The detections among a workflow's serialized outputs, and the other outputs."""
    detections: list[dict[str, Any]] = []
    others: dict[str, Any] = {}
    for name, value in outputs.items():
        found = list(_detections_in(value))
        if found:
            detections += [_detection(item, name) for group in found for item in group["predictions"]]
        else:
            others[name] = value
    return detections, others


def _detections_in(value: object) -> Iterator[Mapping[str, Any]]:
    """Serialized detections: of the image, or those of each of its crops."""
    if isinstance(value, list):
        groups = [list(_detections_in(item)) for item in value if item is not None]
        if all(groups):
            for group in groups:
                yield from group
    elif isinstance(value, dict) and "image" in value and _are_detections(value.get("predictions")):
        yield value


def _are_detections(items: object) -> bool:
    return isinstance(items, list) and all(
        isinstance(item, dict) and set(_CENTRE_AND_SIZE) <= item.keys() for item in items
    )


def _detection(item: Mapping[str, Any], output: str) -> dict[str, Any]:
    x, y, width, height = (float(item[name]) for name in _CENTRE_AND_SIZE)
    data = {name: value for name, value in item.items() if name not in _WITH_COLUMNS}
    return {
        "class": _encodable(str(item.get("class", ""))),
        "class_id": item.get("class_id"),
        "confidence": item.get("confidence"),
        "x_min": x - width / 2,
        "y_min": y - height / 2,
        "x_max": x + width / 2,
        "y_max": y + height / 2,
        "output": output,
        "data": _json(data),
    }


def _json(value: object) -> str:
    return json.dumps(_plain(value), default=str, allow_nan=False)


def _plain(value: object) -> object:
    """What JSON can hold: numbers that are not finite are null, keys that are no scalars are text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {
            name if isinstance(name, (str, int)) else str(name): _plain(item) for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
