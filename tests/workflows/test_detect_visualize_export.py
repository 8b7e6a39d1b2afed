"""The main workflow, from image files to what it leaves on disk."""

import csv
import json

import cv2
import numpy as np

from tests.scenes import image_bgr, recall, true_boxes
from workflow_blocks.inference_host.engine import make_engine
from workflow_blocks.running.definitions import workflow_file

PROMPTS = ["circle", "square", "triangle", "star"]


def definition():
    return json.loads(workflow_file("detect_visualize_export").read_text())


def test_every_input_is_read_by_a_step():
    text = json.dumps(definition()["steps"])

    for entry in definition()["inputs"]:
        assert f"$inputs.{entry['name']}" in text


def test_images_give_pictures_and_one_table(model_manager, tmp_path):
    engine = make_engine(definition(), model_manager)
    found = there = 0
    for number in range(4):
        (result,) = engine.run(
            runtime_parameters={
                "image": image_bgr(number),
                "image_name": f"{number}.png",
                "prompts": PROMPTS,
                "target_directory": str(tmp_path),
                "dataset_directory": str(tmp_path / "dataset"),
            }
        )
        picture = result["visualization"].numpy_image
        assert picture.shape == image_bgr(number).shape
        assert (len(result["predictions"]) == 0) == np.array_equal(picture, image_bgr(number))
        assert result["export_failed"] is False

        assert result["dataset_failed"] is False

    coco = json.loads((tmp_path / "dataset" / "train" / "_annotations.coco.json").read_text())
    assert len(coco["images"]) == 4
    (table,) = tmp_path.glob("detections_*.csv")
    rows = list(csv.DictReader(table.open()))
    for number in range(4):
        for shape in PROMPTS:
            own = [
                [float(row[name]) for name in ("x_min", "y_min", "x_max", "y_max")]
                for row in rows
                if row["image_name"] == f"{number}.png" and row["class_name"] == shape
            ]
            hits, total = recall(np.array(own).reshape(-1, 4), true_boxes(number, shape=shape))
            found, there = found + hits, there + total
    assert there > 5
    assert found >= 0.8 * there


def test_defaults_make_it_run_on_an_image_alone(run_workflow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "scene.png"
    cv2.imwrite(str(path), image_bgr(0))

    (result,) = run_workflow(definition(), serialize=True, image={"type": "file", "value": str(path)})

    assert list(result["counts"]) == ["car", "elephant"]
    assert json.dumps([result["predictions"], result["counts"], result["table"]])
    assert list((tmp_path / "detections").glob("*.csv"))
