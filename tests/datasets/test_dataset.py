"""Datasets on disk, read back with the libraries that people use."""

import contextlib
import errno
import io
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.datasets.crash_trials import CrashTrials
from tests.datasets.samples import (
    add,
    assert_holds,
    assert_labelled,
    boxes_of,
    discard,
    file_name,
    image,
    load,
    names_of,
    state,
)
from workflow_blocks.datasets import atomic_files
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.formats import FORMATS
from workflow_blocks.datasets.splits import split_of

FORK = multiprocessing.get_context("fork")


@pytest.mark.parametrize("format", FORMATS)
def test_a_written_dataset_reads_back(tmp_path, format):
    with Dataset(tmp_path / "set", format) as dataset:
        paths = [add(dataset, number) for number in range(12)]

    assert [path.name for path in paths if path.is_file()] == [file_name(number) for number in range(12)]
    assert_holds(tmp_path / "set", format, range(12))


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
def test_adding_an_image_again_replaces_its_boxes(tmp_path, format):
    with Dataset(tmp_path, format) as dataset:
        paths = [add(dataset, number) for number in range(6)]
        for boxes, names in (([], []), ([(1, 2, 9, 8)], ["dog"])):
            for number in (0, 4, 2):
                assert dataset.add(image(number), boxes, names, "train") == paths[number]

    found = load(tmp_path, format)
    assert len(found) == 6
    for number in (0, 4, 2):
        assert_labelled(found, format, number, [(1, 2, 9, 8)], ["dog"])
    for number in (1, 3, 5):
        assert_labelled(found, format, number)


@pytest.mark.parametrize("format", FORMATS)
def test_an_image_is_in_one_split_only(tmp_path, format):
    with Dataset(tmp_path, format) as dataset:
        for number in range(4):
            add(dataset, number)
        for number in (0, 3):
            add(dataset, number, "valid")
        for number in (1, 2):
            add(dataset, number)

    assert_holds(tmp_path, format, (1, 2))
    assert_holds(tmp_path, format, (0, 3), "valid")
    images = list(tmp_path.rglob("*.jpg"))
    assert len(images) == 4


@pytest.mark.parametrize("format", FORMATS)
def test_discarded_images_are_removed(tmp_path, format):
    with Dataset(tmp_path, format) as dataset:
        paths = [add(dataset, number) for number in range(5)]
        for number in (0, 2, 9):
            dataset.discard(image(number))

    assert_holds(tmp_path, format, (1, 3, 4))
    assert not paths[0].exists()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "name", ["a/b", "../up", 'quo"te', "<tag>&", "naïve 猫", "a: b # c", "- list", "{}", "x" * 256]
)
def test_unusual_class_names_are_kept(tmp_path, format, name):
    with Dataset(tmp_path, format) as dataset:
        path = dataset.add(image(1), [(1, 2, 9, 8)], [name], "train")

    assert load(tmp_path, format)[path.name][1] == [name]


@pytest.mark.parametrize("name", ["", "a\x00b", "line\nbreak"])
def test_unprintable_class_names_are_refused(tmp_path, name):
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
def test_a_dataset_keeps_its_format_and_classes(tmp_path, format, class_names, told):
    with Dataset(tmp_path, "coco") as dataset:
        dataset.add(image(0), [(1, 2, 9, 8)], ["dog"], "train")

    with pytest.raises(DatasetError, match=told):
        Dataset(tmp_path, format, class_names)


def test_shares_assign_images_by_their_content():
    shares = {"train": 0.7, "valid": 0.2, "test": 0.1}
    contents = [f"{random.Random(number).getrandbits(128):032x}" for number in range(3000)]

    splits = [split_of(content, shares) for content in contents]

    assert splits == [split_of(content, shares) for content in contents]
    for split, share in shares.items():
        assert splits.count(split) / len(splits) == pytest.approx(share, abs=0.03)
    assert {split_of(content, {"test": 2}) for content in contents} == {"test"}


@pytest.mark.parametrize(
    ("content", "split"),
    [("0" * 32, "train"), ("a" * 32, "train"), ("c" * 32, "valid"), ("d" * 32, "valid"), ("e" * 32, "test")],
)
@pytest.mark.parametrize("scale", [1, 40])
def test_an_image_stays_in_its_split_in_later_releases(content, split, scale):
    """Shares may have any sum. The splits are in the order of `SPLITS`, whatever the order of the shares."""
    shares = {"test": 0.1 * scale, "valid": 0.2 * scale, "train": 0.7 * scale}

    assert split_of(content, shares) == split


KILLS = [1, pytest.param(3, marks=pytest.mark.long)]


@pytest.mark.parametrize("kills", KILLS)
@pytest.mark.parametrize("format", FORMATS)
def test_killed_writers_lose_nothing_that_they_acknowledged(tmp_path, format, kills):
    trials = CrashTrials(tmp_path, format, seed=kills)
    for _ in range(kills):
        trials.run()

    assert trials.n_acknowledged


# A process dies at every so many lines of the package that it runs.
STRIDES = [83, pytest.param(7, marks=pytest.mark.long)]
# An image that is new, replaced, moved to another split, or removed.
CHANGES = {
    "added": lambda dataset: add(dataset, 7),
    "replaced": lambda dataset: dataset.add(image(2), [(1, 2, 9, 8)], ["cat"], "train"),
    "moved": lambda dataset: add(dataset, 2, "valid"),
    "discarded": lambda dataset: discard(dataset, 2),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("format", FORMATS)
def test_a_writer_may_die_at_any_line(tmp_path, format, stride, change):
    """The next opening finds the dataset as it was, or as it should be, and completes it."""
    template = tmp_path / "template"
    with Dataset(template, format) as dataset:
        for number in range(4):
            add(dataset, number)
        add(dataset, 4, "valid")
    shutil.copytree(template, tmp_path / "after")
    alone(tmp_path / "after", format, CHANGES[change])
    before, after = state(template, format), state(tmp_path / "after", format)
    for n_lines in itertools.count(1, stride):
        folder = tmp_path / str(n_lines)
        shutil.copytree(template, folder)
        if not dies(n_lines, lambda folder=folder: alone(folder, format, CHANGES[change])):
            break
        assert load(folder, format).keys() >= {file_name(number) for number in (0, 1, 3)}
        Dataset(folder, format).close()
        assert state(folder, format) in (before, after)
        alone(folder, format, CHANGES[change])
        assert state(folder, format) == after
        shutil.rmtree(folder)
    assert n_lines > 100


def alone(folder, format, change):
    with Dataset(folder, format) as dataset:
        change(dataset)


def dies(n_lines, work):
    """Runs `work` in a child process that is killed at its `n_lines`-th line of `workflow_blocks.datasets`.

    Tells whether it was killed; it ends by itself if it has fewer lines.
    """
    child = os.fork()
    if not child:
        try:
            kill_at_line(n_lines)
            work()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def kill_at_line(n_lines):
    left = n_lines
    package = str(Path(atomic_files.__file__).parent)

    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.startswith(package):
            return None
        left -= event == "line"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


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
    assert_holds(tmp_path, format, range(50))


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_the_dataset_unchanged(tmp_path, format, monkeypatch):
    with Dataset(tmp_path, format) as dataset:
        for number in range(5):
            add(dataset, number)
        with monkeypatch.context() as full:
            full.setattr(atomic_files.os, "fdopen", full_disk)
            with pytest.raises(OSError, match="No space left"):
                add(dataset, 7)

        assert_holds(tmp_path, format, range(5))
        add(dataset, 8)
    assert_holds(tmp_path, format, (*range(5), 8))
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("format", FORMATS)
def test_everybody_may_read_a_dataset(tmp_path, format):
    with Dataset(tmp_path, format) as dataset:
        add(dataset, 1)

    public = [path for path in tmp_path.rglob("*.*") if ".dataset" not in path.parts and path.is_file()]
    assert len(public) >= 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in public} == {0o644}


def full_disk(descriptor, *_):
    os.close(descriptor)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("format", FORMATS)
def test_links_that_lead_out_of_the_dataset_are_not_followed(tmp_path, format):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to(outside)

    with Dataset(tmp_path / "set", format) as dataset, pytest.raises(DatasetError, match="is a link"):
        add(dataset, 1)

    assert not list(outside.iterdir())


@pytest.mark.parametrize("name", [".dataset", ".dataset/records.sqlite", ".dataset/lock"])
def test_links_in_place_of_the_records_are_not_followed(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tmp_path / "set" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside if name == ".dataset" else outside / "file")

    with pytest.raises(DatasetError, match="is a link"):
        Dataset(tmp_path / "set", "coco")

    assert not list(outside.iterdir())
