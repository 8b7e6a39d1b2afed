"""Masks, scores and prompts in datasets, read back by the tools that people use."""

import json
import sqlite3

import numpy as np
import pytest
import supervision as sv
from pycocotools.coco import COCO

from tests.datasets.samples import image
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.details import Detail, joined_outline, with_mask
from workflow_blocks.datasets.file_changes import HIDDEN_FOLDER

HEIGHT, WIDTH = 80, 120


def mask_of(*rectangles, holes=()):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for value, parts in ((True, rectangles), (False, holes)):
        for left, top, right, bottom in parts:
            mask[top:bottom, left:right] = value
    return mask


MASKS = {
    "one part": mask_of((10, 20, 60, 70)),
    "two parts": mask_of((5, 5, 40, 30), (70, 40, 110, 75)),
    "three parts": mask_of((0, 0, 30, 30), (50, 50, 80, 80), (90, 5, 120, 40)),
    "a hole": mask_of((10, 10, 100, 70), holes=[(30, 30, 70, 50)]),
    "the image": mask_of((0, 0, WIDTH, HEIGHT)),
}


def box_of(mask):
    (rows,), (columns,) = np.nonzero(mask.any(1)), np.nonzero(mask.any(0))
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def write(folder, format, masks, score=0.25, prompt="a red thing"):
    with Dataset(folder, format, ["thing"]) as dataset:
        dataset.add(
            image(1, HEIGHT, WIDTH),
            [box_of(mask) for mask in masks],
            ["thing"] * len(masks),
            "train",
            details=[with_mask(Detail(score, prompt), mask) for mask in masks],
        )


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("name", MASKS)
def test_pycocotools_reads_the_mask_of_each_object(tmp_path, name):
    write(tmp_path, "coco", [MASKS[name]])

    coco = COCO(str(tmp_path / "train" / "_annotations.coco.json"))
    (annotation,) = coco.loadAnns(coco.getAnnIds())
    found = coco.annToMask(annotation).astype(bool)
    assert overlap(found, MASKS[name]) > (0.999 if name == "a hole" else 0.9)
    assert annotation["area"] == MASKS[name].sum()
    assert annotation["iscrowd"] == 0
    assert annotation["score"] == 0.25
    assert annotation["attributes"] == {"prompt": "a red thing"}


@pytest.mark.parametrize("format", ["coco", "yolo"])
@pytest.mark.parametrize("name", MASKS)
def test_supervision_reads_the_mask_of_each_object(tmp_path, format, name):
    write(tmp_path, format, [MASKS[name], MASKS["one part"]])

    folder = tmp_path / "train"
    if format == "coco":
        dataset = sv.DetectionDataset.from_coco(
            str(folder), str(folder / "_annotations.coco.json"), force_masks=True
        )
    else:
        dataset = sv.DetectionDataset.from_yolo(
            str(folder / "images"), str(folder / "labels"), str(tmp_path / "data.yaml"), force_masks=True
        )
    ((_, _, found),) = dataset
    assert overlap(found.mask[0], MASKS[name]) > 0.9
    assert overlap(found.mask[1], MASKS["one part"]) > 0.9


def test_in_yolo_a_box_without_a_mask_beside_one_with_it_is_an_outline_of_four_corners(tmp_path):
    with Dataset(tmp_path, "yolo") as dataset:
        path = dataset.add(
            image(1, HEIGHT, WIDTH),
            [box_of(MASKS["one part"]), (12, 20, 60, 60)],
            ["a", "b"],
            "train",
            details=[with_mask(Detail(), MASKS["one part"]), Detail(0.5)],
        )

    rows = [line.split() for line in (tmp_path / "train/labels" / path.name).with_suffix(".txt").open()]
    assert len(rows[1]) == 9
    assert np.reshape([float(value) for value in rows[1][1:]], (4, 2)) * (WIDTH, HEIGHT) == pytest.approx(
        np.array([(12, 20), (60, 20), (60, 60), (12, 60)]), abs=1e-5
    )


@pytest.mark.parametrize("mask", [mask_of(), mask_of((3, 3, 4, 4)), mask_of((3, 3, 9, 4))])
def test_a_mask_without_an_area_is_left_out(mask):
    assert with_mask(Detail(0.5, "dog"), mask) == Detail(0.5, "dog")


@pytest.mark.parametrize("count", range(1, 5))
def test_a_joined_outline_returns_the_way_it_came(count):
    polygons = [(float(n), 0.0, n + 0.5, 0.0, float(n), 1.0) for n in range(count)]

    points = np.reshape(list(joined_outline(polygons)), (-1, 2))

    x, y = points.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert area == pytest.approx(0.25 * count)


def test_a_score_of_0_is_written_and_no_score_is_not(tmp_path):
    boxes = [(0, 0, 9, 9), (9, 9, 20, 20)]
    with Dataset(tmp_path, "coco") as dataset:
        dataset.add(image(1), boxes, ["a", "a"], "train", details=[Detail(0.0), Detail(None, "b")])

    found = annotations(tmp_path)
    assert [entry.get("score") for entry in found] == [0.0, None]
    assert [entry.get("attributes") for entry in found] == [None, {"prompt": "b"}]


def annotations(folder):
    return json.loads((folder / "train" / "_annotations.coco.json").read_text())["annotations"]


def test_an_image_that_comes_again_has_its_new_details(tmp_path):
    for score in (0.2, 0.7):
        with Dataset(tmp_path, "coco") as dataset:
            dataset.add(image(1), [(0, 0, 9, 9)], ["a"], "train", details=[Detail(score)])

    assert [entry["score"] for entry in annotations(tmp_path)] == [0.7]


def test_a_dataset_that_was_begun_without_details_goes_on(tmp_path):
    with Dataset(tmp_path, "coco") as dataset:
        dataset.add(image(1), [(0, 0, 9, 9)], ["a"], "train")
    with sqlite3.connect(tmp_path / HIDDEN_FOLDER / "records.sqlite") as records:
        records.execute("ALTER TABLE images DROP COLUMN details")
    records.close()

    with Dataset(tmp_path, "coco") as dataset:
        dataset.add(image(2), [(0, 0, 9, 9)], ["a"], "train", details=[Detail(0.5)])

    assert ["score" in entry for entry in annotations(tmp_path)] == [False, True]


def test_coco_has_prompts_and_known_attributes(tmp_path):
    details = [
        Detail(prompt="dog", attributes={"answer": "red", "answer_probability": 0.5, "answer_age": None}),
        Detail(attributes={"answer": None}),
        Detail(attributes={"answer": False, "answer_tools": ["a", "b"]}),
    ]
    with Dataset(tmp_path, "coco") as dataset:
        dataset.add(image(0), [(1, 1, 9, 9)] * 3, ["dog"] * 3, "train", details=details)

    document = json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())
    assert [annotation.get("attributes") for annotation in document["annotations"]] == [
        {"prompt": "dog", "answer": "red", "answer_probability": 0.5},
        None,
        {"answer": False, "answer_tools": ["a", "b"]},
    ]
