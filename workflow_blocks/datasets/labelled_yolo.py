"""Reads labelled images from YOLO's text files."""

import math
from pathlib import Path
from typing import Any

import yaml

from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.labelled_images import (
    Label,
    LabelledImages,
    add_image,
    class_ids_of,
    size_of_image,
)

_MAX_CLASSES = 100_000


def read_data_yaml(file: Path) -> dict[str, Any]:
    """The document of a `data.yaml`; `names` becomes a list of texts; of None where a class has no name.

    Raises:
        DatasetError: it is not YAML, or has no class names.
    """
    try:
        document = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is not YAML: {error}") from error
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, dict) and names:
        names = _listed({_class_number(key): name for key, name in names.items()})
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{file} has no list `names` of classes")
    return {
        **document,
        "names": [None if isinstance(name, (list, dict, type(None))) else str(name) for name in names],
    }


def _class_number(key: object) -> int | None:
    """The number of a class, which YAML may give as 1, 1.0 or "1"."""
    if isinstance(key, str) and key.strip().isdecimal():
        key = float(key)
    if isinstance(key, (int, float)) and not isinstance(key, bool) and key in range(_MAX_CLASSES):
        return int(key)
    return None


def _listed(names: dict[int | None, Any]) -> list[Any] | None:
    """The names by their numbers; None if one has no number."""
    numbers = [number for number in names if number is not None]
    if len(numbers) < len(names):
        return None
    return [names.get(number, f"class {number}") for number in range(max(numbers) + 1)]


def read_yolo(
    file: Path, names: list[str | None], images: list[Path], has_key_points: bool = False
) -> LabelledImages:
    """Reads the label file of each image: `labels` in place of the last `images` in its path, or beside it.

    Rows of segmentations are read as their boxes. Rows that cannot be read are noted as problems. An image
    without a label file has no objects; one whose label file cannot be read is left out.

    Args:
        file: `data.yaml`, for notes about classes.
        names: the classes, in the order of their ids.
        images: the files of the images.
        has_key_points: whether rows are a box and key points; otherwise more numbers are those of a polygon.
    """
    dataset = LabelledImages([])
    ids = class_ids_of(dataset, names, [f"class {index}" for index in range(len(names))], file)
    for path in images:
        size = size_of_image(dataset, path)
        if size is not None:
            labels_file = _labels_of(path)
            labels = _labels(dataset, labels_file, ids, size, has_key_points)
            if labels is not None:
                add_image(dataset, path, size, labels, labels_file)
    with_image = {_labels_of(path) for path in images}
    for folder in sorted({labels_file.parent for labels_file in with_image}):
        for labels_file in sorted(folder.glob("*.txt")):
            if labels_file not in with_image and labels_file.name != "classes.txt":
                dataset.note(labels_file, "", "there is no image of this name")
    return dataset


def has_labels(path: Path) -> bool:
    """Whether an image has a label file."""
    return _labels_of(path).is_file()


def _labels_of(path: Path) -> Path:
    parts = list(path.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[:-1][::-1].index("images")] = "labels"
    return Path(*parts).parent / f"{path.stem}.txt"


def read_lines(file: Path) -> list[str]:
    """The lines of a text file, which may start with a byte order mark.

    Raises:
        DatasetError: it cannot be read, or is not UTF-8.
    """
    try:
        if file.exists() and not file.is_file():  # a pipe would wait for ever
            raise DatasetError(f"{file} cannot be read: it is no regular file")
        return file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} cannot be read: it is not text in UTF-8") from error


def _labels(
    dataset: LabelledImages, file: Path, ids: list[int | None], size: tuple[int, int], has_key_points: bool
) -> list[Label] | None:
    if not file.exists():
        return []
    try:
        lines = read_lines(file)
    except DatasetError as error:
        dataset.note(file, "", f"its image is left out: {error}")
        return None
    labels = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                labels.append(_label(line, f"line {number}", ids, size, has_key_points))
            except ValueError as error:
                dataset.note(file, f"line {number}", f"left out: {error}")
    return labels


def _label(
    line: str, place: str, ids: list[int | None], size: tuple[int, int], has_key_points: bool
) -> Label:
    words = line.split()
    try:
        number, *values = (float(word) for word in words)
    except ValueError as error:
        raise ValueError(f"{line[:60]!r} is not a row of numbers") from error
    if not number.is_integer() or not 0 <= number < len(ids):
        raise ValueError(f"there is no class {words[0]}; data.yaml names {len(ids)}")
    class_id = ids[int(number)]
    if class_id is None:
        raise ValueError(f"the class {words[0]} is left out")
    if len(values) < 4 or not all(map(math.isfinite, values)):
        raise ValueError(f"{line[:60]!r} has no box; a row is class, x, y, width, height")
    if has_key_points or len(values) in (4, 5):  # a fifth number is a confidence
        x, y, width, height = values[:4]
        if width < 0 or height < 0:
            raise ValueError(f"{line[:60]!r} has a negative size")
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        points = values[: len(values) // 2 * 2]
        corners = (min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2]))
    box = (corners[0] * size[0], corners[1] * size[1], corners[2] * size[0], corners[3] * size[1])
    return Label(place, box, class_id)
