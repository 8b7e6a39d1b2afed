"""Datasets that were copied, restored, edited, damaged or linked elsewhere."""

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.datasets import full_disk_trials
from tests.datasets.samples import (
    add,
    assert_holds,
    assert_nothing_left_over,
    discard,
    file_name,
    image,
    load_all,
)
from workflow_blocks.datasets import coco_file, late_writes
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.formats import FORMATS

RELEASES = Path(__file__).with_name("release_0_1_0")


def make(folder, format, numbers=range(6)):
    with Dataset(folder, format) as dataset:
        for number in numbers:
            add(dataset, number)


def public_files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".dataset" not in path.parts
    }


def annotations(folder, split="train"):
    return folder / split / "_annotations.coco.json"


@pytest.mark.parametrize("format", FORMATS)
def test_a_dataset_without_its_records_is_left_alone(tmp_path, format):
    make(tmp_path, format)
    shutil.rmtree(tmp_path / ".dataset")
    before = public_files(tmp_path)

    for other in FORMATS:
        with pytest.raises(DatasetError, match="records"):
            Dataset(tmp_path, other)

    assert public_files(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    ["data.yaml", "valid/a.txt", "test/images/b.png", "train/_annotations.coco.json", "train/images/0001"],
)
@pytest.mark.parametrize("format", FORMATS)
def test_a_dataset_of_others_is_left_alone(tmp_path, format, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("theirs")

    with pytest.raises(DatasetError, match="records"):
        Dataset(tmp_path, format)

    assert public_files(tmp_path) == {Path(name): b"theirs"}


def copied(folder, copy):
    subprocess.run(["cp", "-r", folder, copy], check=True)


def zipped(folder, copy):
    shutil.unpack_archive(shutil.make_archive(f"{copy}-archive", "zip", folder), copy)


def moved(folder, copy):
    folder.rename(copy)


def hard_linked(folder, copy):
    """The original goes on, too."""
    subprocess.run(["cp", "-al", folder, copy], check=True)
    with Dataset(folder, "coco" if annotations(folder).exists() else kind_of(folder)) as dataset:
        discard(dataset, 0)
        add(dataset, 9)


def restored_in_part(folder, copy):
    """The annotations are older than the records."""
    old = annotations(folder).read_bytes() if annotations(folder).exists() else None
    with Dataset(folder, "coco" if old else kind_of(folder)) as dataset:
        add(dataset, 6)
    copied(folder, copy)
    if old:
        annotations(copy).write_bytes(old)


def kind_of(folder):
    return "yolo" if (folder / "data.yaml").exists() else "pascal_voc"


@pytest.mark.parametrize("way", [copied, zipped, moved, hard_linked, restored_in_part])
@pytest.mark.parametrize("format", FORMATS)
def test_a_copy_goes_on_working(tmp_path, format, way):
    make(tmp_path / "set", format)

    way(tmp_path / "set", tmp_path / "copy")

    for number in (6, 7, 8):
        with Dataset(tmp_path / "copy", format) as dataset:
            add(dataset, number)
    assert_holds(tmp_path / "copy", format, range(9))


@pytest.mark.parametrize("format", FORMATS)
def test_a_dataset_goes_on_after_a_copy_of_hard_links(tmp_path, format):
    make(tmp_path / "set", format)

    hard_linked(tmp_path / "set", tmp_path / "copy")

    assert_holds(tmp_path / "copy", format, range(6))
    assert_holds(tmp_path / "set", format, (*range(1, 6), 9))
    assert not list((tmp_path / "set" / ".dataset" / "staged").iterdir())


def test_records_of_hard_links_that_are_in_use_are_an_error(tmp_path):
    make(tmp_path / "set", "coco")
    with Dataset(tmp_path / "set", "coco"):
        subprocess.run(["cp", "-al", tmp_path / "set", tmp_path / "copy"], check=True)

        with pytest.raises(DatasetError, match="locked"):
            Dataset(tmp_path / "set", "coco")

    Dataset(tmp_path / "set", "coco").close()


def with_older_records(folder, format):
    """The folder of the records is older than the files. Returns a copy of the right one."""
    make(folder, format, range(4))
    right = folder.with_name("right")
    shutil.copytree(folder / ".dataset", folder.with_name("old"))
    make(folder, format, range(4, 7))
    (folder / ".dataset").rename(right)
    folder.with_name("old").rename(folder / ".dataset")
    return right


@pytest.mark.parametrize("split", ["train", "valid"])
def test_coco_files_are_not_replaced_from_older_records(tmp_path, split):
    right = with_older_records(tmp_path / "set", "coco")
    before = public_files(tmp_path / "set")

    with pytest.raises(DatasetError, match="newer"), Dataset(tmp_path / "set", "coco") as dataset:
        add(dataset, 8, split)

    assert public_files(tmp_path / "set") == before
    shutil.copytree(tmp_path / "set", tmp_path / "given up")
    annotations(tmp_path / "given up").unlink()
    make(tmp_path / "given up", "coco", [8])
    assert_holds(tmp_path / "given up", "coco", (*range(4), 8))
    shutil.rmtree(tmp_path / "set" / ".dataset")
    right.rename(tmp_path / "set" / ".dataset")
    make(tmp_path / "set", "coco", [8])
    assert_holds(tmp_path / "set", "coco", (*range(7), 8))


@pytest.mark.parametrize("format", ["yolo", "pascal_voc"])
def test_an_image_that_older_records_do_not_know_is_in_one_split_only(tmp_path, format):
    with_older_records(tmp_path / "set", format)

    with Dataset(tmp_path / "set", format) as dataset:
        add(dataset, 5, "valid")

    assert_holds(tmp_path / "set", format, (0, 1, 2, 3, 4, 6))
    assert_holds(tmp_path / "set", format, (5,), "valid")


@pytest.mark.parametrize("damage", [b"", b'{"info": ', b"\x00" * 900, None])
@pytest.mark.parametrize("is_later", [True, False])
def test_a_damaged_or_missing_coco_file_is_built_again(tmp_path, damage, is_later):
    make(tmp_path, "coco")
    annotations(tmp_path).unlink()
    if damage is not None:
        annotations(tmp_path).write_bytes(damage)

    with Dataset(tmp_path, "coco") as dataset:
        if is_later:
            add(dataset, 6)

    assert_holds(tmp_path, "coco", range(7 if is_later else 6))
    kept = [path.read_bytes() for path in annotations(tmp_path).parent.glob(".damaged-*")]
    assert kept == ([] if damage is None else [damage])


def edit_label(document):
    document["annotations"][0]["bbox"][0] = 3.25


def add_category(document):
    document["categories"].append({"id": 9, "name": "mine", "supercategory": "none"})


def remove_image(document):
    document["images"].pop()


@pytest.mark.parametrize("edit", [edit_label, add_category, remove_image])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_edited_coco_file_is_left_alone(tmp_path, edit, indent):
    make(tmp_path, "coco")
    document = json.loads(annotations(tmp_path).read_text())
    edit(document)
    annotations(tmp_path).write_text(json.dumps(document, indent=indent))
    before = public_files(tmp_path)

    for number in (6, 7):
        with Dataset(tmp_path, "coco") as dataset, pytest.raises(DatasetError, match="edited"):
            add(dataset, number)

    assert public_files(tmp_path) == before
    annotations(tmp_path).rename(tmp_path / "edited.json")
    with Dataset(tmp_path, "coco") as dataset:
        add(dataset, 7)
    assert_holds(tmp_path, "coco", (*range(6), 7))


def test_an_edit_that_keeps_size_and_time_is_noticed(tmp_path):
    make(tmp_path, "coco")
    path = annotations(tmp_path)
    status = path.stat()
    content = path.read_bytes().replace(b'"width": 32', b'"width": 23')
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    with Dataset(tmp_path, "coco") as dataset, pytest.raises(DatasetError, match="edited"):
        add(dataset, 6)

    assert path.read_bytes() == content


@pytest.mark.parametrize("change", ["names: [mine, star, dog]", "names: {0: cat}", "nc: 1", "- 1", "a: [b"])
def test_an_edited_data_yaml_is_kept_or_left_alone(tmp_path, change):
    make(tmp_path, "yolo")
    path = tmp_path / "data.yaml"
    path.write_text(f"{change}\n")
    before = public_files(tmp_path)

    with Dataset(tmp_path, "yolo") as dataset:
        if change == "nc: 1":
            add(dataset, 7)
            assert "star" in path.read_text()
        else:
            with pytest.raises(DatasetError, match="classes"):
                add(dataset, 7)
            assert public_files(tmp_path) == before


def test_keys_that_others_add_to_data_yaml_are_kept(tmp_path):
    make(tmp_path, "yolo")
    path = tmp_path / "data.yaml"
    path.write_text(path.read_text().replace("val: train/images", "val: ../other/images") + "path: .\n")

    with Dataset(tmp_path, "yolo") as dataset:
        dataset.add(image(9), [(1, 2, 9, 8)], ["cat"], "train")

    text = path.read_text()
    assert "val: ../other/images" in text
    assert "path: ." in text
    assert "- cat" in text


def test_comments_and_style_of_the_shared_yolo_files_are_kept(tmp_path):
    make(tmp_path, "yolo")
    path, classes = tmp_path / "data.yaml", tmp_path / "train" / "classes.txt"
    edited = (
        "# mine\nnames: {0: star, 1: 'dog', 2: red circle}\nnc: 3\ntrain: train/images\nval: train/images\n"
    )
    path.write_text(edited)
    classes.write_text(classes.read_text().replace("\n", "\r\n"))

    make(tmp_path, "yolo", range(6, 9))

    assert path.read_text() == edited
    assert_holds(tmp_path, "yolo", range(9))


@pytest.mark.parametrize("kept", [0, 100, 5000])
@pytest.mark.parametrize("format", FORMATS)
def test_damaged_records_are_an_error_of_the_dataset(tmp_path, format, kept):
    make(tmp_path, format)
    records = tmp_path / ".dataset" / "records.sqlite"
    content = records.read_bytes()
    records.write_bytes(content[:kept] + b"\xff" * (len(content) - kept))
    before = public_files(tmp_path)

    def change():
        with Dataset(tmp_path, format) as dataset:
            add(dataset, 7)

    with pytest.raises(DatasetError, match=r"damaged|cannot be used"):
        change()
    assert public_files(tmp_path) == before
    records.write_bytes(content)
    for name in ("records.sqlite-wal", "records.sqlite-shm"):
        records.with_name(name).unlink(missing_ok=True)
    change()
    assert_holds(tmp_path, format, (*range(6), 7))


@pytest.mark.parametrize("linked", ["train", "train/images", "train/labels"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_split_that_became_a_link_is_not_written_through_other_splits(tmp_path, format, linked):
    folder, outside = tmp_path / "set", tmp_path / "outside"
    make(folder, format)
    if not (folder / linked).is_dir():
        pytest.skip("not a folder of this format")
    (folder / linked).rename(outside)
    (folder / linked).symlink_to(outside)
    before = public_files(outside)

    for change in (
        lambda dataset: dataset.add(image(9), [(1, 2, 9, 8)], ["new class"], "valid"),
        lambda dataset: add(dataset, 2, "valid"),
        lambda dataset: add(dataset, 2, "train"),
        lambda dataset: discard(dataset, 3),
    ):
        with contextlib.suppress(DatasetError), Dataset(folder, format) as dataset:
            change(dataset)

    assert public_files(outside) == before


INNER_LINKS = {
    "valid": "train",
    "test": ".",
    "valid/images": "../train/images",
    "valid/labels": "../train/labels",
    "valid/_annotations.coco.json": "../train/_annotations.coco.json",
    "valid/classes.txt": "../train/classes.txt",
    ".dataset/records.sqlite-wal": "../train/wal",
}


@pytest.mark.parametrize("link", INNER_LINKS)
@pytest.mark.parametrize("format", FORMATS)
def test_links_in_a_dataset_are_not_followed(tmp_path, format, link):
    make(tmp_path, format)
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(INNER_LINKS[link])

    with contextlib.suppress(DatasetError), Dataset(tmp_path, format) as dataset:
        add(dataset, 7, "test" if link == "test" else "valid")

    (tmp_path / link).unlink(missing_ok=True)
    assert_holds(tmp_path, format, range(6))
    make(tmp_path, format, [8])
    assert_holds(tmp_path, format, (*range(6), 8))


@pytest.mark.parametrize("link", ["train", "valid", "data.yaml", ".dataset", "."])
@pytest.mark.parametrize("format", FORMATS)
def test_a_link_to_itself_is_an_error_of_the_dataset(tmp_path, format, link):
    folder = tmp_path / "set"
    if link != ".":
        make(folder, format)
        with contextlib.suppress(FileNotFoundError):
            (folder / link).rename(tmp_path / "moved")
    (folder / link).symlink_to(folder / link)

    with contextlib.suppress(DatasetError, OSError), Dataset(folder, format) as dataset:
        add(dataset, 7, "valid")

    assert (folder / link).is_symlink()


@pytest.mark.parametrize("format", FORMATS)
def test_datasets_of_the_earlier_release_go_on(tmp_path, format):
    shutil.unpack_archive(RELEASES / f"{format}.zip", tmp_path)
    (tmp_path / "train" / ".0123abcd.part").touch()
    before = load_all(tmp_path, format)

    with Dataset(tmp_path, format) as dataset:
        pass
    assert load_all(tmp_path, format).keys() == before.keys()
    with Dataset(tmp_path, format) as dataset:
        path = dataset.add(image(2), [(1, 2, 9, 8)], ["dog"], "train", source_name="a photo.jpg")
        assert path.name == file_name(2)
        add(dataset, 2)
        add(dataset, 7)

    assert_holds(tmp_path, format, (*range(5), 7))
    assert_nothing_left_over(tmp_path, format, load_all(tmp_path, format))


def test_a_coco_file_that_was_edited_in_the_earlier_release_is_left_alone(tmp_path):
    shutil.unpack_archive(RELEASES / "coco.zip", tmp_path)
    document = json.loads(annotations(tmp_path).read_text())
    edit_label(document)
    annotations(tmp_path).write_text(json.dumps(document))
    before = public_files(tmp_path)

    with Dataset(tmp_path, "coco") as dataset, pytest.raises(DatasetError, match="edited"):
        add(dataset, 9)

    after = public_files(tmp_path)
    assert after[Path("train/_annotations.coco.json")] == before[Path("train/_annotations.coco.json")]


@pytest.fixture
def late(monkeypatch):
    """All COCO files are written later."""
    monkeypatch.setattr(coco_file, "MAX_BYTES_AT_ONCE", -1)


def n_images(folder):
    return len(json.loads(annotations(folder).read_text())["images"])


def test_a_large_coco_file_is_written_within_two_seconds(tmp_path, late):
    make(tmp_path, "coco", range(5))
    deadline = time.monotonic() + 2
    while not annotations(tmp_path).exists() and time.monotonic() < deadline:
        time.sleep(0.02)

    assert_holds(tmp_path, "coco", range(5))
    with Dataset(tmp_path, "coco") as dataset:
        add(dataset, 5)
        discard(dataset, 1)
        assert (tmp_path / "train" / file_name(1)).exists()  # the annotations still name it
        dataset.flush()
    assert_holds(tmp_path, "coco", (0, 2, 3, 4, 5))
    assert_nothing_left_over(tmp_path, "coco", load_all(tmp_path, "coco"))


ADD_LATE = """
import os, sys
from pathlib import Path
from tests.datasets.test_damage import make
from workflow_blocks.datasets import coco_file
coco_file.MAX_BYTES_AT_ONCE = -1
make(Path(sys.argv[1]), "coco", range(5))
os.kill(os.getpid(), 9) if sys.argv[2] == "killed" else None
"""


@pytest.mark.parametrize("end", ["ends", "killed"])
def test_late_coco_files_are_written_at_the_end_or_at_the_next_opening(tmp_path, end):
    subprocess.run([sys.executable, "-c", ADD_LATE, tmp_path, end], check=end == "ends")
    if end == "killed":
        assert not annotations(tmp_path).exists()
        Dataset(tmp_path, "coco").close()

    assert_holds(tmp_path, "coco", range(5))


def test_a_late_write_that_fails_is_logged_and_done_by_the_next_writer(tmp_path, late, caplog, monkeypatch):
    monkeypatch.setattr(late_writes, "DELAY_S", 0)
    make(tmp_path, "coco", range(2))
    wait_for_late_writes()
    document = annotations(tmp_path).read_text()
    make(tmp_path, "coco", [2])
    annotations(tmp_path).write_text(document.replace('"width": 32', '"width": 33'))
    with caplog.at_level(logging.WARNING):
        wait_for_late_writes()

    assert "edited" in caplog.text
    annotations(tmp_path).write_text(document)
    Dataset(tmp_path, "coco").close()
    assert n_images(tmp_path) == 3


def wait_for_late_writes():
    for thread in threading.enumerate():
        if thread.name == "dataset files":
            thread.join()


@pytest.mark.parametrize("is_late", [False, True])
def test_a_slow_reader_sees_whole_files_and_no_image_is_missing(tmp_path, is_late, monkeypatch):
    monkeypatch.setattr(coco_file, "MAX_BYTES_AT_ONCE", -1 if is_late else 10**9)
    monkeypatch.setattr(late_writes, "DELAY_S", 0.01)
    make(tmp_path, "coco", range(10))
    wait_for_late_writes()
    stop = threading.Event()

    def write():
        number = 10
        while not stop.is_set():
            with Dataset(tmp_path, "coco") as dataset:
                add(dataset, number)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(6):
            with annotations(tmp_path).open() as file:
                text = ""
                while piece := file.read(300):
                    text += piece
                    time.sleep(0.002)
            names = {item["file_name"] for item in json.loads(text)["images"]}
            assert names <= {path.name for path in (tmp_path / "train").iterdir()}
    finally:
        stop.set()
        writer.join()
    wait_for_late_writes()


def test_shared_facts_agree_in_all_splits(tmp_path):
    with Dataset(tmp_path, "coco") as dataset:
        dataset.add(image(1), [(1, 2, 9, 8)], ["red circle"], "train")
        dataset.add(image(2), [(1, 2, 9, 8)] * 2, ["red circle", "blue circle"], "valid")

    categories = [
        json.loads(annotations(tmp_path, split).read_text())["categories"] for split in ("train", "valid")
    ]
    assert categories[0] == categories[1]
    assert [item["name"] for item in categories[0]] == ["red circle", "blue circle"]


def test_a_failed_first_image_claims_nothing(tmp_path):
    with Dataset(tmp_path, "coco", ["a", "b"]) as dataset, pytest.raises(DatasetError, match="class_names"):
        dataset.add(image(1), [(1, 2, 9, 8)], ["c"], "train")

    with Dataset(tmp_path, "yolo", ["b"]) as dataset:
        dataset.add(image(1), [(1, 2, 9, 8)], ["b"], "train")
    assert load_all(tmp_path, "yolo")["train"][file_name(1)][1] == ["b"]


def test_changes_on_a_full_disk_are_made_or_not(tmp_path):
    command = [sys.executable, "-m", full_disk_trials.__name__, str(tmp_path), "--trials", "6", "--seed", "3"]
    if subprocess.run(full_disk_trials.in_small_disk(tmp_path, "true"), check=False).returncode:
        pytest.skip("this system lets nobody mount a small disk")

    done = subprocess.run(
        full_disk_trials.in_small_disk(tmp_path, *command), check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing half done" in done.stdout
