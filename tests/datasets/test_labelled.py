"""Reading labelled datasets: what other tools and this plugin write, and files with errors."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import supervision as sv
from PIL import Image

from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.formats import FORMATS
from workflow_blocks.datasets.labelled import read_labelled
from workflow_blocks.image_files import decode_image

GOOD_ROW = "0 0.5 0.5 0.2 0.2"
NAMES = ["cat", "dog"]
BOXES = [(1.0, 2.0, 11.0, 22.0), (30.0, 5.0, 40.0, 15.0)]


def image(number):
    return np.full((40, 60, 3), number, np.uint8)


def write_image(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image(number))
    return path


def write_text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return path


def coco(folder, images=(), annotations=(), categories=(), split="valid"):
    document = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    return write_text(folder / split / "_annotations.coco.json", json.dumps(document))


def yolo(folder, *rows, names=("cat", "dog"), split="valid"):
    write_text(folder / "data.yaml", f"names: {json.dumps(list(names))}")
    write_image(folder / split / "images" / "a.png")
    return write_text(folder / split / "labels" / "a.txt", *rows)


def pascal_voc(folder, *objects, split="valid"):
    write_image(folder / split / "a.png")
    return write_text(folder / split / "a.xml", "<annotation>", *objects, "</annotation>")


def voc_object(name, *corners):
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"


def problems(dataset):
    return [f"{problem.file.name}, {problem.place}: {problem.text}" for problem in dataset.problems]


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("format", FORMATS)
def test_what_the_export_writes_is_read(tmp_path, format, is_named):
    with Dataset(tmp_path, format, NAMES) as written:
        written.add(image(1), BOXES, ["dog", "cat"], "valid", ".png")
        written.add(image(2), [], [], "valid", ".png")
        written.add(image(3), BOXES[:1], ["dog"], "test", ".png")

    dataset = read_labelled(tmp_path, "valid", format if is_named else None)

    assert set(dataset.class_names) == {"cat", "dog"}
    assert len(dataset.images) == 2
    full, empty = sorted(dataset.images, key=lambda one: -len(one.boxes))
    np.testing.assert_allclose(full.boxes, BOXES, atol=1e-3)
    assert [dataset.class_names[index] for index in full.class_ids] == ["dog", "cat"]
    assert (full.width, full.height) == (60, 40)
    assert len(empty.boxes) == 0
    assert problems(dataset) == []


@pytest.mark.parametrize("format", FORMATS)
def test_what_supervision_writes_is_read(tmp_path, format):
    paths = [str(write_image(tmp_path / "source" / f"{number}.png", number)) for number in range(2)]
    detections = sv.Detections(xyxy=np.array(BOXES), class_id=np.array([1, 0]))
    source = sv.DetectionDataset(NAMES, paths, {paths[0]: detections, paths[1]: sv.Detections.empty()})
    folder = tmp_path / "dataset"
    if format == "coco":
        source.as_coco(str(folder / "valid"), str(folder / "valid" / "_annotations.coco.json"))
    elif format == "yolo":
        places = (folder / "valid" / "images", folder / "valid" / "labels", folder / "data.yaml")
        source.as_yolo(*map(str, places))
    else:
        source.as_pascal_voc(str(folder / "valid"), str(folder / "valid"))

    dataset = read_labelled(folder)

    assert len(dataset.images) == 2
    (boxes,) = [one for one in dataset.images if len(one.boxes)]
    np.testing.assert_allclose(boxes.boxes, BOXES, atol=1.01 if format == "pascal_voc" else 1e-3)
    assert [dataset.class_names[index] for index in boxes.class_ids] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("yaml", "place"),
    [
        ("val: ../valid/images", "valid/images"),
        ("val: valid/images", "valid/images"),
        ("path: .\nval: images/val", "images/val"),
        ("val: images/val2017", "images/val2017"),
        ("", "images/val"),
        ("", "val/images"),
    ],
)
def test_layouts_of_yolo(tmp_path, yaml, place):
    write_text(tmp_path / "data.yaml", yaml, "names: {0: cat, 1: dog}")
    write_image(tmp_path / place / "a.png")
    write_text(tmp_path / place.replace("images", "labels") / "a.txt", "1 0.5 0.5 0.5 0.5")

    (one,) = read_labelled(tmp_path).images

    np.testing.assert_allclose(one.boxes, [[15, 10, 45, 30]])


def test_the_layout_of_pascal_voc_itself(tmp_path):
    write_image(tmp_path / "JPEGImages" / "a.png")
    write_image(tmp_path / "JPEGImages" / "b.png")
    write_text(tmp_path / "ImageSets" / "Main" / "val.txt", "a 1")
    write_text(tmp_path / "Annotations" / "a.xml", "<a>", voc_object("cat", 1, 1, 10, 20), "</a>")

    (one,) = read_labelled(tmp_path).images

    assert one.path.name == "a.png"
    np.testing.assert_allclose(one.boxes, [[0, 0, 10, 20]])


def test_the_layout_of_coco_itself(tmp_path):
    write_image(tmp_path / "val2017" / "a.png")
    file = coco(
        tmp_path,
        [{"id": 1, "file_name": "a.png"}],
        [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 5, 5], "iscrowd": 1}],
        [{"id": 7, "name": "cat"}],
    )
    (tmp_path / "annotations").mkdir()
    file.rename(tmp_path / "annotations" / "instances_val2017.json")
    file.parent.rmdir()

    (one,) = read_labelled(tmp_path).images

    assert one.is_crowd.tolist() == [True]


CAT = {"id": 7, "name": "cat"}
BOX = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 5, 5]}


def coco_itself(folder, split, *kinds):
    """`annotations/<kind>_<split>.json` of each kind, and `<split>/a.png`."""
    write_image(folder / split / "a.png")
    for kind in kinds:
        document = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [BOX], "categories": [CAT]}
        if kind == "captions":
            document = {"images": document["images"], "annotations": [{"image_id": 1, "caption": "a cat"}]}
        elif kind == "person_keypoints":
            document["categories"] = [CAT | {"name": "person"}]
        write_text(folder / "annotations" / f"{kind}_{split}.json", json.dumps(document))


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("captions", "instances", "person_keypoints"), "cat"),
        (("captions", "instances"), "cat"),
        (("captions", "person_keypoints"), "person"),
        (("captions", "labels"), "cat"),
    ],
)
@pytest.mark.parametrize("split", ["val", "val2017"])
def test_the_file_with_boxes_of_coco_s_several_files_is_read(tmp_path, kinds, expected, split):
    coco_itself(tmp_path, "val2017", *kinds)

    dataset = read_labelled(tmp_path, split)

    assert dataset.class_names == [expected]
    assert len(dataset.images[0].boxes) == 1


def test_of_two_years_of_coco_the_split_must_name_one(tmp_path):
    coco_itself(tmp_path, "val2014", "instances", "captions")
    coco_itself(tmp_path, "val2017", "instances", "captions")

    with pytest.raises(DatasetError, match=r"instances_val2014.json, instances_val2017.json; give a --split"):
        read_labelled(tmp_path, "val")
    assert read_labelled(tmp_path, "val2017").images[0].path.parent.name == "val2017"


def test_repeated_ids_of_coco_are_named_and_the_first_counts(tmp_path):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "valid" / name)
    coco(
        tmp_path,
        [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}],
        [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}],
    )

    dataset = read_labelled(tmp_path, "valid")

    assert [(image.path.name, len(image.boxes)) for image in dataset.images] == [("a.png", 1)]
    assert [dataset.class_names[one] for one in dataset.images[0].class_ids] == ["x"]
    problems = " ".join(map(str, dataset.problems))
    assert "another image has its id 1" in problems
    assert "another category has its id 1" in problems


def test_images_of_yolo_in_folders_below(tmp_path):
    write_text(tmp_path / "data.yaml", 'names: ["cat", "dog"]', "val: images/val")
    for place in ("val/a", "val/cam2/b"):
        write_image(tmp_path / "images" / f"{place}.png")
        write_text(tmp_path / "labels" / f"{place}.txt", GOOD_ROW)

    dataset = read_labelled(tmp_path, "val")

    assert [(image.path.name, len(image.boxes)) for image in dataset.images] == [("a.png", 1), ("b.png", 1)]


def test_captions_alone_are_an_error_that_names_their_file(tmp_path):
    coco_itself(tmp_path, "val2017", "captions")

    with pytest.raises(DatasetError, match=r"captions_val2017.json is not a COCO file: it has no list `cat"):
        read_labelled(tmp_path, "val")


def test_roboflow_s_category_of_the_project_is_no_class(tmp_path):
    write_image(tmp_path / "valid" / "a.png")
    categories = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animals"},
    ]
    annotation = {"id": 0, "image_id": 0, "category_id": 1, "bbox": [0, 0, 5, 5]}
    coco(tmp_path, [{"id": 0, "file_name": "a.png"}], [annotation], categories)

    assert read_labelled(tmp_path).class_names == ["cat"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("2 0.5 0.5 0.2 0.2", "there is no class 2; data.yaml names 2"),
        ("-1 0.5 0.5 0.2 0.2", "there is no class -1"),
        ("0.5 0.5 0.5 0.2 0.2", "there is no class 0.5"),
        ("cat 0.5 0.5 0.2 0.2", "is not a row of numbers"),
        ("0 0.5 0.5", "has no box"),
        ("0 nan 0.5 0.2 0.2", "has no box"),
        ("0 0.5 0.5 -0.2 0.2", "has a negative size"),
        ("0 2.5 0.5 0.2 0.2", "has no area in the image and is left out"),
    ],
)
def test_a_bad_row_of_yolo_is_named_with_its_line_and_the_rest_is_read(tmp_path, row, problem):
    yolo(tmp_path, GOOD_ROW, row, "", GOOD_ROW)

    dataset = read_labelled(tmp_path)

    assert len(dataset.images[0].boxes) == 2
    (text,) = problems(dataset)
    assert text.startswith("a.txt, line 2: ")
    assert problem in text


def test_rows_of_segmentations_are_read_as_their_boxes(tmp_path):
    yolo(tmp_path, "1 0.1 0.1 0.5 0.2 0.3 0.9", "1 0.5 0.5 0.2 0.2 0.9")

    dataset = read_labelled(tmp_path)

    np.testing.assert_allclose(dataset.images[0].boxes, [[6, 4, 30, 36], [24, 16, 36, 24]])
    assert problems(dataset) == []


ANNOTATION = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"category_id": 9}, "there is no category with the id 9"),
        ({"image_id": 9}, "there is no image with the id 9"),
        ({"category_id": None}, "there is no category with the id None"),
        ({"bbox": [1, 2, 3]}, "`bbox` is [1, 2, 3], not four numbers"),
        ({"bbox": [1, 2, -3, 4]}, "`bbox` is [1, 2, -3, 4], not four numbers"),
        ({"bbox": ["a", 2, 3, 4]}, '`bbox` is ["a", 2, 3, 4], not four numbers'),
        ({"bbox": None}, "`bbox` is null, not four numbers"),
        ({"bbox": 7}, "`bbox` is 7, not four numbers"),
        ({"bbox": {"x": 1}}, '`bbox` is {"x": 1}, not four numbers'),
        ({"bbox": list(range(100))}, "..., not four numbers"),
        ({"bbox": [10**400, 2, 3, 4]}, "not four numbers"),
        (
            {"bbox": [50, 2, 30, 4]},
            "the box (50, 2, 80, 6) is clipped to the image, which has 60 x 40 pixels",
        ),
        ({"bbox": [70, 2, 30, 4]}, "has no area in the image and is left out"),
    ],
)
def test_a_bad_annotation_of_coco_is_named_with_its_index_and_the_rest_is_read(tmp_path, change, problem):
    write_image(tmp_path / "valid" / "a.png")
    image_entry = {"id": 1, "file_name": "a.png"}
    coco(tmp_path, [image_entry], [ANNOTATION, ANNOTATION | change], [{"id": 1, "name": "cat"}])

    dataset = read_labelled(tmp_path)

    assert len(dataset.images[0].boxes) == 1 + ("clipped" in problem)
    (text,) = problems(dataset)
    assert text.startswith("_annotations.coco.json, annotations[1]: ")
    assert problem in text


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (7, "it is no object"),
        (None, "it is no object"),
        ({}, "it has no `image_id`"),
        ({"image_id": 1}, "it has no `category_id`"),
        ({"image_id": 1, "category_id": 1}, "it has no `bbox`"),
    ],
)
def test_an_annotation_that_lacks_something_is_named(tmp_path, entry, problem):
    write_image(tmp_path / "valid" / "a.png")
    coco(tmp_path, [{"id": 1, "file_name": "a.png"}], [ANNOTATION, entry], [{"id": 1, "name": "cat"}])

    (text,) = problems(read_labelled(tmp_path))

    assert text.startswith(f"_annotations.coco.json, annotations[1]: left out: {problem}")


@pytest.mark.parametrize(
    "entry", [{}, {"id": 2, "file_name": "../../secret.png"}, {"id": 2, "file_name": 3}, 7]
)
def test_a_bad_image_of_coco_is_named(tmp_path, entry):
    write_image(tmp_path / "valid" / "a.png")
    write_image(tmp_path.parent / "secret.png")
    coco(tmp_path, [{"id": 1, "file_name": "a.png"}, entry], [ANNOTATION], [{"id": 1, "name": "cat"}])

    dataset = read_labelled(tmp_path)

    assert len(dataset.images) == 1
    assert problems(dataset)[0].startswith("_annotations.coco.json, images[1]: left out")


@pytest.mark.parametrize(
    ("objects", "problem"),
    [
        (voc_object("", 1, 1, 5, 5), "object 2: left out: it has no name"),
        (voc_object("cat", 1, 1, "x", 5), "object 2: left out: its corners are"),
        (voc_object("cat", 5, 1, 1, 5), "object 2: left out: its corners are"),
        ("<object><name>cat</name></object>", "object 2: left out: its corners are"),
        (voc_object("cat", 1, 1, 500, 5), "object 2: the box (0, 0, 500, 5) is clipped"),
    ],
)
def test_a_bad_object_of_pascal_voc_is_named_and_the_rest_is_read(tmp_path, objects, problem):
    pascal_voc(tmp_path, voc_object("cat", 1, 1, 10, 20), objects)

    dataset = read_labelled(tmp_path)

    assert dataset.images[0].boxes[0].tolist() == [0, 0, 10, 20]
    assert problem in problems(dataset)[0]


@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("pascal_voc", b"<a"),
        ("pascal_voc", b""),
        ("pascal_voc", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'),
        ("pascal_voc", b'<?xml version="1.0" encoding="no-such"?><a/>'),
        ("yolo", b"0 0.5 0.5 0.2 0.2\xff"),
        ("yolo", "0 0.5 0.5 0.2 0.2".encode("utf-16")),
        ("yolo", None),
    ],
)
def test_an_image_whose_labels_cannot_be_read_is_left_out_and_named(tmp_path, format, content):
    if format == "yolo":
        image_file, file = "valid/images/b.png", tmp_path / "valid" / "labels" / "b.txt"
        yolo(tmp_path, GOOD_ROW)
    else:
        image_file, file = "valid/b.png", tmp_path / "valid" / "b.xml"
        pascal_voc(tmp_path, voc_object("cat", 1, 1, 10, 20))
    write_image(tmp_path / image_file)
    file.mkdir() if content is None else file.write_bytes(content)

    dataset = read_labelled(tmp_path)

    assert [one.path.name for one in dataset.images] == ["a.png"]
    (text,) = problems(dataset)
    assert text.startswith(f"{file.name}, : its image is left out: ")


@pytest.mark.parametrize("is_original_layout", [True, False])
def test_an_image_of_pascal_voc_without_xml_is_not_labelled(tmp_path, is_original_layout):
    images = tmp_path / ("JPEGImages" if is_original_layout else "valid")
    for name in "abc":
        write_image(images / f"{name}.png")
    write_text(tmp_path / "ImageSets" / "Main" / "valid.txt", "\ufeffa", "b", "c")
    labels = tmp_path / ("Annotations" if is_original_layout else "valid")
    write_text(labels / "a.xml", "<a>", voc_object("cat", 1, 1, 10, 20), "</a>")
    write_text(labels / "b.xml", "<a/>")

    dataset = read_labelled(tmp_path)

    assert [(one.path.name, len(one.boxes)) for one in dataset.images] == [("a.png", 1), ("b.png", 0)]
    assert problems(dataset) == ["c.png, : left out: it has no XML file, so it is not labelled"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_byte_order_mark_hides_no_label(tmp_path, format):
    if format == "yolo":
        files = [yolo(tmp_path, GOOD_ROW, GOOD_ROW), tmp_path / "data.yaml"]
    elif format == "coco":
        write_image(tmp_path / "valid" / "a.png")
        images, categories = [{"id": 1, "file_name": "a.png"}], [{"id": 1, "name": "cat"}]
        files = [coco(tmp_path, images, [ANNOTATION] * 2, categories)]
    else:
        files = [pascal_voc(tmp_path, *[voc_object("cat", 1, 1, 10, 20)] * 2)]
    for file in files:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())

    dataset = read_labelled(tmp_path)

    assert len(dataset.images[0].boxes) == 2
    assert problems(dataset) == []


def test_a_list_of_images_with_a_byte_order_mark(tmp_path):
    yolo(tmp_path, GOOD_ROW)
    write_text(tmp_path / "data.yaml", "names: [cat]", "valid: list.txt")
    write_text(tmp_path / "list.txt", "\ufeffvalid/images/a.png")

    assert len(read_labelled(tmp_path).images) == 1
    (tmp_path / "list.txt").write_bytes(b"\xff")
    with pytest.raises(DatasetError, match=r"list.txt cannot be read: it is not text in UTF-8"):
        read_labelled(tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        "[one, one/images]",
        "[one/images, one/images]",
        "[one/images, one/../one/images/]",
        "[one/images, list.txt]",
        "list.txt",
    ],
)
def test_an_image_of_yolo_that_is_named_twice_is_read_once(tmp_path, value):
    write_text(tmp_path / "data.yaml", "names: [cat]", f"val: {value}")
    write_image(tmp_path / "one" / "images" / "a.png")
    write_text(tmp_path / "one" / "labels" / "a.txt", GOOD_ROW)
    write_text(tmp_path / "list.txt", "one/images/a.png", "./one/images/a.png")

    assert len(read_labelled(tmp_path).images) == 1


def test_an_image_of_pascal_voc_that_is_listed_twice_is_read_once(tmp_path):
    write_image(tmp_path / "JPEGImages" / "a.png")
    write_text(tmp_path / "ImageSets" / "Main" / "val.txt", "a", "a -1")
    write_text(tmp_path / "Annotations" / "a.xml", "<a>", voc_object("cat", 1, 1, 10, 20), "</a>")

    assert len(read_labelled(tmp_path).images) == 1


def test_a_file_of_coco_that_two_images_have_is_read_once_and_named(tmp_path):
    write_image(tmp_path / "valid" / "a.png")
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "./a.png"}]
    coco(tmp_path, images, [ANNOTATION], [{"id": 1, "name": "cat"}])

    dataset = read_labelled(tmp_path)

    assert [len(image.boxes) for image in dataset.images] == [1]
    assert "another image has its file './a.png'" in problems(dataset)[0]


@pytest.mark.parametrize("value", ["[one/images]", "[one/images, two/images]", "[../one/images, no_such]"])
def test_several_folders_of_a_split_of_yolo(tmp_path, value):
    write_text(tmp_path / "data.yaml", "names: [cat]", f"val: {value}")
    for name in ("one", "two"):
        write_image(tmp_path / name / "images" / "a.png")
        write_text(tmp_path / name / "labels" / "a.txt", GOOD_ROW)

    assert len(read_labelled(tmp_path).images) == 1 + ("two" in value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "it has no name"),
        (" ", "it has no name"),
        (None, "it has no name"),
        ("x" * 257, "its name has 257 characters; at most 256 are possible"),
    ],
)
@pytest.mark.parametrize("format", FORMATS)
def test_a_class_whose_name_cannot_be_one_is_left_out_and_named(tmp_path, format, name, problem):
    if format == "yolo":
        place = "data.yaml, class 0"
        yolo(tmp_path, GOOD_ROW, "1 0.5 0.5 0.2 0.2", names=(name, "dog"))
    elif format == "coco":
        place = "_annotations.coco.json, categories[0]"
        write_image(tmp_path / "valid" / "a.png")
        categories = [{"id": 1, "name": name}, {"id": 2, "name": "dog"}]
        annotations = [ANNOTATION, ANNOTATION | {"category_id": 2}]
        coco(tmp_path, [{"id": 1, "file_name": "a.png"}], annotations, categories)
    else:
        place = "a.xml, object 1"
        pascal_voc(tmp_path, voc_object(name or "", 1, 1, 10, 20), voc_object("dog", 1, 1, 10, 20))

    dataset = read_labelled(tmp_path)

    assert dataset.class_names == ["dog"]
    assert dataset.images[0].class_ids.tolist() == [0]
    assert problems(dataset)[0].startswith(f"{place}: left out: {problem}")


def test_the_place_of_a_double_category_is_its_own(tmp_path):
    write_image(tmp_path / "valid" / "a.png")
    names = ["animals", None, "cat", " cat"]
    categories = [{"id": index, "name": name, "supercategory": "animals"} for index, name in enumerate(names)]
    categories[0]["supercategory"] = "none"
    annotation = ANNOTATION | {"category_id": 3}
    coco(tmp_path, [{"id": 1, "file_name": "a.png"}], [annotation], categories)

    assert [text.partition(": ")[0] for text in problems(read_labelled(tmp_path))] == [
        "_annotations.coco.json, categories[1]",
        "_annotations.coco.json, categories[3]",
    ]


def test_missing_and_unreadable_images_are_named(tmp_path):
    yolo(tmp_path, GOOD_ROW)
    write_text(tmp_path / "valid" / "images" / "b.png", "not an image")
    write_text(tmp_path / "valid" / "labels" / "c.txt", GOOD_ROW)

    dataset = read_labelled(tmp_path)

    assert [one.path.name for one in dataset.images] == ["a.png"]
    assert [text.partition(":")[0] for text in problems(dataset)] == ["b.png, ", "c.txt, "]


def test_images_that_coco_and_pascal_voc_name_and_that_are_missing(tmp_path):
    write_image(tmp_path / "coco" / "valid" / "a.png")
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    coco(tmp_path / "coco", images, [ANNOTATION], [{"id": 1, "name": "cat"}])
    pascal_voc(tmp_path / "voc", voc_object("cat", 1, 1, 10, 20))
    write_text(tmp_path / "voc" / "valid" / "b.xml", "<a/>")

    for folder in ("coco", "voc"):
        (text,) = problems(read_labelled(tmp_path / folder))
        assert "there is no such file" in text


def test_classes_of_one_name_are_one_class_and_are_named(tmp_path):
    yolo(tmp_path, GOOD_ROW, "1 0.5 0.5 0.2 0.2", "2 0.5 0.5 0.2 0.2", names=("cat", " cat", "dog"))

    dataset = read_labelled(tmp_path)

    assert dataset.class_names == ["cat", "dog"]
    assert dataset.images[0].class_ids.tolist() == [0, 0, 1]
    assert problems(dataset) == ["data.yaml, class 1: there is another class 'cat'; both count as one"]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_an_image_that_exif_turns_has_the_size_of_its_decoded_pixels(tmp_path, suffix, orientation):
    yolo(tmp_path, GOOD_ROW)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "valid" / "images" / "a.png").unlink()
    file = tmp_path / "valid" / "images" / f"a.{suffix}"
    Image.new("RGB", (60, 40)).save(file, exif=exif)

    (one,) = read_labelled(tmp_path).images

    assert (one.height, one.width) == decode_image(file.read_bytes()).shape[:2]
    np.testing.assert_allclose(one.boxes[0], np.multiply([0.4, 0.4, 0.6, 0.6], [one.width, one.height] * 2))


@pytest.mark.parametrize("format", FORMATS)
def test_a_split_without_labels_is_an_error(tmp_path, format):
    if format == "coco":
        write_image(tmp_path / "valid" / "a.png")
        coco(tmp_path, [{"id": 1, "file_name": "a.png"}], [], [{"id": 1, "name": "cat"}])
    elif format == "yolo":
        yolo(tmp_path)
    else:
        pascal_voc(tmp_path)

    with pytest.raises(DatasetError, match=r"the split 'valid' of .* has no labels"):
        read_labelled(tmp_path, "valid", format)


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}', "[" * 100_000])
def test_a_file_that_is_not_coco_is_an_error(tmp_path, content):
    write_text(tmp_path / "valid" / "_annotations.coco.json", content)

    with pytest.raises(DatasetError, match=r"is not (JSON|a COCO file)"):
        read_labelled(tmp_path)


@pytest.mark.parametrize(
    "content", ["names: [", "names: 3", "- a", "names: {0: a, b: c}", "names: {999999999: a}"]
)
def test_a_data_yaml_without_classes_is_an_error(tmp_path, content):
    yolo(tmp_path, GOOD_ROW)
    write_text(tmp_path / "data.yaml", content)

    with pytest.raises(DatasetError, match=r"data.yaml (is not YAML|has no list `names`)"):
        read_labelled(tmp_path)


def test_a_folder_that_is_no_dataset_is_an_error_that_lists_its_folders(tmp_path):
    yolo(tmp_path, GOOD_ROW, split="train")

    with pytest.raises(DatasetError, match="labels of the split 'test'; its folders are: train"):
        read_labelled(tmp_path, "test")
    with pytest.raises(DatasetError, match="is not a folder"):
        read_labelled(Path(tmp_path / "no_such"))
    with pytest.raises(DatasetError, match="is not a pascal_voc dataset"):
        read_labelled(tmp_path, "train", "pascal_voc")


def test_a_hundred_thousand_annotations_on_one_image(tmp_path):
    write_image(tmp_path / "valid" / "a.png")
    annotations = [ANNOTATION | {"id": number} for number in range(100_000)]
    coco(tmp_path, [{"id": 1, "file_name": "a.png"}], annotations, [{"id": 1, "name": "cat"}])

    assert len(read_labelled(tmp_path).images[0].boxes) == 100_000


def test_rows_of_yolo_with_key_points_are_read_as_their_boxes(tmp_path):
    yolo(tmp_path, GOOD_ROW + " 0.1 0.1 0.9 0.9 0.2 0.2")
    with (tmp_path / "data.yaml").open("a") as file:
        file.write("\nkpt_shape: [3, 2]")

    (one,) = read_labelled(tmp_path).images

    np.testing.assert_allclose(one.boxes, [[24, 16, 36, 24]], atol=1e-6)


@pytest.mark.parametrize("names", ["{0: cat, 1: dog}", "{0.0: cat, 1.0: dog}", '{"0": cat, "1": dog}'])
def test_numbers_of_the_classes_of_yolo(tmp_path, names):
    yolo(tmp_path, "1 0.5 0.5 0.2 0.2")
    write_text(tmp_path / "data.yaml", f"names: {names}")

    assert read_labelled(tmp_path).class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    "names", ["{0.5: cat}", "{true: cat}", "{-1: cat}", "{a: cat}", "{[1]: cat}", "{~: a}"]
)
def test_classes_of_yolo_without_numbers_are_an_error(tmp_path, names):
    yolo(tmp_path, GOOD_ROW)
    write_text(tmp_path / "data.yaml", f"names: {names}")

    with pytest.raises(DatasetError, match=r"data\.yaml"):
        read_labelled(tmp_path)


def test_a_list_of_images_with_lines_that_are_no_files(tmp_path):
    yolo(tmp_path, GOOD_ROW)
    write_text(tmp_path / "data.yaml", "names: [cat]", "valid: list.txt")
    write_text(tmp_path / "list.txt", "valid/images/a.png", "/", "..", "a\0b.png", "x" * 5000)

    assert [image.path.name for image in read_labelled(tmp_path).images] == ["a.png"]


@pytest.mark.parametrize("split", ["*", "[", "..", "a\0b"])
def test_the_name_of_a_split_is_no_pattern(tmp_path, split):
    (tmp_path / "annotations").mkdir()
    yolo(tmp_path, GOOD_ROW)
    write_text(tmp_path / "annotations" / "instances_valid.json", "{}")

    with pytest.raises(DatasetError, match="labels of the split"):
        read_labelled(tmp_path, split)


@pytest.mark.parametrize("kind", ["image", "labels"])
def test_pipes_are_not_waited_for(tmp_path, kind):
    labels = yolo(tmp_path, GOOD_ROW)
    write_image(tmp_path / "valid" / "images" / "b.png")
    place = labels.with_name("b.txt") if kind == "labels" else tmp_path / "valid" / "images" / "b.png"
    place.unlink(missing_ok=True)
    os.mkfifo(place)

    dataset = read_labelled(tmp_path)

    assert [image.path.name for image in dataset.images] == ["a.png"]
    assert "no regular file" in problems(dataset)[0]


def test_ids_of_coco_that_are_floats(tmp_path):
    write_image(tmp_path / "valid" / "a.png")
    annotation = ANNOTATION | {"image_id": 1.0, "category_id": 1.0}
    coco(tmp_path, [{"id": 1, "file_name": "a.png"}], [annotation], [{"id": 1.0, "name": "cat"}])

    dataset = read_labelled(tmp_path)

    assert [len(image.boxes) for image in dataset.images] == [1]
    assert problems(dataset) == []


def test_a_parent_category_of_coco_with_boxes_is_a_class(tmp_path):
    write_image(tmp_path / "valid" / "a.png")
    categories = [
        {"id": 0, "name": "vehicle", "supercategory": "none"},
        {"id": 1, "name": "car", "supercategory": "vehicle"},
    ]
    annotations = [ANNOTATION, ANNOTATION | {"id": 2, "category_id": 0}]
    coco(tmp_path, [{"id": 1, "file_name": "a.png"}], annotations, categories)

    dataset = read_labelled(tmp_path)

    assert dataset.class_names == ["vehicle", "car"]
    assert [len(image.boxes) for image in dataset.images] == [2]


@pytest.mark.parametrize(
    ("iscrowd", "is_crowd"), [(0, False), (1, True), ("0", False), ("1", True), (True, True), (None, False)]
)
def test_crowds_of_coco(tmp_path, iscrowd, is_crowd):
    write_image(tmp_path / "valid" / "a.png")
    annotations = [ANNOTATION, ANNOTATION | {"id": 2, "iscrowd": iscrowd}]
    coco(tmp_path, [{"id": 1, "file_name": "a.png"}], annotations, [{"id": 1, "name": "cat"}])

    (one,) = read_labelled(tmp_path).images

    assert one.is_crowd.tolist() == [False, is_crowd]


@pytest.mark.parametrize("name", ["a\0.png", "\ud800.png", "x" * 5000])
def test_a_name_of_coco_that_no_file_can_have_is_named(tmp_path, name):
    write_image(tmp_path / "valid" / "a.png")
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": name}]
    coco(tmp_path, images, [ANNOTATION], [{"id": 1, "name": "cat"}])

    dataset = read_labelled(tmp_path)

    assert [image.path.name for image in dataset.images] == ["a.png"]
    assert len(dataset.problems) == 1
