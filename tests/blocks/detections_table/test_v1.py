import csv
import io
import json

import numpy as np
import pytest
import supervision as sv
from pydantic import ValidationError

from tests.scenes import image_bgr
from tests.workflows.definitions import detection_step, workflow
from workflow_blocks.blocks.detections_table.v1 import (
    COLUMNS,
    BlockManifest,
    detections_to_rows,
    rows_to_csv,
    rows_to_json_lines,
)

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


def test_csv_reads_back_names_with_any_characters(detections):
    text = rows_to_csv(list(detections_to_rows(detections, "photo.jpg")))

    assert text.startswith(HEADER)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["class_name"] for row in rows] == ['a "quoted", name', "b\nnewline"]
    assert [row["x_min"] for row in rows] == ["101.0", "0.0"]


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
