"""The definitions in `workflows/`, each run with the demo model and checked against what was drawn."""

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product

import cv2
import numpy as np
import pytest
import supervision as sv
import yaml

from tests.loopback import serving
from tests.scenes import image_bgr, recall, scene, true_boxes
from training.scenes import SceneOptions, draw_scene
from workflow_blocks.blocks.common.data_representation import from_engine
from workflow_blocks.inference_host.engine import make_engine
from workflow_blocks.running.definitions import read_definition as definition
from workflow_blocks.running.definitions import workflow_names

NAMES = workflow_names()
LABELS = "roboflow_core/rich_label_visualization@v1"
# Prompts for each image, frames of a video, weights that are not at hand.
NEED_MORE = {"prompts_per_image", "track_and_count_video", "segment_by_prompt"}
SHAPES = ["circle", "square", "triangle", "star"]


@pytest.mark.parametrize("name", NAMES)
def test_every_input_is_read_and_has_a_default(name):
    steps = json.dumps(definition(name)["steps"])

    for entry in definition(name)["inputs"]:
        assert f'$inputs.{entry["name"]}"' in steps
        if entry["type"] == "WorkflowParameter":
            assert "default_value" in entry


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NEED_MORE])
def test_all_inputs_but_the_image_have_defaults(run_workflow, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    (result,) = run_workflow(definition(name), image=image_bgr(0))

    assert set(result) == {output["name"] for output in definition(name)["outputs"]}


def label_steps():
    """The name of each definition that draws labels, and of each step of it that does."""
    steps = [(name, step) for name in NAMES for step in definition(name)["steps"]]
    return [(name, step["name"]) for name, step in steps if step["type"] == LABELS]


def only_labels(name, step_name):
    """The steps that place and draw these labels, for predictions and an image that the caller gives."""
    steps = {step["name"]: step for step in definition(name)["steps"]}
    places = steps[steps[step_name]["predictions"].split(".")[1]]
    room = steps[places["predictions"].split(".")[1]]
    return {
        "version": "1.0",
        "inputs": [
            {"type": "InferenceImage", "name": "image"},
            {
                "type": "WorkflowBatchInput",
                "name": "predictions",
                "kind": ["object_detection_prediction"],
            },
        ],
        "steps": [
            room | {"predictions": "$inputs.predictions"},
            places,
            steps[step_name] | {"image": "$inputs.image", "text": "Class"},
        ],
        "outputs": [{"type": "JsonField", "name": "picture", "selector": f"$steps.{step_name}.image"}],
    }


@pytest.mark.parametrize(("name", "step_name"), label_steps())
def test_labels_are_not_cut_off_at_the_edge(run_workflow, name, step_name):
    width, height, box_width, box_height = 640, 480, 80, 60
    text = "7" if name == "track_and_count_video" else "green triangle"
    xs = (width / 2, box_width / 2, width - box_width / 2)
    ys = (height / 2, box_height / 2, height - box_height / 2)
    box = {"width": box_width, "height": box_height, "confidence": 1.0, "class": text, "class_id": 0}
    predictions = [
        {
            "image": {"width": width, "height": height},
            "predictions": [box | {"x": x, "y": y, "detection_id": "0"}],
        }
        for x, y in product(xs, ys)
    ]
    blank = np.full((height, width, 3), 255, np.uint8)

    results = run_workflow(
        only_labels(name, step_name), image=[blank] * len(predictions), predictions=predictions
    )

    n_drawn = [int((result["picture"].numpy_image != 255).any(axis=2).sum()) for result in results]
    assert n_drawn[0] > 100
    assert n_drawn == [n_drawn[0]] * len(xs) * len(ys)


def test_every_drawn_box_has_a_label():
    for name in NAMES:
        steps = [step["type"] for step in definition(name)["steps"]]

        assert steps.count("roboflow_core/bounding_box_visualization@v1") == steps.count(LABELS)


def count_hits(run_workflow, name, numbers=range(5), **inputs):
    found = there = 0
    for number in numbers:
        (result,) = run_workflow(definition(name), image=image_bgr(number), prompts=SHAPES, **inputs)
        detections = from_engine(result["predictions"], name)
        for class_id, shape in enumerate(SHAPES):
            own = detections[detections.class_id == class_id]
            hits, total = recall(own.xyxy, true_boxes(number, shape=shape))
            found, there = found + hits, there + total
    return found, there


def test_detect_and_visualize_finds_the_drawn_objects(run_workflow):
    found, there = count_hits(run_workflow, "detect_and_visualize")

    assert found >= 0.8 * there > 0


def test_count_by_prompt_counts_and_draws(run_workflow):
    right = 0
    for number in range(6):
        (result,) = run_workflow(definition("count_by_prompt"), image=image_bgr(number), prompts=SHAPES)
        true = {shape: len(true_boxes(number, shape=shape)) for shape in SHAPES}
        right += sum(result["counts"][shape] == count for shape, count in true.items())
        assert (
            result["total"]
            == sum(result["counts"].values())
            == len(from_engine(result["predictions"], "test"))
        )
        assert not np.array_equal(result["visualization"].numpy_image, image_bgr(number))

    assert right >= 0.8 * 6 * len(SHAPES)


@pytest.mark.parametrize(
    ("prompts", "lines"),
    [
        (["red circle", "blue star"], " red circle: {}\n blue star: {}\n total: {}"),
        (["shape"], " shape: {}\n total: {}"),
        (["7-Up (50% off!)", "it's a <star>"], " 7-Up (50% off!): {}\n it's a <star>: {}\n total: {}"),
        (['a "big" {circle}'], " a \\big\\ circle: {}\n total: {}"),
    ],
)
def test_count_by_prompt_writes_counts_as_lines_of_words(run_workflow, prompts, lines):
    with_text = definition("count_by_prompt")
    (result,) = run_workflow(with_text, image=image_bgr(0), prompts=prompts)
    overlay = next(step for step in with_text["steps"] if step["name"] == "overlay")
    overlay["text"] = lines.format(*result["counts"].values(), result["total"])
    del overlay["text_parameters"], overlay["text_parameters_operations"]

    (expected,) = run_workflow(with_text, image=image_bgr(0), prompts=prompts)

    np.testing.assert_array_equal(result["visualization"].numpy_image, expected["visualization"].numpy_image)


def test_count_by_prompt_takes_prompts_of_any_characters(run_workflow):
    prompts = ["".join(map(chr, range(33, 127))), "красный круг", "赤い円", "a\nb"]

    (result,) = run_workflow(definition("count_by_prompt"), image=image_bgr(0), prompts=prompts)

    assert len(result["counts"]) == len(prompts)


def test_count_by_class_counts_the_objects_of_all_prompts_of_a_class(run_workflow):
    right = 0
    for number in range(6):
        (result,) = run_workflow(definition("count_by_class"), image=image_bgr(number))
        circles = len(true_boxes(number, shape="circle"))
        true = {"round": circles, "angular": len(true_boxes(number)) - circles}
        assert set(result["counts"]) == set(true)
        right += sum(result["counts"][name] == count for name, count in true.items())
        assert len(result["attributes"]) == sum(result["counts"].values())

    assert right >= 0.6 * 6 * 2


def test_continue_if_class_goes_on_only_where_the_class_was_found(run_workflow):
    results = run_workflow(definition("continue_if_class"), image=[image_bgr(number) for number in range(8)])

    with_class = [result["counts"]["round"] > 0 for result in results]
    assert [result["visualization"] is not None for result in results] == with_class
    assert len(set(with_class)) == 2


def test_class_properties_are_those_of_the_detections(run_workflow):
    (result,) = run_workflow(definition("class_properties"), image=image_bgr(0))

    names = from_engine(result["predictions"], "test")["class_name"].tolist()
    assert names
    assert result["class_names"] == names
    assert result["n_round"] == names.count("round")


def test_redact_by_prompt_changes_only_the_named_objects(run_workflow):
    checked = 0
    for number in range(6):
        (result,) = run_workflow(definition("redact_by_prompt"), image=image_bgr(number), prompts="circle")
        before, after = image_bgr(number), result["redacted"].numpy_image
        outside = np.ones(before.shape[:2], bool)
        for x_min, y_min, x_max, y_max in from_engine(result["predictions"], "test").xyxy.round().astype(int):
            width, height = (x_max - x_min) // 10, (y_max - y_min) // 10  # the margin of 20 % on each side
            outside[
                max(y_min - height - 2, 0) : y_max + height + 2, max(x_min - width - 2, 0) : x_max + width + 2
            ] = False
            checked += 1
            assert not np.array_equal(before[y_min:y_max, x_min:x_max], after[y_min:y_max, x_min:x_max])
            rim = slice(y_min, y_max), slice(max(x_min - width + 2, 0), max(x_min, 3))
            assert not np.array_equal(before[rim], after[rim])
        np.testing.assert_array_equal(before[outside], after[outside])

    assert checked >= 3


def test_label_a_dataset_writes_the_detections(run_workflow, tmp_path):
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


def test_label_a_dataset_has_the_classes_and_not_the_prompts(run_workflow, tmp_path):
    classes = {"round": ["circle"], "angular": ["square", "star", "triangle"]}

    (result,) = run_workflow(
        definition("label_a_dataset"), image=image_bgr(0), prompts=classes, target_directory=str(tmp_path)
    )

    assert result["failed"] is False, result["message"]
    assert yaml.safe_load((tmp_path / "data.yaml").read_text())["names"] == ["round", "angular"]


def test_prompts_per_image_uses_the_prompts_of_each_image(run_workflow):
    prompts = [["circle"], ["square", "star"], ["triangle"]]

    results = run_workflow(
        definition("prompts_per_image"), image=[image_bgr(n) for n in range(3)], prompts=prompts
    )

    found = there = 0
    for number, (own, result) in enumerate(zip(prompts, results, strict=True)):
        assert list(result["counts"]) == own
        for class_id, shape in enumerate(own):
            detections = from_engine(result["predictions"], "test")
            boxes = detections.xyxy[detections.class_id == class_id]
            hits, total = recall(boxes, true_boxes(number, shape=shape))
            found, there = found + hits, there + total
    assert found >= 0.7 * there > 0


def test_tiles_find_small_objects_that_a_whole_image_hides(run_workflow):
    options = SceneOptions(
        min_short_side=700, max_short_side=900, min_object_size=0.05, max_object_size=0.09, max_objects=8
    )
    hits = {"detect_and_visualize": 0, "tiled_small_objects": 0}
    there = 0
    for number in range(4):
        drawn = draw_scene(2_100_000 + number, options)
        image = np.ascontiguousarray(drawn.image[..., ::-1])
        true = np.array([item.xyxy for item in drawn.objects], float).reshape(-1, 4)
        there += len(true)
        for name in hits:
            (result,) = run_workflow(definition(name), image=image, prompts="shape")
            hits[name] += recall(from_engine(result["predictions"], name).xyxy, true)[0]

    assert there > 10
    assert hits["tiled_small_objects"] > hits["detect_and_visualize"]


def test_crop_and_prompt_again_finds_parts_in_the_whole_image(run_workflow):
    found = there = 0
    for number in range(12):
        (result,) = run_workflow(
            definition("crop_and_prompt_again"),
            image=image_bgr(number),
            prompts="shape",
            part_prompts=["circle"],
        )
        hits, total = recall(from_engine(result["parts"], "test").xyxy, true_boxes(number, shape="circle"))
        found, there = found + hits, there + total

    assert found >= 0.5 * there > 0


def test_crop_and_prompt_again_takes_an_image_without_objects(run_workflow):
    blank = np.full((240, 320, 3), 128, np.uint8)

    results = run_workflow(definition("crop_and_prompt_again"), image=[blank, image_bgr(0)])

    assert len(from_engine(results[0]["parts"], "test")) == 0
    np.testing.assert_array_equal(results[0]["visualization"].numpy_image, blank)


def test_crop_and_prompt_again_draws_objects_and_parts_in_different_colours(run_workflow):
    steps = {step["name"]: step for step in definition("crop_and_prompt_again")["steps"]}
    of_objects, of_parts = (steps[name]["custom_colors"] for name in ("boxes", "part_boxes"))
    assert not set(of_objects) & set(of_parts)
    assert steps["labels"]["custom_colors"] == of_objects
    assert steps["part_labels"]["custom_colors"] == of_parts

    (result,) = run_workflow(
        definition("crop_and_prompt_again"), image=image_bgr(0), prompts="shape", part_prompts=["shape"]
    )

    assert len(from_engine(result["parts"], "test")) > 0
    for colours in (of_objects, of_parts):
        bgr = list(bytes.fromhex(colours[0].removeprefix("#")))[::-1]
        assert (result["visualization"].numpy_image == bgr).all(axis=2).sum() > 100


@pytest.fixture
def webhook():
    """A receiver on loopback, and what it received."""
    received = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Receiver)) as address:
        yield f"{address}/alert", received


def test_alert_when_present_posts_picture_and_predictions(run_workflow, webhook):
    url, received = webhook
    blank = np.full((240, 320, 3), 128, np.uint8)

    with_shape, without = run_workflow(
        definition("alert_when_present"),
        image=[image_bgr(0), blank],
        prompts="shape",
        url=url,
        cooldown_seconds=0,
    )

    assert with_shape["alert_failed"] is False
    assert without["alert_failed"] is None
    (alert,) = received
    assert alert["counts"] == with_shape["counts"]
    assert len(alert["predictions"]["predictions"]) == alert["counts"]["shape"] > 0
    picture = cv2.imdecode(
        np.frombuffer(base64.b64decode(alert["picture_jpeg_base64"]), np.uint8), cv2.IMREAD_COLOR
    )
    (drawn,) = run_workflow(definition("detect_and_visualize"), image=image_bgr(0), prompts="shape")
    expected = drawn["visualization"].numpy_image
    assert picture.shape == expected.shape
    # Boxes and labels; JPEG changes every pixel a little, and few of them much.
    assert (np.abs(picture.astype(int) - expected).max(axis=2) > 60).mean() < 0.002


def test_track_and_count_video_counts_what_crosses_the_line(tmp_path):
    from inference import InferencePipeline

    video = tmp_path / "circle.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), 10, (640, 480))
    for step in range(20):
        frame = np.full((480, 640, 3), 120, np.uint8)
        cv2.circle(frame, (300, 100 + 14 * step), 60, (20, 20, 220), -1, cv2.LINE_AA)
        writer.write(frame)
    writer.release()
    results = []

    pipeline = InferencePipeline.init_with_workflow(
        video_reference=str(video),
        workflow_specification=definition("track_and_count_video"),
        on_prediction=lambda result, frame: results.append(result),
        workflows_parameters={"prompts": "red circle"},
    )
    pipeline.start(use_main_thread=True)
    pipeline.join()

    assert len(results) == 20
    assert sum(len(from_engine(result["predictions"], "test")) == 1 for result in results) >= 17
    assert {results[0]["count_in"], results[0]["count_out"]} == {0}
    assert {results[-1]["count_in"], results[-1]["count_out"]} == {0, 1}


def test_segment_by_prompt_compiles(model_manager):
    """Its SAM 2 weights are fetched when it runs."""
    make_engine(definition("segment_by_prompt"), model_manager)


def test_scenes_of_these_tests_hold_every_shape():
    assert {item.shape for number in range(5) for item in scene(number).objects} == set(SHAPES)


def test_label_for_review_parts_sure_images_from_others(run_workflow, tmp_path):
    folders = {"sure": tmp_path / "sure", "review": tmp_path / "review"}
    places = {f"{name}_directory": str(folder) for name, folder in folders.items()}
    images = [image_bgr(number) for number in range(6)]
    parameters = {"prompts": SHAPES, "split": {"train": 1}} | places
    results = run_workflow(definition("label_for_review"), image=images, confidence=0.0, **parameters)
    lowest = [min(result["predictions"].confidence, default=1.0) for result in results]
    threshold = float(np.median(lowest))

    results = run_workflow(definition("label_for_review"), image=images, confidence=threshold, **parameters)

    assert [bool(result["sure_path"]) for result in results] == [score >= threshold for score in lowest]
    assert [bool(result["review_path"]) for result in results] == [score < threshold for score in lowest]
    assert not any(result["failed"] or result["review_failed"] for result in results)
    for name, folder in folders.items():
        document = json.loads((folder / "train" / "_annotations.coco.json").read_text())
        scores = {image["id"]: [] for image in document["images"]}
        for annotation in document["annotations"]:
            scores[annotation["image_id"]].append(annotation["score"])
            assert annotation["attributes"]["prompt"] in SHAPES
        # An image that a later run gives to the other dataset is removed.
        assert len(scores) == sum((score >= threshold) == (name == "sure") for score in lowest)
        for image in document["images"]:
            assert image["file_name"].startswith(f"{min(scores[image['id']]):.2f}_")


def test_label_for_review_takes_a_threshold_for_each_class(run_workflow, tmp_path):
    places = {f"{name}_directory": str(tmp_path / name) for name in ("sure", "review")}

    (result,) = run_workflow(
        definition("label_for_review"),
        image=image_bgr(1),
        prompts=SHAPES,
        confidence={"circle": 0.0, "square": 0.0, "triangle": 0.0, "star": 1.0, "*": 0.0},
        **places,
    )

    # No score is quite 1.
    has_unsure_star = result["counts"]["star"] > 0
    assert bool(result["review_path"]) == has_unsure_star
