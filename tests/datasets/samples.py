"""Small images with boxes, each known by a number, and what a dataset on disk holds of them."""

import json
import random
from pathlib import Path

import numpy as np
import supervision as sv

from workflow_blocks.datasets.formats import SPLITS
from workflow_blocks.datasets.splits import content_of

TOLERANCES = {"coco": 0.01, "yolo": 0.01, "pascal_voc": 1.0}


def image(number, height=24, width=32):
    """An image that differs from those of other numbers."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def boxes_of(number):
    """Up to four boxes that belong to an image of `image`."""
    rng = random.Random(number)
    return [
        (x, y, x + rng.uniform(1, 12), y + rng.uniform(1, 10))
        for x, y in ((rng.uniform(0, 18), rng.uniform(0, 12)) for _ in range(number % 5))
    ]


def names_of(number):
    return [("red circle", "star", "dog")[(number + i) % 3] for i in range(number % 5)]


def add(dataset, number, split="train"):
    return dataset.add(image(number), boxes_of(number), names_of(number), split)


def discard(dataset, number):
    dataset.discard(image(number))


def file_name(number):
    return content_of(image(number)) + ".jpg"


def load(folder, format, split="train"):
    """Boxes and class names by image file name, as supervision reads them."""
    images = folder / split
    if format == "coco":
        path = images / "_annotations.coco.json"
        if not path.exists():
            return {}
        dataset = sv.DetectionDataset.from_coco(str(images), str(path))
    elif format == "yolo":
        dataset = sv.DetectionDataset.from_yolo(
            str(images / "images"), str(images / "labels"), str(folder / "data.yaml")
        )
    else:
        dataset = sv.DetectionDataset.from_pascal_voc(str(images), str(images))
    return {
        Path(path).name: (found.xyxy, [dataset.classes[i] for i in found.class_id])
        for path, _, found in dataset
    }


def load_all(folder, format):
    """What `load` finds in each split that has images."""
    splits = [split for split in SPLITS if any((folder / split).rglob("*.jpg"))]
    return {split: load(folder, format, split) for split in splits}


def state(folder, format):
    """What readers find in a dataset, as text."""
    found = load_all(folder, format)
    assert_nothing_left_over(folder, format, found)
    images = {
        split: {name: (boxes.tolist(), names) for name, (boxes, names) in split_images.items()}
        for split, split_images in found.items()
    }
    return json.dumps(images, sort_keys=True)


def assert_nothing_left_over(folder, format, found):
    images = {path.name for path in folder.rglob("*.jpg")}
    assert images == {name for names in found.values() for name in names}
    if format != "coco":
        suffix = ".txt" if format == "yolo" else ".xml"
        labels = {path.stem for path in folder.rglob(f"*{suffix}") if path.name != "classes.txt"}
        assert labels == {Path(name).stem for name in images}
    assert not list(folder.rglob("*.part"))


def assert_labelled(found, format, number, boxes=None, names=None):
    """What was loaded of an image are its own boxes and names, or the given ones."""
    own = boxes_of(number) if boxes is None else boxes
    found_boxes, found_names = found[file_name(number)]
    np.testing.assert_allclose(found_boxes, np.reshape(own, (-1, 4)), atol=TOLERANCES[format])
    assert found_names == (names_of(number) if names is None else names)


def assert_holds(folder, format, numbers, split="train"):
    """A split holds the images of these numbers, with their boxes, and no others."""
    found = load(folder, format, split)
    assert set(found) == {file_name(number) for number in numbers}
    for number in numbers:
        assert_labelled(found, format, number)
