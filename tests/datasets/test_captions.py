"""Captions beside images: one line for each image, also after changes, edits and killed writers."""

import json
import multiprocessing
import os
import random
import time

import pytest

from tests.datasets.samples import boxes_of, discard, image, names_of
from workflow_blocks.datasets import caption_files, coco_file
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.formats import FORMATS, SPLITS

FORK = multiprocessing.get_context("fork")
ODD = 'a "red" car\nин two lines \ud800'


def add(dataset, number, caption="", split="train"):
    return dataset.add(image(number), boxes_of(number), names_of(number), split, caption=caption)


def captions(folder, format, split="train"):
    """The text of each image, as the file beside the images has them; checks that it has all images."""
    images = folder / split / "images" if format == "yolo" else folder / split
    path = images / "metadata.jsonl"
    if not path.exists():
        return None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert {line["file_name"] for line in lines} == {found.name for found in images.glob("*.jpg")}
    assert len({line["file_name"] for line in lines}) == len(lines)
    return [line["text"] for line in lines]


@pytest.fixture(params=[False, True], ids=["small", "large"])
def is_large(request, monkeypatch):
    """Whether files are written later, as those of large datasets are."""
    if request.param:
        for module in (caption_files, coco_file):
            monkeypatch.setattr(module, "MAX_BYTES_AT_ONCE", 0)
    return request.param


@pytest.mark.parametrize("format", FORMATS)
def test_every_image_of_a_split_with_captions_has_a_line(tmp_path, format, is_large):
    with Dataset(tmp_path, format) as dataset:
        add(dataset, 0)
        dataset.flush()
        assert captions(tmp_path, format) is None
        add(dataset, 1, ODD)
        add(dataset, 2, "a dog")
        add(dataset, 3, "of no split with captions", "valid")
        add(dataset, 3)
        dataset.flush()

    assert captions(tmp_path, format) == ["", ODD.encode(errors="replace").decode(), "a dog", ""]
    assert not captions(tmp_path, format, "valid")
    assert captions(tmp_path, format, "test") is None


@pytest.mark.parametrize("format", FORMATS)
def test_captions_change_move_and_go_with_their_images(tmp_path, format, is_large):
    with Dataset(tmp_path, format) as dataset:
        for number in range(4):
            add(dataset, number, f"caption {number}")
        add(dataset, 1, "another")
        add(dataset, 2, "moved", "valid")
        discard(dataset, 3)
        dataset.flush()

    assert captions(tmp_path, format) == ["caption 0", "another"]
    assert captions(tmp_path, format, "valid") == ["moved"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_large_file_follows_within_seconds(tmp_path, format, monkeypatch):
    monkeypatch.setattr(caption_files, "MAX_BYTES_AT_ONCE", 10)
    with Dataset(tmp_path, format) as dataset:
        add(dataset, 0, "first")
        add(dataset, 1, "second")

    assert captions_or_partial(tmp_path, format) == ["first"]
    deadline = time.monotonic() + 20
    while captions_or_partial(tmp_path, format) != ["first", "second"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def captions_or_partial(folder, format):
    images = folder / "train" / ("images" if format == "yolo" else "")
    return [json.loads(line)["text"] for line in (images / "metadata.jsonl").read_text().splitlines()]


def test_an_edited_file_is_not_replaced(tmp_path):
    path = tmp_path / "train" / "metadata.jsonl"
    with Dataset(tmp_path, "coco") as dataset:
        add(dataset, 0, "first")
        path.write_text(path.read_text().replace("first", "better"))
        with pytest.raises(DatasetError, match="was edited"):
            add(dataset, 1, "second")
        assert "better" in path.read_text()
        assert len(list((tmp_path / "train").glob("*.jpg"))) == 1
        path.rename(tmp_path / "kept.jsonl")
        add(dataset, 1, "second")

    assert captions(tmp_path, "coco") == ["first", "second"]


def test_a_copied_dataset_goes_on_and_a_missing_file_comes_back(tmp_path):
    import shutil

    with Dataset(tmp_path / "set", "yolo") as dataset:
        add(dataset, 0, "first")
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    with Dataset(tmp_path / "copy", "yolo") as dataset:
        add(dataset, 1, "second")
    assert captions(tmp_path / "copy", "yolo") == ["first", "second"]

    (tmp_path / "set" / "train" / "images" / "metadata.jsonl").unlink()
    Dataset(tmp_path / "set", "yolo").close()
    assert captions(tmp_path / "set", "yolo") == ["first"]


def test_a_file_of_somebody_else_is_not_replaced(tmp_path):
    with Dataset(tmp_path, "coco") as dataset:
        add(dataset, 0)
        (tmp_path / "train" / "metadata.jsonl").write_text("mine")
        with pytest.raises(DatasetError, match="was edited"):
            add(dataset, 1, "second")

    assert (tmp_path / "train" / "metadata.jsonl").read_text() == "mine"


def _write_until_killed(folder, format, writer, seed):
    chance = random.Random(seed)
    with Dataset(folder, format) as dataset:
        while True:
            number = chance.randrange(30)
            if chance.random() < 0.2:
                discard(dataset, number)
            else:
                add(dataset, number, f"{number}" if chance.random() < 0.8 else "", chance.choice(SPLITS))
            os.write(writer, b".")


@pytest.mark.parametrize("format", FORMATS)
def test_killed_writers_leave_a_line_for_each_image(tmp_path, format, is_large):
    chance = random.Random(0)
    for trial in range(5):
        reader, writer = os.pipe()
        process = FORK.Process(target=_write_until_killed, args=(tmp_path, format, writer, trial))
        process.start()
        for _ in range(3):
            os.read(reader, 1)
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        process.join()
        os.close(reader)
        os.close(writer)
        with Dataset(tmp_path, format) as dataset:
            dataset.flush()

        for split in SPLITS:
            captions(tmp_path, format, split)
