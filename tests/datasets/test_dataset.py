"""Datasets on disk, read back with the libraries that people use."""

import contextlib
import errno
import io
import json
import multiprocessing
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from pycocotools.coco import COCO

from workflow_blocks.datasets import atomic_files, coco_file
from workflow_blocks.datasets.dataset import Dataset, _content_of, split_of
from workflow_blocks.datasets.formats import FORMATS
from workflow_blocks.datasets.records import DatasetError

FORK = multiprocessing.get_context("fork")


def image(number, height=24, width=32):
    """A small image that differs from those of other numbers."""
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


TOLERANCES = {"coco": 0.01, "yolo": 0.01, "pascal_voc": 1.0}


def assert_holds(folder, format, numbers, paths, split="train"):
    found = load(folder, format, split)
    assert set(found) == {path.name for path in paths}
    for number, path in zip(numbers, paths, strict=True):
        boxes, names = found[path.name]
        np.testing.assert_allclose(boxes, np.reshape(boxes_of(number), (-1, 4)), atol=TOLERANCES[format])
        assert names == names_of(number)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_read_back(tmp_path, format):
    with Dataset(tmp_path / "set", format) as dataset:
        paths = [add(dataset, number) for number in range(12)]

    assert all(path.is_file() for path in paths)
    assert_holds(tmp_path / "set", format, range(12), paths)


def test_pycocotools_reads_the_file(tmp_path):
    with Dataset(tmp_path, "coco") as dataset:
        paths = [add(dataset, number) for number in range(12)]

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "train" / "_annotations.coco.json"))
    assert [item["file_name"] for item in coco.loadImgs(coco.getImgIds())] == [path.name for path in paths]
    for number, image_id in enumerate(coco.getImgIds()):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        names = [item["name"] for item in coco.loadCats([a["category_id"] for a in annotations])]
        corners = [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in annotations)]
        assert names == names_of(number)
        np.testing.assert_allclose(
            corners or np.empty((0, 4)), np.reshape(boxes_of(number), (-1, 4)), atol=0.01
        )
    ids = coco.getAnnIds()
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_image_again_replaces_what_it_had(tmp_path, format):
    with Dataset(tmp_path, format) as dataset:
        paths = [add(dataset, number) for number in range(6)]
        for boxes, names in (([], []), ([(1, 2, 9, 8)], ["dog"])):
            for number in (0, 4, 2):
                assert dataset.add(image(number), boxes, names, "train") == paths[number]

    found = load(tmp_path, format)
    assert len(found) == 6
    for number, path in enumerate(paths):
        boxes, names = found[path.name]
        expected = [(1, 2, 9, 8)] if number in (0, 4, 2) else boxes_of(number)
        assert names == (["dog"] if number in (0, 4, 2) else names_of(number))
        np.testing.assert_allclose(boxes, np.reshape(expected, (-1, 4)), atol=TOLERANCES[format])


@pytest.mark.parametrize("format", FORMATS)
def test_an_image_is_in_one_split_only(tmp_path, format):
    with Dataset(tmp_path, format) as dataset:
        for number in range(4):
            add(dataset, number)
        moved = [add(dataset, number, "valid") for number in (0, 3)]
        stayed = [add(dataset, number) for number in (1, 2)]

    assert_holds(tmp_path, format, (1, 2), stayed)
    assert_holds(tmp_path, format, (0, 3), moved, "valid")
    images = list(tmp_path.rglob("*.jpg"))
    assert len(images) == 4


@pytest.mark.parametrize("format", FORMATS)
def test_discarded_images_leave(tmp_path, format):
    with Dataset(tmp_path, format) as dataset:
        paths = [add(dataset, number) for number in range(5)]
        for number in (0, 2, 9):
            dataset.discard(image(number))

    assert_holds(tmp_path, format, (1, 3, 4), [paths[1], paths[3], paths[4]])
    assert not paths[0].exists()


def test_a_coco_file_grows_and_is_written_anew_when_its_room_is_used_up(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_file, "_FIRST_ROOM", 400)
    monkeypatch.setattr(coco_file, "_MIN_WASTE", 2000)
    with Dataset(tmp_path, "coco") as dataset:
        paths = [add(dataset, number) for number in range(40)]
        for _ in range(5):
            assert [add(dataset, number) for number in range(40)] == paths

    assert_holds(tmp_path, "coco", range(40), paths)
    path = tmp_path / "train" / "_annotations.coco.json"
    assert path.stat().st_size < 60_000
    assert int(json.loads(path.read_text())["info"]["version"].split(".")[0]) > 3


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "name", ["a/b", "../up", 'quo"te', "<tag>&", "naïve 猫", "a: b # c", "- list", "{}", "x" * 256]
)
def test_odd_class_names_come_back_as_they_are(tmp_path, format, name):
    with Dataset(tmp_path, format) as dataset:
        path = dataset.add(image(1), [(1, 2, 9, 8)], [name], "train")

    assert load(tmp_path, format)[path.name][1] == [name]


@pytest.mark.parametrize("name", ["", "a\x00b", "line\nbreak"])
def test_class_names_that_cannot_be_written_are_refused(tmp_path, name):
    with Dataset(tmp_path, "pascal_voc") as dataset, pytest.raises(DatasetError, match="class"):
        dataset.add(image(1), [(1, 2, 9, 8)], [name], "train")


def test_class_ids_follow_the_order_of_appearance(tmp_path):
    for names in (["star"], ["dog", "star"], ["red circle", "dog"]):
        with Dataset(tmp_path, "yolo") as dataset:
            dataset.add(image(len(names[0])), [(1, 2, 9, 8)] * len(names), names, "train")

    yaml = (tmp_path / "data.yaml").read_text()
    assert yaml.index("star") < yaml.index("dog") < yaml.index("red circle")


def test_fixed_classes_are_all_there_and_no_others(tmp_path):
    with Dataset(tmp_path, "coco", ["dog", "star", "cat"]) as dataset:
        dataset.add(image(0), [(1, 2, 9, 8)], ["star"], "train")
        with pytest.raises(DatasetError, match="'red circle' is not in `class_names`"):
            dataset.add(image(1), [(1, 2, 9, 8)], ["red circle"], "train")

    document = json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())
    assert [category["name"] for category in document["categories"]] == ["dog", "star", "cat"]
    assert len(document["images"]) == 1


@pytest.mark.parametrize(
    ("format", "class_names", "told"),
    [("yolo", None, "format 'coco'"), ("coco", ["star", "dog"], "classes")],
)
def test_a_dataset_stays_what_it_began_as(tmp_path, format, class_names, told):
    with Dataset(tmp_path, "coco") as dataset:
        dataset.add(image(0), [(1, 2, 9, 8)], ["dog"], "train")

    with pytest.raises(DatasetError, match=told):
        Dataset(tmp_path, format, class_names)


def test_shares_deal_images_out_by_their_content():
    shares = {"train": 0.7, "valid": 0.2, "test": 0.1}
    contents = [f"{random.Random(number).getrandbits(128):032x}" for number in range(3000)]

    splits = [split_of(content, shares) for content in contents]

    assert splits == [split_of(content, shares) for content in contents]
    for split, share in shares.items():
        assert splits.count(split) / len(splits) == pytest.approx(share, abs=0.03)
    assert {split_of(content, {"test": 2}) for content in contents} == {"test"}


def write_until_killed(folder, format, first, acknowledged):
    with Dataset(folder, format) as dataset:
        for number in range(first, first + 10_000):
            add(dataset, number % 60)
            os.write(acknowledged, f"{number % 60}\n".encode())


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path, format, monkeypatch):
    monkeypatch.setattr(coco_file, "_FIRST_ROOM", 2000)  # so that files are written anew now and then
    monkeypatch.setattr(coco_file, "_MIN_WASTE", 4000)
    rng, expected = random.Random(0), set()
    for kill in range(25):
        reader, writer = os.pipe()
        process = FORK.Process(target=write_until_killed, args=(tmp_path, format, 7 * kill, writer))
        process.start()
        os.close(writer)
        time.sleep(0.1 + rng.uniform(0, 0.15))
        process.kill()
        process.join()
        with os.fdopen(reader) as acknowledged:
            expected |= {int(line) for line in acknowledged.read().split()}

        found = load(tmp_path, format)
        names = {path.name: number for number in expected for path in [content_path(number)]}
        assert set(names) <= set(found)
        for name, (boxes, classes) in found.items():
            number = names.get(name)
            if number is not None:
                np.testing.assert_allclose(
                    boxes, np.reshape(boxes_of(number), (-1, 4)), atol=TOLERANCES[format]
                )
                assert classes == names_of(number)
    assert len(expected) > 20


def content_path(number):
    return Path(_content_of(image(number)) + ".jpg")


def write_some(folder, format, numbers):
    def write(number):
        with Dataset(folder, format) as dataset:
            return add(dataset, number)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, numbers))


@pytest.mark.parametrize("format", FORMATS)
def test_processes_and_threads_share_a_dataset(tmp_path, format):
    numbers = [range(0, 30), range(20, 50)]
    processes = [FORK.Process(target=write_some, args=(tmp_path, format, part)) for part in numbers]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0]
    assert_holds(tmp_path, format, range(50), [content_path(number) for number in range(50)])


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_the_dataset_as_it_was(tmp_path, format, monkeypatch):
    with Dataset(tmp_path, format) as dataset:
        paths = [add(dataset, number) for number in range(5)]
        with monkeypatch.context() as full:
            full.setattr(atomic_files.os, "fdopen", full_disk)
            with pytest.raises(OSError, match="No space left"):
                add(dataset, 7)

        assert_holds(tmp_path, format, range(5), paths)
        paths.append(add(dataset, 8))
    assert_holds(tmp_path, format, (*range(5), 8), paths)
    assert not list(tmp_path.rglob("*.part"))


def full_disk(descriptor, *_):
    os.close(descriptor)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("format", FORMATS)
def test_links_that_lead_out_of_the_dataset_are_not_followed(tmp_path, format):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to(outside)

    with Dataset(tmp_path / "set", format) as dataset, pytest.raises(DatasetError, match="leads out"):
        add(dataset, 1)

    assert not list(outside.iterdir())


@pytest.mark.parametrize("name", [".dataset", ".dataset/records.sqlite", ".dataset/lock"])
def test_links_in_place_of_the_records_are_not_followed(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tmp_path / "set" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside if name == ".dataset" else outside / "file")

    with pytest.raises(DatasetError, match="leads out"):
        Dataset(tmp_path / "set", "coco")

    assert not list(outside.iterdir())
