"""The definitions in `workflows/`, each run with the demo model and checked against what was drawn."""

import json

import numpy as np
import pytest
import supervision as sv

from tests.scenes import image_bgr, recall, scene, true_boxes
from training.scenes import SceneOptions, draw_scene
from workflow_blocks.local_engine import workflow_file

NAMES = sorted(path.stem for path in workflow_file("detect_and_visualize").parent.glob("*.json"))
SHAPES = ["circle", "square", "triangle", "star"]


def definition(name):
    return json.loads(workflow_file(name).read_text())


@pytest.mark.parametrize("name", NAMES)
def test_every_input_is_read_and_has_a_default(name):
    steps = json.dumps(definition(name)["steps"])

    for entry in definition(name)["inputs"]:
        assert f'$inputs.{entry["name"]}"' in steps
        if entry["type"] == "WorkflowParameter":
            assert "default_value" in entry


@pytest.mark.parametrize("name", [name for name in NAMES if name != "prompts_per_image"])
def test_an_image_alone_is_enough(run_workflow, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    (result,) = run_workflow(definition(name), image=image_bgr(0))

    assert set(result) == {output["name"] for output in definition(name)["outputs"]}


def count_hits(run_workflow, name, numbers=range(5), **inputs):
    found = there = 0
    for number in numbers:
        (result,) = run_workflow(definition(name), image=image_bgr(number), prompts=SHAPES, **inputs)
        for class_id, shape in enumerate(SHAPES):
            own = result["predictions"][result["predictions"].class_id == class_id]
            hits, total = recall(own.xyxy, true_boxes(number, shape=shape))
            found, there = found + hits, there + total
    return found, there


def test_detect_and_visualize_finds_what_is_there(run_workflow):
    found, there = count_hits(run_workflow, "detect_and_visualize")

    assert found >= 0.8 * there > 0


def test_count_by_prompt_counts_and_draws(run_workflow):
    right = 0
    for number in range(6):
        (result,) = run_workflow(definition("count_by_prompt"), image=image_bgr(number), prompts=SHAPES)
        true = {shape: len(true_boxes(number, shape=shape)) for shape in SHAPES}
        right += sum(result["counts"][shape] == count for shape, count in true.items())
        assert result["total"] == sum(result["counts"].values()) == len(result["predictions"])
        assert not np.array_equal(result["visualization"].numpy_image, image_bgr(number))

    assert right >= 0.8 * 6 * len(SHAPES)


def test_redact_by_prompt_changes_what_it_names_and_nothing_else(run_workflow):
    checked = 0
    for number in range(6):
        (result,) = run_workflow(definition("redact_by_prompt"), image=image_bgr(number), prompts="circle")
        before, after = image_bgr(number), result["redacted"].numpy_image
        outside = np.ones(before.shape[:2], bool)
        for x_min, y_min, x_max, y_max in result["predictions"].xyxy.round().astype(int):
            outside[max(y_min - 1, 0) : y_max + 1, max(x_min - 1, 0) : x_max + 1] = False
            checked += 1
            assert not np.array_equal(before[y_min:y_max, x_min:x_max], after[y_min:y_max, x_min:x_max])
        np.testing.assert_array_equal(before[outside], after[outside])

    assert checked >= 3


def test_label_a_dataset_writes_what_was_found(run_workflow, tmp_path):
    images = [image_bgr(number) for number in range(6)]
    results = run_workflow(
        definition("label_a_dataset"),
        image=images,
        prompts=SHAPES,
        target_directory=str(tmp_path),
        split={"valid": 1.0},
    )

    dataset = sv.DetectionDataset.from_yolo(
        str(tmp_path / "valid" / "images"), str(tmp_path / "valid" / "labels"), str(tmp_path / "data.yaml")
    )
    assert dataset.classes == SHAPES
    found = there = 0
    labelled = {path: detections for path, _, detections in dataset}
    for number, result in enumerate(results):
        assert result["failed"] is False
        detections = labelled[result["image_path"]]
        for class_id, shape in enumerate(SHAPES):
            boxes = detections.xyxy[detections.class_id == class_id]
            hits, total = recall(boxes, true_boxes(number, shape=shape))
            found, there = found + hits, there + total
    assert found >= 0.8 * there > 0


def test_prompts_per_image_asks_each_image_its_own(run_workflow):
    prompts = [["circle"], ["square", "star"], ["triangle"]]

    results = run_workflow(
        definition("prompts_per_image"), image=[image_bgr(n) for n in range(3)], prompts=prompts
    )

    found = there = 0
    for number, (own, result) in enumerate(zip(prompts, results, strict=True)):
        assert list(result["counts"]) == own
        for class_id, shape in enumerate(own):
            boxes = result["predictions"].xyxy[result["predictions"].class_id == class_id]
            hits, total = recall(boxes, true_boxes(number, shape=shape))
            found, there = found + hits, there + total
    assert found >= 0.7 * there > 0


def test_tiles_find_small_objects_that_a_whole_image_hides(run_workflow):
    options = SceneOptions(
        min_short_side=700, max_short_side=900, min_object_size=0.05, max_object_size=0.09, max_objects=8
    )
    hits = {"detect_and_visualize": 0, "tiled_small_objects": 0}
    there = 0
    for number in range(6):
        drawn = draw_scene(2_100_000 + number, options)
        image = np.ascontiguousarray(drawn.image[..., ::-1])
        true = np.array([item.xyxy for item in drawn.objects], float).reshape(-1, 4)
        there += len(true)
        for name in hits:
            (result,) = run_workflow(definition(name), image=image, prompts="shape")
            hits[name] += recall(result["predictions"].xyxy, true)[0]

    assert there > 10
    assert hits["tiled_small_objects"] > hits["detect_and_visualize"]


def test_scenes_of_these_tests_hold_every_shape():
    assert {item.shape for number in range(5) for item in scene(number).objects} == set(SHAPES)
