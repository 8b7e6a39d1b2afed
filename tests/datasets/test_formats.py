"""The files of each format: what they hold, and how they are named."""

import random
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from tests.datasets.samples import add, assert_holds, discard, image, load
from workflow_blocks.datasets import coco_file, image_files
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.formats import FORMATS
from workflow_blocks.datasets.pascal_voc_file import pixel_corners
from workflow_blocks.datasets.records import ImageRecord
from workflow_blocks.datasets.yolo_files import label_text

SIZES = [(640, 480), (641, 479), (65_500, 3), (3, 65_500), (1, 1), (7, 1000)]


def edge_boxes(width, height):
    """Boxes that touch edges, of any size from less than a pixel to the image."""
    rng = random.Random(width)
    for _ in range(40):
        x, y = (
            sorted(rng.uniform(0, width) for _ in range(2)),
            sorted(rng.uniform(0, height) for _ in range(2)),
        )
        x_min, x_max = rng.choice([(0, x[1]), (x[0], width), (0, width), (x[0], min(width, x[0] + 1e-3)), x])
        y_min, y_max = rng.choice([(0, y[1]), (y[0], height), (0, height), y])
        yield float(x_min), float(y_min), float(x_max), float(y_max)


def record_of(width, height, boxes):
    return ImageRecord(1, "c", "train", "c.jpg", width, height, tuple(boxes), (0,) * len(boxes))


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_yolo_rows_stay_in_the_image_for_readers_that_compute_corners(width, height, dtype):
    boxes = list(edge_boxes(width, height))

    rows = np.array([line.split()[1:] for line in label_text(record_of(width, height, boxes)).splitlines()])

    center, size = rows[:, :2].astype(dtype), rows[:, 2:].astype(dtype)
    low, high = center - size / 2, center + size / 2
    assert (size > 0).all()
    assert (low >= 0).all()
    assert (high <= 1 + 2 * np.finfo(dtype).eps).all()
    right = np.array(boxes).reshape(-1, 2, 2) / (width, height)
    np.testing.assert_allclose(np.stack([low, high], axis=1), right, atol=3e-7)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pascal_voc_boxes_are_whole_pixels_of_the_image(width, height):
    boxes = list(edge_boxes(width, height))

    for box in boxes:
        x_min, y_min, x_max, y_max = pixel_corners(box, width, height)
        assert 1 <= x_min <= x_max <= width
        assert 1 <= y_min <= y_max <= height
        np.testing.assert_allclose([x_min - 1, y_min - 1, x_max, y_max], box, atol=1)


def test_pascal_voc_counts_pixels_from_1_and_includes_both_ends():
    assert pixel_corners((530.0, 370.0, 640.0, 480.0), 640, 480) == (531, 371, 640, 480)
    assert pixel_corners((0.0, 0.0, 1.0, 1.0), 640, 480) == (1, 1, 1, 1)
    assert pixel_corners((5.2, 5.2, 5.4, 5.4), 640, 480) == (6, 6, 6, 6)


def test_pascal_voc_has_the_elements_that_readers_need(tmp_path):
    with Dataset(tmp_path, "pascal_voc") as dataset:
        path = dataset.add(image(1), [(1, 2, 9, 8)], ["dog"], "valid", source_name="a photo.jpg")

    root = ElementTree.parse(path.with_suffix(".xml")).getroot()
    assert [root.findtext(name) for name in ("folder", "filename", "source/image")] == [
        "valid",
        path.name,
        "a photo.jpg",
    ]
    assert root.findtext("source/database") == "moondream2-workflow-blocks"
    found = {element.tag: element.text for element in root.find("object")}
    assert found.items() >= {"name": "dog", "pose": "Unspecified", "truncated": "0", "difficult": "0"}.items()


@pytest.mark.parametrize(
    "splits", [["train"], ["valid"], ["test"], ["train", "valid"], ["train", "valid", "test"]]
)
def test_data_yaml_names_only_splits_that_exist(tmp_path, splits):
    with Dataset(tmp_path, "yolo") as dataset:
        for number, split in enumerate(splits):
            add(dataset, number + 1, split)

    document = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert {"train", "val"} <= set(document)
    assert ("test" in document) == ("test" in splits)
    for key in {"train", "val", "test"} & set(document):
        assert list((tmp_path / document[key]).glob("*.jpg"))
    for split in splits:
        assert (tmp_path / split / "classes.txt").read_text().splitlines() == document["names"]


def test_data_yaml_forgets_a_split_that_has_no_images_any_more(tmp_path):
    with Dataset(tmp_path, "yolo") as dataset:
        for number, split in ((1, "train"), (2, "test")):
            add(dataset, number, split)
        discard(dataset, 2)

    assert "test" not in yaml.safe_load((tmp_path / "data.yaml").read_text())


@pytest.mark.parametrize("format", FORMATS)
def test_different_images_never_share_a_file_name(tmp_path, format, monkeypatch):
    monkeypatch.setattr(image_files, "_SHORT_HASH", 0)
    with Dataset(tmp_path, format) as dataset:
        paths = [
            dataset.add(image(number), [], [], "train", suffix, source_name="photo.jpg")
            for number, suffix in ((1, ".jpg"), (2, ".jpg"), (3, ".png"), (1, ".jpg"))
        ]

    assert len({path.stem for path in paths}) == 3
    assert paths[0] == paths[3]
    assert len(load(tmp_path, format)) == 3


def test_flushed_files_are_complete_before_the_process_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_file, "MAX_BYTES_AT_ONCE", -1)
    with Dataset(tmp_path, "coco") as dataset:
        for number in range(5):
            add(dataset, number)
        dataset.flush()

        assert_holds(tmp_path, "coco", range(5))
