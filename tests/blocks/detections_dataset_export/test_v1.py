"""The export block in Inference's engine, and by itself where the server's settings matter."""

import base64
import contextlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import supervision as sv
from inference.core.workflows.errors import ClientCausedStepExecutionError, RuntimeInputError, WorkflowError
from inference.core.workflows.execution_engine.entities.base import ImageParentMetadata, WorkflowImageData

from tests.datasets.samples import load
from tests.scenes import image_bgr
from tests.workflows.definitions import detection_step, workflow
from workflow_blocks.blocks.detections_dataset_export.v1 import DetectionsDatasetExportBlockV1
from workflow_blocks.datasets import atomic_files, file_changes
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.formats import FORMATS
from workflow_blocks.prompt_text import normalized_prompt


def export_step(**fields):
    return {
        "type": "workflow_blocks/detections_dataset_export@v1",
        "name": "export",
        "images": "$inputs.image",
        "predictions": "$steps.detection.predictions",
        "target_directory": "$inputs.target_directory",
    } | fields


def export_workflow(inputs=("target_directory",), **fields):
    return workflow(
        detection_step(prompts=["red circle", "star", "square"]),
        export_step(**fields),
        inputs=inputs,
        outputs={"predictions": "$steps.detection.predictions"}
        | {
            name: f"$steps.export.{name}"
            for name in ("error_status", "throttling_status", "message", "image_path")
        },
    )


@pytest.mark.parametrize("format", FORMATS)
def test_a_batch_becomes_a_dataset(run_workflow, tmp_path, format):
    images = [image_bgr(number) for number in range(4)]

    for _ in range(2):
        results = run_workflow(
            export_workflow(format=format), image=images, target_directory=str(tmp_path / "set")
        )

    assert [result["error_status"] for result in results] == [False] * 4
    folder = tmp_path / "set" / "train"
    if format == "coco":
        dataset = sv.DetectionDataset.from_coco(str(folder), str(folder / "_annotations.coco.json"))
    elif format == "yolo":
        dataset = sv.DetectionDataset.from_yolo(
            str(folder / "images"), str(folder / "labels"), str(tmp_path / "set" / "data.yaml")
        )
    else:
        dataset = sv.DetectionDataset.from_pascal_voc(str(folder), str(folder))
    assert len(dataset) == 4
    assert sum(len(result["predictions"]) for result in results) > 0
    found = {Path(path).name: detections for path, _, detections in dataset}
    for result in results:
        detections = found[Path(result["image_path"]).name]
        np.testing.assert_allclose(detections.xyxy, result["predictions"].xyxy, atol=1)
        names = [dataset.classes[class_id] for class_id in detections.class_id]
        assert names == result["predictions"]["class_name"].tolist()


@pytest.mark.parametrize("include", [True, False])
def test_images_without_detections_are_written_if_wanted(run_workflow, tmp_path, include):
    blank = np.full((64, 64, 3), 128, np.uint8)

    (result,) = run_workflow(
        export_workflow(include_images_without_detections=include),
        image=blank,
        target_directory=str(tmp_path),
    )

    assert result["error_status"] is False
    assert bool(result["image_path"]) is include
    assert len(list(tmp_path.rglob("*.jpg"))) == int(include)


def test_png_keeps_every_pixel(run_workflow, tmp_path):
    import cv2

    (result,) = run_workflow(
        export_workflow(image_format="png"), image=image_bgr(0), target_directory=str(tmp_path)
    )

    np.testing.assert_array_equal(cv2.imread(result["image_path"]), image_bgr(0))


def test_shares_split_a_dataset(run_workflow, tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(40)]

    run_workflow(
        export_workflow(split={"train": 0.5, "valid": 0.5}), image=images, target_directory=str(tmp_path)
    )

    counts = {split: len(list((tmp_path / split).glob("*.jpg"))) for split in ("train", "valid")}
    assert sum(counts.values()) == 40
    assert min(counts.values()) > 8


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"target_directory": " "}, "target_directory"),
        ({"target_directory": "a\x00b"}, "target_directory"),
        ({"format": "pickle"}, "format"),
        ({"split": "dev"}, "split"),
        ({"split": {"train": -1}}, "split"),
        ({"split": {"train": 0}}, "split"),
        ({"split": {}}, "split"),
        ({"class_names": []}, "class_names"),
        ({"class_names": ["a", "\x07"]}, "class_names"),
        ({"class_names": ["\ud800"]}, "class_names"),
        ({"target_directory": "~nosuchuser/x"}, "target_directory"),
        ({"class_names": [""]}, "class_names"),
        ({"jpeg_quality": 0}, "jpeg_quality"),
        ({"cooldown_seconds": -1}, "cooldown_seconds"),
    ],
)
def test_an_invalid_definition_is_refused(run_workflow, tmp_path, fields, field):
    with pytest.raises(WorkflowError) as caught:
        run_workflow(export_workflow(**fields), image=image_bgr(0), target_directory=str(tmp_path))

    assert field in str(caught.value.inner_error)


@pytest.mark.parametrize(
    ("name", "value"), [("split", "dev"), ("quality", 0), ("class_names", ["a", "\x00"])]
)
def test_an_invalid_input_is_refused(run_workflow, tmp_path, name, value):
    fields = {
        "split": "$inputs.split",
        "jpeg_quality": "$inputs.quality",
        "class_names": "$inputs.class_names",
    }
    values = {"split": "train", "quality": 90, "class_names": ["star", "red circle", "square"]} | {
        name: value
    }

    with pytest.raises((RuntimeInputError, ClientCausedStepExecutionError)):
        run_workflow(
            export_workflow(inputs=("target_directory", *values), **fields),
            image=image_bgr(0),
            target_directory=str(tmp_path),
            **values,
        )

    assert not list(tmp_path.iterdir())


def make_block(allowed=None, access=True, disabled=False, background=None, pool=None):
    return DetectionsDatasetExportBlockV1(access, allowed, background, pool, disabled)


def run_block(
    block, target, boxes=((1, 2, 30, 20),), names=("star",), image=None, predictions=None, **fields
):
    image = image or WorkflowImageData(
        parent_metadata=ImageParentMetadata(parent_id="image"), numpy_image=image_bgr(0)
    )
    predictions = predictions or sv.Detections(
        xyxy=np.array(boxes, dtype=float).reshape(-1, 4), data={"class_name": np.array(names, dtype=object)}
    )
    values = {
        "format": "coco",
        "split": "train",
        "class_names": None,
        "image_format": "jpg",
        "jpeg_quality": 90,
        "include_images_without_detections": True,
        "fire_and_forget": False,
        "disable_sink": False,
        "cooldown_seconds": 0,
    } | fields
    return block.run(images=image, predictions=predictions, target_directory=str(target), **values)


def test_the_allowed_folder_may_be_written(tmp_path):
    result = run_block(make_block(str(tmp_path)), tmp_path / "a" / "b")

    assert result["error_status"] is False
    assert result["image_path"].startswith(str(tmp_path / "a" / "b"))


@pytest.mark.parametrize(
    "target",
    [
        *("../outside", "a/../../outside", "{root}/outside", "link/set", "../allowed_outside"),
        *("loop", "loop/set", "loop/../link/set", "a/loop2/../../link/set"),
    ],
)
def test_nothing_is_written_outside_the_allowed_folder(tmp_path, monkeypatch, target):
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    allowed.mkdir()
    outside.mkdir()
    (tmp_path / "allowed_outside").mkdir()
    (allowed / "link").symlink_to(outside)
    (allowed / "a").mkdir()
    for loop in ("loop", "a/loop2"):
        (allowed / loop).symlink_to(allowed / loop)
    monkeypatch.chdir(allowed)

    result = run_block(make_block(str(allowed)), target.format(root=tmp_path))

    assert result["error_status"] is True
    assert "link to itself" in result["message"] if "loop" in target else "outside" in result["message"]
    assert not list(outside.iterdir())
    assert not list((tmp_path / "allowed_outside").iterdir())


@pytest.mark.parametrize(
    "failure", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")]
)
def test_a_folder_that_is_not_writable_is_reported(tmp_path, monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(atomic_files.tempfile, "mkstemp", fail)

    result = run_block(make_block(), tmp_path)

    assert result["error_status"] is True
    assert failure.strerror in result["message"]


@pytest.mark.parametrize("tail", ["a/" * 1200, "a/" * 3000, "a" * 300, f"{'a' * 100}/" * 5])
def test_a_path_that_is_too_long_is_reported(tmp_path, tail):
    result = run_block(make_block(), tmp_path / tail)

    assert result["error_status"] is True
    assert "long" in result["message"]
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_is_reported(tmp_path):
    (tmp_path / "file").touch()

    result = run_block(make_block(), tmp_path / "file" / "set")

    assert result["error_status"] is True
    assert "file" in result["message"]


def test_a_server_without_file_access_refuses(tmp_path):
    with pytest.raises(ClientCausedStepExecutionError, match="ALLOW_WORKFLOW_BLOCKS_ACCESSING_LOCAL_STORAGE"):
        run_block(make_block(access=False), tmp_path)


@pytest.mark.parametrize("by", ["server", "definition"])
def test_a_disabled_sink_writes_nothing(tmp_path, by):
    result = run_block(make_block(disabled=by == "server"), tmp_path / "set", disable_sink=by == "definition")

    assert result["error_status"] is False
    assert "disabled" in result["message"]
    assert not (tmp_path / "set").exists()


def test_cooldown_limits_how_often_images_are_written(tmp_path):
    block = make_block()

    results = [run_block(block, tmp_path, cooldown_seconds=60) for _ in range(2)]

    assert [result["throttling_status"] for result in results] == [False, True]


def test_an_image_that_is_not_written_starts_no_cooldown(tmp_path):
    block = make_block()
    fields = {"cooldown_seconds": 60, "include_images_without_detections": False}
    (tmp_path / "file").touch()

    left_out = run_block(block, tmp_path / "set", boxes=(), names=(), **fields)
    failed = run_block(block, tmp_path / "file" / "set", **fields)
    with ThreadPoolExecutor(1) as pool:
        block._thread_pool_executor = pool
        later = run_block(block, tmp_path / "set", boxes=(), names=(), fire_and_forget=True, **fields)
    written = run_block(block, tmp_path / "set", **fields)

    assert [one["throttling_status"] for one in (left_out, failed, later, written)] == [False] * 4
    assert failed["error_status"] is True
    assert written["image_path"]


def test_fire_and_forget_writes_in_the_background(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        result = run_block(make_block(pool=pool), tmp_path, fire_and_forget=True)

    assert result["image_path"] == ""
    document = json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())
    assert len(document["annotations"]) == 1


def test_fire_and_forget_takes_the_tasks_of_a_server_where_there_are_some(tmp_path):
    tasks = []
    background = SimpleNamespace(add_task=tasks.append)

    result = run_block(make_block(background=background), tmp_path, fire_and_forget=True)

    assert result["image_path"] == ""
    assert not list(tmp_path.rglob("*.jpg"))
    (write,) = tasks
    assert write()["image_path"] == str(*tmp_path.rglob("*.jpg"))


def test_an_image_that_has_no_detections_any_more_leaves(tmp_path):
    block = make_block()
    run_block(block, tmp_path)

    run_block(block, tmp_path, boxes=(), names=(), include_images_without_detections=False)

    assert not list(tmp_path.rglob("*.jpg"))
    assert json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())["images"] == []


def test_a_lower_quality_makes_a_smaller_file(tmp_path):
    sizes = [
        Path(run_block(make_block(), tmp_path / str(quality), jpeg_quality=quality)["image_path"])
        .stat()
        .st_size
        for quality in (20, 95)
    ]

    assert 2 * sizes[0] < sizes[1]


def test_boxes_are_clipped_to_the_image(tmp_path):
    height, width = image_bgr(0).shape[:2]
    boxes = ((-5, -5, 10, 10), (width - 4, 3, width + 50, height + 9), (-9, -9, -1, -1))

    run_block(make_block(), tmp_path, boxes, ("a", "b", "c"))

    document = json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())
    assert [item["bbox"] for item in document["annotations"]] == [
        [0, 0, 10, 10],
        [width - 4, 3, 4, height - 3],
    ]
    assert [item["name"] for item in document["categories"]] == ["a", "b"]


@pytest.mark.parametrize("is_crop_of", ["the image", "another image"])
def test_boxes_that_were_found_on_a_crop_are_written_in_the_pixels_of_the_image(tmp_path, is_crop_of):
    whole = WorkflowImageData(ImageParentMetadata(parent_id="whole"), numpy_image=image_bgr(0))
    crop = WorkflowImageData.create_crop(whole, "crop", image_bgr(0)[100:, 50:], 50, 100)
    root = "whole" if is_crop_of == "the image" else "other"

    found = {}
    for name, image in (("whole", whole), ("crop", crop)):
        predictions = sv.Detections(
            xyxy=np.array([[1.0, 2, 30, 20]]),
            data={
                "class_name": np.array(["star"]),
                "root_parent_id": np.array([root]),
                "root_parent_coordinates": np.array([[50, 100]]),
            },
        )
        run_block(make_block(), tmp_path / name, image=image, predictions=predictions)
        ((boxes, _),) = load(tmp_path / name, "coco").values()
        found[name] = boxes[0].tolist()

    shift = [50, 100, 50, 100] if is_crop_of == "the image" else [0] * 4
    assert found == {
        "whole": [a + b for a, b in zip([1, 2, 30, 20], shift, strict=True)],
        "crop": [1, 2, 30, 20],
    }


@pytest.mark.parametrize("corner", range(4))
def test_a_box_that_is_not_a_number_is_the_clients_error(tmp_path, corner):
    run_block(make_block(), tmp_path)
    box = [1.0, 2, 30, 20]
    box[corner] = np.nan

    with pytest.raises(ClientCausedStepExecutionError, match="numbers"):
        run_block(make_block(), tmp_path, boxes=(box,), include_images_without_detections=False)

    assert len(load(tmp_path, "coco")) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_directory", "~nosuchuser/x"),
        ("target_directory", "~nosuchuser"),
        ("target_directory", "a\ud800"),
        ("class_names", ["star", "a\ud800"]),
        ("class_names", ["star", "a\x07b"]),
        ("class_names", "\x00"),
        ("class_names", ["star", "a\ufffe"]),
        ("image_name", 3),
    ],
)
def test_a_value_that_cannot_be_written_is_the_clients_error(tmp_path, name, value):
    fields = {"target": tmp_path} | {("target" if name == "target_directory" else name): value}

    with pytest.raises(ClientCausedStepExecutionError, match=name) as caught:
        run_block(make_block(), **fields)

    assert caught.value.status_code == 400
    assert not list(tmp_path.iterdir())


NAMES = [
    "\u0646\u06cc\u0645\u200c\u0641\u0627\u0635\u0644\u0647",
    "👩\u200d👩\u200d👧",
    "a\u3000b",
    "a\u00a0b",
    " star ",
    "naïve",
    "x" * 256,
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_names_are_taken_as_class_names_and_from_detections(tmp_path, format, name):
    folders = [tmp_path / "given", tmp_path / "found"]

    for folder, class_names in zip(folders, ([name, name], None), strict=True):
        result = run_block(make_block(), folder, names=(name,), class_names=class_names, format=format)
        assert result["error_status"] is False, result["message"]

    classes = [set(names) for folder in folders for _, names in load(folder, format).values()]
    assert classes == [{normalized_prompt(name)}] * 2


@pytest.mark.parametrize("name", ["a\x07b", "\x00", "\ud800", " ", ""])
@pytest.mark.parametrize("format", FORMATS)
def test_names_that_no_file_can_hold_are_refused_from_detections(tmp_path, format, name):
    with pytest.raises(ClientCausedStepExecutionError, match="predictions"):
        run_block(make_block(), tmp_path, names=(name,), format=format)

    assert not list(tmp_path.iterdir())


def test_a_string_is_one_class_name(tmp_path):
    result = run_block(make_block(), tmp_path, names=("star",), class_names=" star ")

    assert result["error_status"] is False


@pytest.mark.parametrize("data", [{}, {"class_name": np.array([None])}, {"class_name": np.array([np.nan])}])
def test_detections_without_class_names_are_the_clients_error(tmp_path, data):
    predictions = sv.Detections(xyxy=np.array([[1.0, 2, 30, 20]]), data=data)

    with pytest.raises(ClientCausedStepExecutionError, match="class_name"):
        run_block(make_block(), tmp_path, predictions=predictions)


def refused(tmp_path, kind):
    """A target that cannot be written, and fields."""
    target = tmp_path / "outside" if kind == "outside" else tmp_path / "set"
    if kind == "a file":
        target.touch()
    elif kind not in ("outside", "unknown class", "too long for JPEG"):
        run_block(make_block(), target)
    if kind == "edited":
        (target / "train" / "_annotations.coco.json").write_text("{}")
    elif kind == "linked split":
        (target / "valid").symlink_to("train")
    elif kind == "file in place of a split":
        (target / "valid").touch()
    long = np.zeros((2, 65_501, 3), np.uint8)
    fields = {
        "other format": {"format": "yolo"},
        "other classes": {"class_names": ["cat"]},
        "unknown class": {"class_names": ["cat"]},
        "linked split": {"split": "valid"},
        "file in place of a split": {"split": "valid"},
        "too long for JPEG": {
            "image": WorkflowImageData(ImageParentMetadata(parent_id="long"), numpy_image=long)
        },
    }
    return target, fields.get(kind, {})


@pytest.mark.parametrize(
    "kind",
    [
        *("outside", "a file", "other format", "other classes", "unknown class"),
        *("edited", "linked split", "file in place of a split", "too long for JPEG"),
    ],
)
def test_fire_and_forget_reports_what_can_be_checked(tmp_path, kind):
    target, fields = refused(tmp_path, kind)
    block = make_block(str(tmp_path / "set"), pool=True)

    result = run_block(block, target, fire_and_forget=True, **fields)

    assert result["error_status"] is True
    assert "Could not write" in result["message"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), RuntimeError("unforeseen")])
def test_fire_and_forget_logs_what_fails_later(tmp_path, monkeypatch, caplog, failure):
    tasks = []
    block = make_block(background=SimpleNamespace(add_task=tasks.append))

    result = run_block(block, tmp_path, fire_and_forget=True)
    monkeypatch.setattr(Dataset, "add", lambda *_: raise_(failure))
    with contextlib.suppress(RuntimeError):
        tasks[0]()

    assert result["error_status"] is False
    assert str(tmp_path) in caplog.text
    assert str(failure) in caplog.text


def raise_(error):
    raise error


@pytest.mark.parametrize("folder", ["train", "staged"])
def test_fire_and_forget_reports_a_folder_that_cannot_be_written(tmp_path, monkeypatch, folder):
    run_block(make_block(), tmp_path)
    if folder == "train":
        monkeypatch.setattr(file_changes.os, "access", lambda path, _: path.name != folder)
    else:
        failure = PermissionError(13, "Permission denied")
        monkeypatch.setattr(atomic_files.tempfile, "mkstemp", lambda **_: raise_(failure))

    result = run_block(make_block(pool=True), tmp_path, fire_and_forget=True)

    assert result["error_status"] is True


def test_fire_and_forget_changes_nothing_before_its_task_runs(tmp_path):
    tasks = []
    block = make_block(background=SimpleNamespace(add_task=tasks.append))

    run_block(block, tmp_path, fire_and_forget=True, names=("new class",))

    assert not [path for path in tmp_path.rglob("*") if path.is_file() and ".dataset" not in path.parts]
    run_block(make_block(), tmp_path, class_names=["star"])
    assert tasks[0]()["error_status"] is False


def test_files_and_annotations_have_the_names_of_the_images(tmp_path):
    names = ["day 1/räksmörgås.jpg", "day 1/räksmörgås.jpg", "renamed.png"]
    for name in names:
        path = Path(run_block(make_block(), tmp_path, image_name=name)["image_path"])
        document = json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())
        (entry,) = document["images"]
        assert path.name.startswith(f"{Path(name).stem}-")
        assert [entry["file_name"], entry["extra"]] == [path.name, {"name": name}]
        assert [found.name for found in tmp_path.rglob("*.jpg")] == [path.name]


@pytest.mark.parametrize("name", [*NAMES, "a\tb", "e\u0301.jpg", "\u202e.jpg"])
def test_annotations_and_tables_have_the_same_name(tmp_path, name):
    run_block(make_block(), tmp_path, image_name=name)

    document = json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())
    assert document["images"][0]["extra"] == {"name": name}


@pytest.mark.parametrize(
    "name",
    ["../../up.jpg", "/etc/passwd", "..", ".hidden", "a\x00b", "\ud800.jpg", "x" * 999, "a\\b.jpg", "*"],
)
@pytest.mark.parametrize("format", FORMATS)
def test_any_image_name_gives_a_file_in_the_dataset(tmp_path, format, name):
    result = run_block(make_block(), tmp_path / "set", image_name=name, format=format)

    assert result["error_status"] is False, result["message"]
    assert len(load(tmp_path / "set", format)) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "set"]
    assert not Path(result["image_path"]).name.startswith(".")


def encoded(suffix, image=None, **options):
    import cv2

    return cv2.imencode(suffix, image_bgr(0) if image is None else image, **options)[1].tobytes()


def sent(content):
    """An image as a client sends it, encoded."""
    import cv2

    return WorkflowImageData(
        parent_metadata=ImageParentMetadata(parent_id="image"),
        numpy_image=cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR),
        base64_image=base64.b64encode(content).decode(),
    )


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_image_that_came_in_the_right_format_is_kept_as_it_is(tmp_path, suffix):
    content = encoded(f".{suffix}")

    result = run_block(make_block(), tmp_path, image=sent(content), image_format=suffix)

    assert Path(result["image_path"]).read_bytes() == content


def rotated(content):
    from PIL import Image

    picture = Image.open(io.BytesIO(content))
    exif = picture.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif, quality="keep")
    return file.getvalue()


def changed(content):
    image = sent(content)
    image.numpy_image[5:9, 5:9] = 0
    return image


@pytest.mark.parametrize(
    ("image", "image_format"),
    [
        (lambda: sent(encoded(".png")), "jpg"),
        (lambda: sent(encoded(".jpg")), "png"),
        (lambda: sent(rotated(encoded(".jpg"))), "jpg"),
        (lambda: changed(encoded(".jpg")), "jpg"),
        (lambda: changed(encoded(".png")), "png"),
    ],
)
def test_other_images_are_encoded_again(tmp_path, image, image_format):
    import cv2

    image = image()

    result = run_block(make_block(), tmp_path, image=image, image_format=image_format)

    content = Path(result["image_path"]).read_bytes()
    assert content != base64.b64decode(image.base64_image)
    found = cv2.imread(result["image_path"])
    assert np.abs(found.astype(int) - image.numpy_image).mean() < 10


def test_an_image_too_long_for_jpeg_names_the_way_out(tmp_path):
    image = WorkflowImageData(
        parent_metadata=ImageParentMetadata(parent_id="image"), numpy_image=np.zeros((2, 65_501, 3), np.uint8)
    )

    results = [run_block(make_block(), tmp_path / f, image=image, image_format=f) for f in ("jpg", "png")]

    assert [result["error_status"] for result in results] == [True, False]
    assert "`image_format` to 'png'" in results[0]["message"]
