"""Reads labelled images from a COCO annotations file."""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.labelled_images import (
    Label,
    LabelledImages,
    add_image,
    class_ids_of,
    size_of_image,
)
from workflow_blocks.json_file import read_json

# Roboflow writes a first category for the project, which is `supercategory` of all others and has no boxes.
_NO_PARENT = ("none", None)
_MAX_SHOWN = 60


def read_coco(file: Path, images_folder: Path) -> LabelledImages:
    """Reads a file of COCO's object detection format; segmentations are ignored, their boxes count.

    Entries that cannot be read are noted as problems, with their index.

    Raises:
        DatasetError: the file is not JSON, or has no lists of images, annotations and categories.
    """
    document = _read(file)
    dataset = LabelledImages([])
    used = {_key(entry.get("category_id")) for entry in document["annotations"] if isinstance(entry, dict)}
    classes = _classes(dataset, document["categories"], used, file)
    by_image: dict[object, list[Label]] = defaultdict(list)
    known = {_key(entry.get("id")) for entry in document["images"] if isinstance(entry, dict)}
    for index, entry in enumerate(document["annotations"]):
        place = f"annotations[{index}]"
        try:
            image, label = _label(entry, classes, place)
        except ValueError as error:
            dataset.note(file, place, f"left out: {error}")
            continue
        if image not in known:
            dataset.note(file, place, f"left out: there is no image with the id {image!r}")
            continue
        by_image[image].append(label)
    seen: set[object] = set()
    paths: set[Path] = set()
    for index, entry in enumerate(document["images"]):
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            dataset.note(file, f"images[{index}]", "left out: it has no `file_name`")
            continue
        if _key(entry.get("id")) in seen:
            dataset.note(file, f"images[{index}]", f"left out: another image has its id {entry.get('id')!r}")
            continue
        seen.add(_key(entry.get("id")))
        path = images_folder / name
        try:
            is_inside = path.resolve().is_relative_to(images_folder.resolve())
        except (OSError, ValueError, RuntimeError):
            dataset.note(file, f"images[{index}]", f"left out: {name!r} cannot be the name of a file")
            continue
        if not is_inside:
            dataset.note(file, f"images[{index}]", f"left out: {name!r} is outside of {images_folder}")
            continue
        if path in paths:
            dataset.note(file, f"images[{index}]", f"left out: another image has its file {name!r}")
            continue
        paths.add(path)
        size = size_of_image(dataset, path)
        if size is not None:
            add_image(dataset, path, size, by_image[_key(entry.get("id"))], file)
    return dataset


def has_boxes(file: Path) -> bool:
    """Whether a file has the lists of COCO's object detection format, and a box; captions have none."""
    try:
        annotations = _read(file)["annotations"]
    except DatasetError:
        return False
    return any(isinstance(entry, dict) and "bbox" in entry for entry in annotations)


def _read(file: Path) -> dict[str, list[Any]]:
    document = read_json(file, DatasetError)
    for field in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(field), list):
            raise DatasetError(f"{file} is not a COCO file: it has no list `{field}`")
    fields: dict[str, list[Any]] = document
    return fields


def _classes(
    dataset: LabelledImages, categories: list[Any], used: set[object], file: Path
) -> dict[object, int]:
    """Class ids by the ids of categories. A parent of others is a class if there are annotations of it."""
    entries = [entry if isinstance(entry, dict) else {} for entry in categories]
    names, parents = ([_key(entry.get(field)) for entry in entries] for field in ("name", "supercategory"))
    kept = [
        index
        for index, (name, parent) in enumerate(zip(names, parents, strict=True))
        if _key(entries[index].get("id")) in used
        or not (parent in _NO_PARENT and name in set(parents) - set(_NO_PARENT))
    ]
    places = [f"categories[{index}]" for index in kept]
    ids = class_ids_of(dataset, [entries[index].get("name") for index in kept], places, file)
    found: dict[object, int] = {}
    for index, place, class_id in zip(kept, places, ids, strict=True):
        key = _key(entries[index].get("id"))
        if key in found:
            dataset.note(file, place, f"left out: another category has its id {key!r}")
        elif class_id is not None:
            found[key] = class_id
    return found


def _label(entry: Any, classes: dict[object, int], place: str) -> tuple[object, Label]:
    """The id of an image, and a label in it.

    Raises:
        ValueError: it is no label; the message says why.
    """
    if not isinstance(entry, dict):
        raise ValueError("it is no object with `image_id`, `category_id` and `bbox`")
    for field in ("image_id", "category_id", "bbox"):
        if field not in entry:
            raise ValueError(f"it has no `{field}`")
    x, y, width, height = _numbers(entry["bbox"])
    category = _key(entry["category_id"])
    if category not in classes:
        raise ValueError(f"there is no category with the id {category!r}")
    box = (x, y, x + width, y + height)
    return _key(entry["image_id"]), Label(place, box, classes[category], entry.get("iscrowd") in (1, "1"))


def _numbers(bbox: Any) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(value) for value in (bbox if isinstance(bbox, list) else ()))
    except (TypeError, ValueError, OverflowError):
        width = height = -1.0
    if not (width >= 0 <= height and all(map(math.isfinite, (x, y, width, height)))):
        shown = json.dumps(bbox)
        shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."
        raise ValueError(f"`bbox` is {shown}, not four numbers: x, y, width, height")
    return x, y, width, height


def _key(value: object) -> object:
    """An id as a key; ids are numbers, but some tools write text, and some 1.0 for 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if value is None or isinstance(value, (int, str)) else repr(value)
