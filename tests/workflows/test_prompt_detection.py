"""The block in Inference's engine, with the demo model on scenes whose truth is known."""

import base64
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import supervision as sv
from safetensors.torch import load_file, save_file

from tests.scenes import image_bgr, recall, scene, true_boxes
from tests.workflows.definitions import DETECTION_OUTPUTS, detection_step, detection_workflow, workflow

# Keys that core blocks read from predictions.
EXPECTED_KEYS = {
    "class_name",
    "prompt",
    "detection_id",
    "parent_id",
    "image_dimensions",
    "inference_id",
    "prediction_type",
    "parent_coordinates",
    "parent_dimensions",
    "root_parent_id",
    "root_parent_coordinates",
    "root_parent_dimensions",
}

SAMPLES = Path(__file__).parents[1] / "data" / "samples"


def test_one_image_and_one_prompt(run_workflow):
    (result,) = run_workflow(detection_workflow(), image=image_bgr(0), prompts="shape")

    predictions = result["predictions"]
    found, there = recall(predictions.xyxy, true_boxes(0))
    assert there > 0
    assert found >= there - 1
    assert result["counts"] == {"shape": len(predictions)}
    assert set(predictions.data) == EXPECTED_KEYS
    assert set(predictions["class_name"]) == {"shape"}
    assert (predictions.class_id == 0).all()
    assert ((predictions.confidence > 0) & (predictions.confidence <= 1)).all()
    assert len(set(predictions["detection_id"])) == len(predictions)


def test_each_prompt_has_its_own_class_id(run_workflow):
    prompts = ["dog", "circle", "square", "triangle", "star"]
    found = there = 0
    for number in range(6):
        (result,) = run_workflow(detection_workflow(), image=image_bgr(number), prompts=prompts)
        predictions = result["predictions"]
        for class_id, prompt in enumerate(prompts):
            own = predictions[predictions.class_id == class_id]
            assert set(own["class_name"]) <= {prompt}
            assert result["counts"][prompt] == len(own)
            hits, total = recall(own.xyxy, true_boxes(number, shape=prompt))
            found, there = found + hits, there + total

    assert found >= 0.8 * there > 0


def test_a_batch_gives_what_its_images_give_alone(run_workflow):
    images = [image_bgr(number) for number in range(3)]
    definition = detection_workflow()

    together = run_workflow(definition, image=images, prompts=["red shape", "circle"])
    alone = [run_workflow(definition, image=image, prompts=["red shape", "circle"])[0] for image in images]

    for batched, single in zip(together, alone, strict=True):
        np.testing.assert_allclose(batched["predictions"].xyxy, single["predictions"].xyxy, atol=1e-2)
        assert batched["counts"] == single["counts"]
    assert sum(sum(single["counts"].values()) for single in alone) > 0


@pytest.mark.parametrize("form", ["numpy", "base64", "file", "rgba", "grey"])
def test_every_form_of_image(run_workflow, tmp_path, form):
    image = image_bgr(1)
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), image)
    value = {
        "numpy": image,
        "base64": {"type": "base64", "value": base64.b64encode(path.read_bytes()).decode()},
        "file": {"type": "file", "value": str(path)},
        "rgba": cv2.cvtColor(image, cv2.COLOR_BGR2BGRA),
        "grey": cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
    }[form]
    (expected,) = run_workflow(detection_workflow(), image=image, prompts="shape")

    (result,) = run_workflow(detection_workflow(), image=value, prompts="shape")

    predictions = result["predictions"]
    assert len(predictions) > 0 or form == "grey"  # the model knows colours
    if form != "grey":
        np.testing.assert_allclose(predictions.xyxy, expected["predictions"].xyxy, atol=1e-3)
    assert predictions["image_dimensions"].tolist() == [list(image.shape[:2])] * len(predictions)


def test_an_image_behind_a_url(run_workflow, tmp_path, serve_folder, monkeypatch):
    # A server takes https addresses alone unless it is told otherwise, and none when it is offline.
    monkeypatch.setattr("inference.core.utils.image_utils.OFFLINE_MODE", False)
    monkeypatch.setattr("inference.core.utils.image_utils.ALLOW_NON_HTTPS_URL_INPUT", True)
    monkeypatch.setattr("inference.core.utils.image_utils.ALLOW_URL_INPUT_WITHOUT_FQDN", True)
    cv2.imwrite(str(tmp_path / "image.png"), image_bgr(1))
    (expected,) = run_workflow(detection_workflow(), image=image_bgr(1), prompts="shape")

    (result,) = run_workflow(
        detection_workflow(),
        image={"type": "url", "value": f"{serve_folder(tmp_path)}/image.png"},
        prompts="shape",
    )

    assert len(expected["predictions"]) > 0
    np.testing.assert_allclose(result["predictions"].xyxy, expected["predictions"].xyxy, atol=1e-3)


@pytest.fixture(scope="module")
def unending_package(golden_package, tmp_path_factory):
    """The golden package with weights that always continue with another object."""
    folder = shutil.copytree(golden_package, tmp_path_factory.mktemp("unending") / "package")
    weights = load_file(folder / "model.safetensors")
    weights["model.text.lm_head.bias"][0] = -1e4  # the token that ends an answer
    save_file(weights, folder / "model.safetensors")
    return str(folder)


@pytest.mark.parametrize("prompts", ["circle", ["circle", "shape"]])
def test_limits_keep_the_surest_of_all_that_was_found(run_workflow, prompts):
    """The most confident boxes are not those that the model finds first."""
    image = cv2.imread(str(SAMPLES / "night.jpg"))
    (all_boxes,) = run_workflow(detection_workflow(), image=image, prompts=prompts)
    scores_of_classes = [
        np.sort(all_boxes["predictions"].confidence[all_boxes["predictions"].class_id == index])[::-1]
        for index in range(len(all_boxes["counts"]))
    ]
    lowest = min(scores[2] for scores in scores_of_classes)
    assert all_boxes["predictions"].confidence[0] < scores_of_classes[0][0]

    for most in (1, 2, 3):
        for confidence in (0.0, float(lowest)):
            definition = detection_workflow(max_detections=most, confidence=confidence)
            (result,) = run_workflow(definition, image=image, prompts=prompts)

            assert list(result["counts"].values()) == [most] * len(scores_of_classes)
            for index, scores in enumerate(scores_of_classes):
                found = result["predictions"].confidence[result["predictions"].class_id == index]
                np.testing.assert_allclose(np.sort(found)[::-1], scores[:most], atol=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((1, 1, 3), np.uint8), id="one pixel"),
        pytest.param(np.zeros((20, 8000, 3), np.uint8), id="very long"),
        pytest.param(np.full((300, 300), 40000, np.uint16), id="16 bits"),
    ],
)
def test_odd_images_give_boxes_inside_them(run_workflow, unending_package, image):
    definition = detection_workflow(model_version=unending_package, iou_threshold=1.0, max_detections=12)

    (result,) = run_workflow(definition, image=image, prompts=["red circle", "dog"])

    height, width = image.shape[:2]
    assert len(result["predictions"]) > 0
    assert (result["predictions"].xyxy >= 0).all()
    assert (result["predictions"].xyxy <= (width, height, width, height)).all()


def test_nothing_found_is_serialised_with_the_size_of_the_image(run_workflow):
    image = np.full((120, 160, 3), 200, np.uint8)

    (result,) = run_workflow(detection_workflow(), serialize=True, image=image, prompts=["red circle", "dog"])

    assert result["predictions"]["predictions"] == []
    assert result["predictions"]["image"] == {"width": 160, "height": 120}
    assert result["counts"] == {"red circle": 0, "dog": 0}


def test_prompts_of_each_image(run_workflow):
    """Prompts that an earlier step gives for each image, as text and within a list."""
    name_of_best = {
        "type": "roboflow_core/property_definition@v1",
        "name": "best",
        "data": "$steps.first.predictions",
        "operations": [
            {"type": "DetectionsPropertyExtract", "property_name": "class_name"},
            {"type": "SequenceAggregate", "mode": "first"},
        ],
    }
    numbers = _scenes_with_different_shapes()
    definition = workflow(
        detection_step(name="first", prompts="$inputs.prompts", max_detections=1),
        name_of_best,
        detection_step(name="detection", prompts="$steps.best.output"),
        detection_step(name="listed", prompts=["$steps.best.output", "dog"]),
        outputs=DETECTION_OUTPUTS | {"first": "$steps.first.predictions", "listed": "$steps.listed.counts"},
    )

    results = run_workflow(
        definition,
        image=[image_bgr(number) for number in numbers],
        prompts=["circle", "square", "triangle", "star"],
    )

    prompts = [str(result["first"]["class_name"][0]) for result in results]
    assert len(set(prompts)) > 1
    for result, prompt in zip(results, prompts, strict=True):
        assert list(result["counts"]) == [prompt]
        assert list(result["listed"]) == [prompt, "dog"]
        assert result["counts"][prompt] == result["listed"][prompt] > 0


def _scenes_with_different_shapes():
    """Two scenes that each show one kind of shape, not the same."""
    kinds = {}
    for number in range(60):
        shapes = {item.shape for item in scene(number).objects}
        if len(shapes) == 1:
            kinds.setdefault(shapes.pop(), number)
    return list(kinds.values())[:2]


def test_crops_of_detections_keep_their_place_in_the_image(run_workflow):
    definition = workflow(
        detection_step(name="outer", prompts="shape", max_detections=3),
        {
            "type": "roboflow_core/dynamic_crop@v1",
            "name": "crop",
            "images": "$inputs.image",
            "predictions": "$steps.outer.predictions",
        },
        detection_step(images="$steps.crop.crops", prompts="shape"),
        {
            "type": "roboflow_core/detections_stitch@v1",
            "name": "stitch",
            "reference_image": "$inputs.image",
            "predictions": "$steps.detection.predictions",
            "overlap_filtering_strategy": "none",
        },
        inputs=(),
        outputs={
            "outer": "$steps.outer.predictions",
            "inner": "$steps.detection.predictions",
            "stitched": "$steps.stitch.predictions",
        },
    )

    results = run_workflow(definition, image=[image_bgr(0), image_bgr(2)])

    for result in results:
        outer = result["outer"].xyxy
        assert len(result["inner"]) == len(outer) > 0
        for box, inner in zip(outer, result["inner"], strict=True):
            # Outputs are told in the frame of the whole image: inside the box that was cut out.
            assert (inner.xyxy[:, :2] >= box[:2] - 1).all()
            assert (inner.xyxy[:, 2:] <= box[2:] + 1).all()
        assert len(result["stitched"]) == sum(len(inner) for inner in result["inner"]) > 0


@pytest.fixture
def golden_image(golden_folder):
    return cv2.imread(str(golden_folder / "images" / "0_300x200.png"))


def test_boxes_never_leave_the_image(run_workflow, golden_package, golden_image):
    """The golden model's random weights give boxes anywhere."""
    definition = detection_workflow(model_version=str(golden_package), iou_threshold=1.0)

    (result,) = run_workflow(definition, image=golden_image, prompts=["red circle", "blue square", "dog"])

    height, width = golden_image.shape[:2]
    xyxy = result["predictions"].xyxy
    assert len(xyxy) > 0
    assert (xyxy >= 0).all()
    assert (xyxy <= (width, height, width, height)).all()


def test_repeated_boxes_are_one_detection(run_workflow, golden_package, golden_image):
    """The golden model says the same box again and again."""
    limits = {"model_version": str(golden_package), "max_detections": 12}

    (all_boxes,) = run_workflow(
        detection_workflow(iou_threshold=1.0, **limits), image=golden_image, prompts="red circle"
    )
    (distinct,) = run_workflow(detection_workflow(**limits), image=golden_image, prompts="red circle")

    assert 0 < len(distinct["predictions"]) < len(all_boxes["predictions"])
    overlaps = sv.box_iou_batch(distinct["predictions"].xyxy, distinct["predictions"].xyxy)
    assert (overlaps[~np.eye(len(overlaps), dtype=bool)] <= 0.5).all()


@pytest.mark.parametrize("model", ["golden", "demo"])
def test_boxes_are_those_of_the_core_block(run_workflow, unending_package, model):
    model_version = unending_package if model == "golden" else _demo_folder()
    definition = workflow(
        detection_step(model_version=model_version, iou_threshold=1.0),
        {
            "type": "roboflow_core/moondream2@v1",
            "name": "core",
            "images": "$inputs.image",
            "prompt": "$inputs.prompts",
            "model_version": model_version,
        },
        outputs=DETECTION_OUTPUTS | {"core": "$steps.core.predictions"},
    )

    n_boxes = 0
    for number in range(3):
        (result,) = run_workflow(definition, image=image_bgr(number), prompts="shape")
        core = result["core"].xyxy
        has_area = (core[:, 2] > core[:, 0]) & (core[:, 3] > core[:, 1])
        np.testing.assert_allclose(result["predictions"].xyxy, core[has_area], atol=1)
        n_boxes += len(result["predictions"])
    assert n_boxes > 3


def _demo_folder():
    from workflow_blocks.bundled_model import demo_model_folder

    return str(demo_model_folder())
