"""The definitions that ask the model, each run with a tiny model and compared with what the model says."""

import base64
import csv
import io
import json
import shutil

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.stand_ins import GOLDEN
from tests.workflows.definitions import detection_step, workflow
from tests.workflows.test_definitions import webhook  # noqa: F401 - a fixture
from workflow_blocks.blocks.moondream2.tasks import TASKS, Task
from workflow_blocks.running.definitions import read_definition as definition

IMAGES = [cv2.imread(str(path)) for path in sorted((GOLDEN / "images").glob("*.png"))[:2]]
PROMPTS = ["red circle"]
ASKING = ["attributes_of_each", "caption_and_tag", "classify_crops", "count_by_pointing", "find_everything"]
NO_TASK = Task("", "")
BLANK = np.full((240, 320, 3), 128, np.uint8)


def short(name):
    """The definition with short answers, since the tiny model writes on and on."""
    document = definition(name)
    for step in document["steps"]:
        if "max_tokens" in TASKS.get(step.get("task_type"), NO_TASK).fields:
            step["max_tokens"] = 12
    return document


@pytest.fixture
def run(run_workflow, text_package):
    def run_definition(name, images=IMAGES[:1], **inputs):
        return run_workflow(short(name), image=list(images), model=text_package, **inputs)

    return run_definition


@pytest.mark.long
@pytest.mark.parametrize("name", ASKING)
def test_all_inputs_but_image_and_model_have_defaults(run, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    for result in run(name, [*IMAGES, BLANK]):
        assert set(result) == {output["name"] for output in definition(name)["outputs"]}


def test_find_everything_detects_what_the_model_names(run):
    results = run("find_everything", IMAGES[:1])

    for image, result in zip(IMAGES, results, strict=False):
        assert list(result["counts"]) == result["names"]
        assert sum(result["counts"].values()) == len(result["predictions"])
        drawn = not np.array_equal(result["visualization"].numpy_image, image)
        assert drawn == (len(result["predictions"]) > 0)


def test_attributes_of_each_are_the_answers_about_the_boxes(run, text_model):
    image = IMAGES[0]
    height, width = image.shape[:2]

    (result,) = run("attributes_of_each", prompts=PROMPTS, question="Which colour is it?")

    boxes = result["predictions"].xyxy / [width, height, width, height]
    assert len(boxes)
    (expected,) = text_model.answer(
        [image],
        ["Which colour is it?"] * len(boxes),
        max_new_tokens=12,
        spatial_refs=[[tuple(box)] for box in boxes.tolist()],
    )
    texts = [answer.text.strip() for answer in expected]
    assert [attributes["answer"] for attributes in result["attributes"]] == texts
    names = result["predictions"]["class_name"].tolist()
    assert names == [text or PROMPTS[0] for text in texts]
    assert result["counts"] == {PROMPTS[0]: len(boxes)}
    assert not np.array_equal(result["visualization"].numpy_image, image)


@pytest.fixture(scope="module")
def package_that_says_yes(text_package, tmp_path_factory):
    """The tiny model, which always says no, with weights that prefer the letters of "yes"."""
    folder = shutil.copytree(text_package, tmp_path_factory.mktemp("yes") / "package")
    weights = load_file(folder / "model.safetensors")
    letters = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("yes").ids
    weights["model.text.lm_head.bias"][letters] += 20
    save_file(weights, folder / "model.safetensors")
    return str(folder)


def test_check_with_yes_or_no_alerts_if_yes_is_likely_enough(
    run_workflow,
    text_package,
    package_that_says_yes,
    webhook,  # noqa: F811
):
    url, received = webhook
    inputs = {"image": IMAGES[:1], "question": "Is there a dog?", "url": url, "cooldown_seconds": 0}
    likely, sure = 0.9, 1.0

    for model, probability, is_sent in (
        (package_that_says_yes, likely, True),
        (package_that_says_yes, sure, False),
        (text_package, likely, False),
    ):
        received.clear()
        (result,) = run_workflow(
            definition("check_with_yes_or_no"), model=model, probability=probability, **inputs
        )

        assert result["answer"] == ("no" if model == text_package else "yes")
        assert likely < result["probability"] < sure
        assert result["alert_failed"] is (False if is_sent else None)
        assert len(received) == is_sent
        for alert in received:
            assert (alert["question"], alert["answer"]) == ("Is there a dog?", "yes")
            assert alert["probability"] == pytest.approx(result["probability"])
            picture = np.frombuffer(base64.b64decode(alert["picture_jpeg_base64"]), np.uint8)
            assert cv2.imdecode(picture, cv2.IMREAD_COLOR).shape == IMAGES[0].shape


def test_caption_and_tag_writes_a_row_for_each_image(run_workflow, package_that_says_yes, tmp_path):
    tags = ["dog", "red circle"]

    results = run_workflow(
        short("caption_and_tag"),
        image=IMAGES,
        model=package_that_says_yes,
        tags=tags,
        target_directory=str(tmp_path),
        image_name="a.png",
    )

    assert [result["tags"] for result in results] == [tags] * len(IMAGES)
    assert all(result["caption"] for result in results)
    (file,) = tmp_path.glob("*.csv")
    rows = list(csv.DictReader(io.StringIO(file.read_text(), newline="")))
    assert [row["image_name"] for row in rows] == ["a.png"] * len(IMAGES)
    assert [row["tags"] for row in rows] == ["dog; red circle"] * len(IMAGES)
    assert [row["caption"] for row in rows] == [result["caption"] for result in results]


def test_the_export_takes_the_caption_of_each_image(run_workflow, text_package, tmp_path):
    ask = {
        "type": "workflow_blocks/moondream2@v1",
        "name": "caption",
        "images": "$inputs.image",
        "task_type": "caption",
        "max_tokens": 6,
        "model_version": text_package,
    }
    export = {
        "type": "workflow_blocks/detections_dataset_export@v1",
        "name": "export",
        "images": "$inputs.image",
        "predictions": "$steps.detection.predictions",
        "caption": "$steps.caption.output",
        "target_directory": str(tmp_path),
        "split": "train",
    }
    document = workflow(
        detection_step(model_version=text_package),
        ask,
        export,
        outputs={"caption": "$steps.caption.output", "failed": "$steps.export.error_status"},
    )

    results = run_workflow(document, image=IMAGES, prompts=PROMPTS)

    assert [result["failed"] for result in results] == [False] * len(IMAGES)
    lines = [json.loads(line) for line in (tmp_path / "train" / "metadata.jsonl").read_text().splitlines()]
    assert sorted(line["text"] for line in lines) == sorted(result["caption"] for result in results)
    assert len({line["file_name"] for line in lines}) == len(IMAGES)


def test_count_by_pointing_counts_the_points(run, text_model):
    names = ["dog", "red car"]
    (expected,) = text_model.point(IMAGES[:1], names)

    (result,) = run("count_by_pointing", prompts=names)

    assert len(expected.xy)
    assert result["counts"] == {
        name: int((expected.class_id == number).sum()) for number, name in enumerate(names)
    }
    assert [(point["x"], point["y"]) for point in result["points"]] == [
        pytest.approx(xy) for xy in expected.xy.tolist()
    ]
    changed = (result["visualization"].numpy_image != IMAGES[0]).any(axis=2)
    for x, y in expected.xy.round().int().tolist():
        assert changed[min(y, changed.shape[0] - 1), min(x, changed.shape[1] - 1)]


def test_classify_crops_gives_each_object_the_class_of_its_crop(run, text_model):
    image, classes = IMAGES[0], ["dog", "cat", "ball", "tree"]

    found, blank = run("classify_crops", [image, BLANK], prompts=PROMPTS, classes=classes)

    corners = found["predictions"].xyxy.round().astype(int)
    crops = [np.ascontiguousarray(image[y1:y2, x1:x2]) for x1, y1, x2, y2 in corners.tolist()]
    assert crops
    question = "Which of these is in the image: dog, cat, ball or tree?"
    scored = text_model.classify(crops, [question], [classes])
    best = [max(of_crop[0], key=lambda choice: choice.probability) for of_crop in scored]
    assert found["predictions"]["class_name"].tolist() == [choice.text for choice in best]
    # A box that is too small for a crop has no probability, and is left out of the predictions.
    probabilities = [value for value in found["probabilities"] if value is not None]
    assert probabilities == pytest.approx([choice.probability for choice in best], abs=1e-4)
    assert not np.array_equal(found["visualization"].numpy_image, image)
    assert blank["visualization"] is not None
