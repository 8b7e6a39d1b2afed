"""The text files of a YOLO dataset."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from workflow_blocks.datasets.details import joined_outline
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.records import ImageRecord

# Corners are whole multiples of 1 / _STEPS of the image's side. Readers that compute corners from the centre
# and the size, in 32-bit floats, are off by less than one step.
_STEPS = 10**7
_KEYS = {"train": "train", "valid": "val", "test": "test"}
_PLACES = tuple(f"{split}/images" for split in _KEYS)


def label_text(record: ImageRecord) -> str:
    """A row for each box: class id, and centre and size as shares of the image's sides, all within 0 to 1.

    If the image has masks, a row is the outline of a box's mask, or the box's own four corners: readers take
    an image's rows for boxes or for outlines, not for both.
    """
    if any(detail.polygons for detail in record.details):
        return _outline_rows(record)
    rows = []
    for (x_min, y_min, x_max, y_max), class_id in zip(record.boxes, record.class_ids, strict=True):
        x_center, width = _center_and_size(x_min / record.width, x_max / record.width)
        y_center, height = _center_and_size(y_min / record.height, y_max / record.height)
        rows.append(f"{class_id} {x_center:.8f} {y_center:.8f} {width:.8f} {height:.8f}\n")
    return "".join(rows)


def _outline_rows(record: ImageRecord) -> str:
    rows = []
    for (x_min, y_min, x_max, y_max), class_id, detail in zip(
        record.boxes, record.class_ids, record.details, strict=True
    ):
        corners = (x_min, y_min, x_max, y_min, x_max, y_max, x_min, y_max)
        outline = list(joined_outline(detail.polygons or (corners,)))
        sides = (record.width, record.height) * (len(outline) // 2)
        shares = (min(max(value / side, 0.0), 1.0) for value, side in zip(outline, sides, strict=True))
        rows.append(f"{class_id} {' '.join(f'{share:.8f}' for share in shares)}\n")
    return "".join(rows)


def _center_and_size(start: float, end: float) -> tuple[float, float]:
    """Of the interval from `start` to `end`, rounded inwards, but at least one step long."""
    first = min(max(math.ceil(start * _STEPS), 0), _STEPS - 1)
    last = max(min(math.floor(end * _STEPS), _STEPS), first + 1)
    return (first + last) / 2 / _STEPS, (last - first) / _STEPS


def data_yaml(
    path: Path, found: bytes | None, class_names: Sequence[str], used_splits: Sequence[str]
) -> bytes:
    """The content of `data.yaml`; keys that others added to the found content are kept.

    Ultralytics needs images for training and for validation. If one of these splits has none, another split
    is named in its place.

    Raises:
        DatasetError: the classes of the found content are not the first classes of the dataset.
    """
    own: dict[str, Any] = {_KEYS[split]: f"{split}/images" for split in used_splits}
    for key in ("train", "val"):
        if used_splits:
            own.setdefault(key, f"{used_splits[0]}/images")
    own = {key: own[key] for key in _KEYS.values() if key in own}
    own |= {"nc": len(class_names), "names": list(class_names)}
    content = yaml.safe_dump(own, sort_keys=False).encode()
    if found is None or found == content:
        return content
    document = _read_yaml(path, found)
    if isinstance(document.get("names"), dict):
        document["names"] = list(document["names"].values())
    _check_classes(path, document.get("names", []), class_names)
    others = {
        key: value for key, value in document.items() if key not in ("nc", "names") and value not in _PLACES
    }
    wanted = own | others
    if document == wanted:
        return found  # perhaps with comments, or in another style
    return yaml.safe_dump(wanted, sort_keys=False).encode()


def checked_class_list(path: Path, found: bytes | None, class_names: Sequence[str]) -> bytes:
    """The content of `classes.txt`: a class name on each line.

    Raises:
        DatasetError: the found lines are not the first classes of the dataset.
    """
    try:
        lines = (found or b"").decode().splitlines()
    except UnicodeDecodeError as error:
        raise _edited(path) from error
    _check_classes(path, [line for line in lines if line], class_names)
    return "".join(f"{name}\n" for name in class_names).encode()


def _read_yaml(path: Path, content: bytes | None) -> dict[str, Any]:
    try:
        document = yaml.safe_load(content or b"") or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _edited(path) from error
    if not isinstance(document, dict):
        raise _edited(path)
    return document


def _check_classes(path: Path, found: object, class_names: Sequence[str]) -> None:
    if not isinstance(found, list) or found != list(class_names[: len(found)]):
        raise _edited(path)


def _edited(path: Path) -> DatasetError:
    return DatasetError(
        f"{path} does not list the classes that the dataset's records have; move it away and it is written "
        "again, or choose another target directory"
    )
