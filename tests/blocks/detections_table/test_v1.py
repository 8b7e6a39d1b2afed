import csv
import io
import json
from datetime import datetime

import numpy as np
import pytest
import supervision as sv
from inference.core.workflows.errors import ClientCausedStepExecutionError
from inference.core.workflows.execution_engine.entities.base import (
    ImageParentMetadata,
    VideoMetadata,
    WorkflowImageData,
)
from pydantic import ValidationError

from tests.scenes import image_bgr
from tests.workflows.definitions import detection_step, workflow
from workflow_blocks.blocks.detections_table.rows import (
    COLUMNS,
    detections_to_rows,
    rows_to_csv,
    rows_to_json_lines,
)
from workflow_blocks.blocks.detections_table.v1 import BlockManifest, DetectionsTableBlockV1

HEADER = "image_name,class_name,class_id,confidence,x_min,y_min,x_max,y_max\n"


@pytest.fixture
def detections():
    return sv.Detections(
        xyxy=np.array([[1.0, 2.004, 30.5, 40], [0, 0, 5, 5]]),
        class_id=np.array([1, 0]),
        confidence=np.array([0.87654, 1.0]),
        data={
            "class_name": np.array(['a "quoted", name', "b\nnewline"]),
            "root_parent_coordinates": np.array([[100, 200], [0, 0]]),
        },
    )


def test_rows_are_in_pixels_of_the_original_image(detections):
    first, second = detections_to_rows(detections, "photo.jpg")

    assert tuple(first) == COLUMNS
    assert list(first.values()) == ["photo.jpg", 'a "quoted", name', 1, 0.8765, 101.0, 202.0, 130.5, 240.0]
    assert list(second.values())[4:] == [0, 0, 5, 5]


ANSWERS = {
    "answer_helmet": np.array([True, None], object),
    "answer_helmet_probability": np.array([0.98765, None], object),
    "answer_tools": np.array([["a, b", 'c"'], []], object),
    "answer_note": np.array(['red, "big"', ""]),
}


def test_answers_are_columns(detections):
    detections.data |= ANSWERS

    rows = list(detections_to_rows(detections, "photo.jpg"))

    assert tuple(rows[0]) == COLUMNS + tuple(ANSWERS)
    assert list(rows[0].values())[len(COLUMNS) :] == [True, 0.9877, ["a, b", 'c"'], 'red, "big"']
    assert list(rows[1].values())[len(COLUMNS) :] == [None, None, [], ""]
    assert [json.loads(line) for line in rows_to_json_lines(rows).splitlines()] == rows
    read = list(csv.DictReader(io.StringIO(rows_to_csv(rows, tuple(rows[0])), newline="")))
    assert [row["answer_helmet"] for row in read] == ["true", ""]
    assert [json.loads(row["answer_tools"]) for row in read] == [["a, b", 'c"'], []]
    assert [row["answer_note"] for row in read] == ['red, "big"', ""]


def test_an_empty_table_has_the_columns_of_answers_too(detections):
    detections.data |= ANSWERS

    result = DetectionsTableBlockV1().run(detections[[]], None, "photo.jpg", "csv")

    assert result["content"] == f"{HEADER.strip()},{','.join(ANSWERS)}\n"


def test_csv_reads_back_names_with_any_characters(detections):
    text = rows_to_csv(list(detections_to_rows(detections, "photo.jpg")))

    assert text.startswith(HEADER)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["class_name"] for row in rows] == ['a "quoted", name', "b\nnewline"]
    assert [row["x_min"] for row in rows] == ["101.0", "0.0"]


def test_carriage_returns_do_not_break_rows_of_csv(detections):
    rows = list(detections_to_rows(detections, "a\rb\r\nc"))

    read = list(csv.DictReader(io.StringIO(rows_to_csv(rows), newline="")))

    assert {row["image_name"] for row in read} == {"a\nb\nc"}
    assert len(read) == len(detections)


def test_json_lines_read_back_with_their_types(detections):
    rows = list(detections_to_rows(detections, "фото.jpg"))

    lines = rows_to_json_lines(rows).splitlines()

    assert [json.loads(line) for line in lines] == rows


def test_without_detections_only_the_header_is_written():
    assert rows_to_csv([]) == HEADER
    assert rows_to_json_lines([]) == ""


@pytest.mark.parametrize(
    ("field", "value"), [("format", "xml"), ("predictions", "text"), ("image", "photo.jpg")]
)
def test_a_bad_field_is_refused(field, value):
    fields = {"type": "workflow_blocks/detections_table@v1", "name": "t", "predictions": "$steps.a.p"}

    with pytest.raises(ValidationError, match=field):
        BlockManifest.model_validate(fields | {field: value})


def table_workflow(**fields):
    table = {
        "type": "workflow_blocks/detections_table@v1",
        "name": "table",
        "predictions": "$steps.detection.predictions",
    } | fields
    return workflow(
        detection_step(),
        table,
        inputs=("prompts", "image_name"),
        outputs={"content": "$steps.table.content", "predictions": "$steps.detection.predictions"},
    )


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_batch_gives_a_table_for_each_image(run_workflow):
    images = [image_bgr(0), np.full((100, 100, 3), 255, np.uint8)]

    results = run_workflow(
        table_workflow(image="$inputs.image"), image=images, prompts="shape", image_name=None
    )

    assert results[1]["content"] == HEADER
    rows = read_csv(results[0]["content"])
    xyxy = results[0]["predictions"].xyxy
    assert len(rows) == len(xyxy) > 0
    found = [[float(row[name]) for name in COLUMNS[4:]] for row in rows]
    np.testing.assert_allclose(found, xyxy, atol=0.01)
    assert {row["image_name"] for row in rows} == {"image.[0]"}


@pytest.mark.parametrize("with_image", [True, False])
def test_a_given_image_name_is_written(run_workflow, with_image):
    fields = {"image": "$inputs.image"} if with_image else {}

    (result,) = run_workflow(
        table_workflow(image_name="$inputs.image_name", format="jsonl", **fields),
        image=image_bgr(0),
        prompts="shape",
        image_name="photo.jpg",
    )

    rows = [json.loads(line) for line in result["content"].splitlines()]
    assert rows
    assert {row["image_name"] for row in rows} == {"photo.jpg"}


def test_detections_in_crops_are_written_in_the_image(run_workflow):
    definition = workflow(
        detection_step(name="outer", prompts="shape"),
        {
            "type": "roboflow_core/dynamic_crop@v1",
            "name": "crop",
            "images": "$inputs.image",
            "predictions": "$steps.outer.predictions",
        },
        detection_step(images="$steps.crop.crops", prompts="shape"),
        {
            "type": "workflow_blocks/detections_table@v1",
            "name": "table",
            "predictions": "$steps.detection.predictions",
            "image": "$steps.crop.crops",
        },
        inputs=(),
        outputs={"tables": "$steps.table.content", "outer": "$steps.outer.predictions"},
    )

    (result,) = run_workflow(definition, image=image_bgr(0))

    assert len(result["tables"]) == len(result["outer"]) > 0
    assert any(read_csv(text) for text in result["tables"])
    for text, box in zip(result["tables"], result["outer"].xyxy, strict=True):
        for row in read_csv(text):
            x_center = (float(row["x_min"]) + float(row["x_max"])) / 2
            assert box[0] - 1 <= x_center <= box[2] + 1
            assert row["image_name"] == "image"


def run_block(predictions, image=None, format="csv", image_name=None):
    return DetectionsTableBlockV1().run(predictions, image, image_name, format)


def boxes(**fields):
    data = {"class_name": np.array(["star"])} | fields.pop("data", {})
    return sv.Detections(xyxy=np.array([[1.0, 2, 30, 20]]), data=data, **fields)


@pytest.mark.parametrize("confidence", [None, np.nan, np.inf])
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_what_is_not_known_is_left_empty(confidence, format):
    predictions = boxes(confidence=None if confidence is None else np.array([confidence]))

    content = run_block(predictions, format=format)["content"]

    (row,) = read_csv(content) if format == "csv" else map(strict_json, content.splitlines())
    nothing = "" if format == "csv" else None
    assert [row["class_id"], row["confidence"]] == [nothing, nothing]


@pytest.mark.parametrize("nothing", [np.array([np.nan]), np.array([None])])
def test_scores_and_class_ids_that_are_missing_are_null(nothing):
    predictions = boxes(confidence=nothing, class_id=nothing)

    (row,) = map(strict_json, run_block(predictions, format="jsonl")["content"].splitlines())

    assert [row["class_id"], row["confidence"]] == [None, None]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_json_lines_hold_only_numbers_of_json(bad):
    predictions = boxes()
    predictions.xyxy[0, 1] = bad

    (row,) = map(strict_json, run_block(predictions, format="jsonl")["content"].splitlines())

    assert [row["x_min"], row["y_min"]] == [1, None]


def strict_json(line):
    return json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize("data", [{}, {"class_name": np.array([None])}, {"class_name": np.array([np.nan])}])
def test_detections_without_class_names_are_the_clients_error(data):
    predictions = sv.Detections(xyxy=np.array([[1.0, 2, 30, 20]]), data=data)

    with pytest.raises(ClientCausedStepExecutionError, match="class_name") as caught:
        run_block(predictions)

    assert caught.value.status_code == 400


def test_names_that_are_not_utf_8_are_written_with_question_marks():
    (row,) = read_csv(run_block(boxes(), image_name="a\udcff.jpg")["content"])

    assert row["image_name"] == "a?.jpg"


def photo(**fields):
    return WorkflowImageData(
        parent_metadata=ImageParentMetadata(parent_id="photo"), numpy_image=image_bgr(0), **fields
    )


def test_predictions_without_a_place_take_that_of_the_image():
    crop = WorkflowImageData.create_crop(photo(), "crop", image_bgr(0)[100:, 50:], 50, 100)

    (row,) = read_csv(run_block(boxes(), crop)["content"])

    assert [row["image_name"], row["x_min"], row["y_max"]] == ["photo", "51.0", "120.0"]
    assert "pixels_of" not in row


@pytest.mark.parametrize(
    ("data", "whose"), [({}, "unknown"), ({"parent_id": np.array(["crop 3"])}, "crop 3")]
)
def test_pixels_of_an_unknown_image_are_marked(data, whose):
    (row,) = read_csv(run_block(boxes(data=data), image_name="photo.jpg")["content"])

    assert row["pixels_of"] == whose


@pytest.mark.parametrize(
    ("fields", "time"),
    [
        ({"comes_from_video_file": True, "fps": 25}, "0.48"),
        ({"comes_from_video_file": False, "fps": 25}, "2026-01-02T03:04:05"),
        ({"comes_from_video_file": None, "fps": None}, "2026-01-02T03:04:05"),
    ],
)
def test_rows_of_a_video_have_the_frame_and_its_time(fields, time):
    video = VideoMetadata(
        video_identifier="v", frame_number=13, frame_timestamp=datetime(2026, 1, 2, 3, 4, 5), **fields
    )
    image = photo(video_metadata=video)

    (row,) = read_csv(run_block(boxes(), image, image_name="v.mp4")["content"])

    assert [row["frame_number"], row["frame_time"]] == ["13", time]
    empty = run_block(sv.Detections.empty(), image)["content"]
    assert empty == HEADER[:-1] + ",frame_number,frame_time\n"


@pytest.mark.parametrize(("format", "file_type"), [("csv", "csv"), ("jsonl", "txt")])
def test_a_log_has_a_line_for_each_detection_and_no_others(run_workflow, tmp_path, format, file_type):
    sink = {
        "type": "roboflow_core/local_file_sink@v1",
        "name": "file",
        "content": "$steps.table.log_entry",
        "file_type": file_type,
        "output_mode": "append_log",
        "target_directory": str(tmp_path),
        "file_name_prefix": "log",
    }
    definition = table_workflow(image="$inputs.image", format=format)
    definition["steps"].append(sink)
    failed = {"type": "JsonField", "name": "failed", "selector": "$steps.file.error_status"}
    definition["outputs"].append(failed)
    blank = np.full((100, 100, 3), 255, np.uint8)

    results = run_workflow(
        definition, image=[blank, image_bgr(0), blank, image_bgr(1), blank], prompts="shape", image_name=None
    )

    first = False if format == "csv" else None  # the header
    assert [result["failed"] for result in results] == [first, False, None, False, None]
    (log,) = tmp_path.iterdir()
    lines = log.read_text().splitlines()
    n_rows = sum(len(result["predictions"]) for result in results)
    assert all(lines)
    assert len(lines) == n_rows + (format == "csv")
    assert (
        len(read_csv(log.read_text()) if format == "csv" else [strict_json(line) for line in lines]) == n_rows
    )


ON_THE_IMAGE = {"root_parent_coordinates": np.array([[0, 0]])}


@pytest.mark.parametrize("with_image", [True, False])
@pytest.mark.parametrize("data", [{}, ON_THE_IMAGE])
@pytest.mark.parametrize("is_marked", [True, False])
def test_all_lines_of_a_log_have_the_same_columns(with_image, data, is_marked):
    block = DetectionsTableBlockV1()
    nothing = sv.Detections.empty()
    if is_marked:
        nothing.metadata.update({name: values[0].tolist() for name, values in data.items()})

    image = photo() if with_image else None
    entries = [
        block.run(found, image, "photo.jpg", "csv")["log_entry"]
        for found in (nothing, boxes(data=dict(data)), nothing, boxes(data=dict(data)))
    ]

    assert bool(entries[0]) is bool(with_image or (is_marked and data))
    lines = [line for entry in filter(None, entries) for line in entry.splitlines()]
    assert len({line.count(",") for line in lines}) == 1


def test_merged_detections_of_a_crop_are_written_in_the_image(run_workflow):
    crop = {
        "type": "roboflow_core/absolute_static_crop@v1",
        "name": "crop",
        "images": "$inputs.image",
        "x_center": 600,
        "y_center": 400,
        "width": 400,
        "height": 400,
    }
    merge = {
        "type": "roboflow_core/detections_merge@v1",
        "name": "merge",
        "predictions": "$steps.detection.predictions",
    }
    table = {
        "type": "workflow_blocks/detections_table@v1",
        "name": "table",
        "predictions": "$steps.merge.predictions",
        "image": "$steps.crop.crops",
    }
    definition = workflow(
        crop,
        detection_step(images="$steps.crop.crops", prompts="shape"),
        merge,
        table,
        inputs=(),
        outputs={"content": "$steps.table.content", "own": "$steps.merge.predictions"},
    )
    wide = np.full((700, 1000, 3), 200, np.uint8)
    scene = image_bgr(0)
    wide[250 : 250 + scene.shape[0], 410 : 410 + scene.shape[1]] = scene

    (result,) = run_workflow(definition, image=wide)

    (row,) = read_csv(result["content"])
    corners = [float(row[name]) for name in ("x_min", "y_min", "x_max", "y_max")]
    np.testing.assert_allclose(corners, result["own"].xyxy[0] + [400, 200, 400, 200], atol=0.01)
    assert row["image_name"] == "image"
