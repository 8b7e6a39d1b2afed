"""The block in Inference's engine: its outputs are those of the model that it runs."""

import json
import logging
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import supervision as sv
from inference.core.workflows.errors import WorkflowError
from pydantic import ValidationError

from tests.scenes import image_bgr
from tests.stand_ins import GOLDEN
from tests.workflows.definitions import detection_step, workflow
from workflow_blocks.blocks.moondream2.tasks import TASKS
from workflow_blocks.blocks.moondream2.v1 import BlockManifest

IMAGES = [cv2.imread(str(path)) for path in sorted((GOLDEN / "images").glob("*.png"))[:2]]
GUIDE_FOLDER = Path(__file__).parents[3] / "docs"
OUTPUTS = [output.name for output in BlockManifest.describe_outputs()]
DEMO = "moondream2-demo"
SHORT = {"max_tokens": 12}
SHAPES = ["circle", "square", "triangle", "star"]


def step(**fields):
    return {
        "type": "workflow_blocks/moondream2@v1",
        "name": "ask",
        "images": "$inputs.image",
    } | fields


def definition(*before, inputs=(), **fields):
    outputs = {name: f"$steps.ask.{name}" for name in OUTPUTS}
    return workflow(*before, step(**fields), inputs=inputs, outputs=outputs)


@pytest.fixture
def model(text_model):
    return text_model


@pytest.fixture
def ask(run_workflow, text_package):
    """Runs the block alone, by default on one image; gives the outputs for each image."""

    def run(images=IMAGES[:1], before=(), serialize=False, values=None, **fields):
        fields = {"model_version": text_package} | fields
        values = values or {}
        return run_workflow(
            definition(*before, inputs=list(values), **fields),
            serialize=serialize,
            image=list(images),
            **values,
        )

    return run


def test_questions_get_the_models_answers_in_the_form_of_the_prompt(ask, model):
    questions = ["What is this?", "Which colour is it?"]
    expected = model.answer(IMAGES, questions, max_new_tokens=12)
    texts = [[answer.text.strip() for answer in of_image] for of_image in expected]

    as_list = ask(IMAGES, prompt=questions, **SHORT)
    as_text = ask(IMAGES, prompt=questions[1], **SHORT)
    named = ask(IMAGES, prompt={"kind": questions[0], "colour": questions[1]}, **SHORT)

    assert [result["output"] for result in as_list] == texts
    assert [result["output"] for result in as_text] == [of_image[1] for of_image in texts]
    assert [result["output"] for result in named] == [
        dict(zip(["kind", "colour"], of_image, strict=True)) for of_image in texts
    ]
    assert as_list[0]["probability"] == pytest.approx([answer.probability for answer in expected[0]])
    assert named[0]["probability"]["colour"] == pytest.approx(expected[0][1].probability)
    assert as_list[0]["error_status"] is False
    assert as_list[0]["predictions"] is None
    assert as_list[0]["inference_id"] != as_list[1]["inference_id"]
    assert len(set(texts[0])) == 2


def test_unconstrained_is_a_question(ask):
    (question,) = ask(prompt="What is this?", **SHORT)
    (same,) = ask(task_type="unconstrained", prompt="What is this?", **SHORT)

    assert same["output"] == question["output"]


@pytest.mark.parametrize(
    ("task", "length"),
    [("caption", "short"), ("detailed-caption", "normal"), ("more-detailed-caption", "long")],
)
def test_captions_have_the_length_of_the_task(ask, model, task, length):
    (expected,) = model.describe(IMAGES[:1], length, max_new_tokens=12)

    (result,) = ask(task_type=task, **SHORT)

    assert result["output"] == expected.text.strip()
    assert result["probability"] == pytest.approx(expected.probability)


def test_sampling_depends_on_the_seed(ask):
    texts = [ask(prompt="What?", temperature=2.0, seed=seed, **SHORT)[0]["output"] for seed in (1, 1, 2)]

    assert texts[0] == texts[1] != texts[2]


def test_classes_get_probabilities_that_add_up_to_1(ask, model):
    classes = ["dog", "cat", "ball"]
    ((expected,),) = model.classify(IMAGES[:1], ["What is this?"], [classes])

    (result,) = ask(task_type="classification", classes=classes, prompt="What is this?", serialize=True)

    prediction = result["predictions"]
    scores = {entry["class"]: entry["confidence"] for entry in prediction["predictions"]}
    assert scores == pytest.approx({choice.text: choice.probability for choice in expected})
    assert sum(scores.values()) == pytest.approx(1)
    assert prediction["top"] == result["output"] == max(scores, key=scores.get)
    assert prediction["confidence"] == result["probability"] == max(scores.values())
    assert prediction["image"] == {"width": IMAGES[0].shape[1], "height": IMAGES[0].shape[0]}
    assert result["classes"] == classes


def test_each_of_several_labels_has_its_own_probability(ask, model):
    questions = [f"Does the image show {name}?" for name in ("dog", "cat")]
    (expected,) = model.classify(IMAGES[:1], questions, [["yes", "no"]] * 2)
    likely = [choice[0].probability for choice in expected]

    (result,) = ask(
        task_type="multi-label-classification",
        classes=["dog", "cat"],
        prompt="Does the image show {class}?",
        serialize=True,
    )

    entries = result["predictions"]["predictions"]
    assert [entry["confidence"] for entry in entries.values()] == pytest.approx(likely)
    predicted = [name for name, score in zip(entries, likely, strict=True) if score >= 0.5]
    assert result["predictions"]["predicted_classes"] == result["output"] == predicted


def test_open_vocabulary_detection_is_that_of_the_detection_block(run_workflow):
    limits = {"confidence": 0.3, "max_detections": 2, "iou_threshold": 0.6, "class_agnostic_nms": True}
    own = definition(
        task_type="open-vocabulary-object-detection", classes=SHAPES, model_version=DEMO, **limits
    )
    block = workflow(
        detection_step(prompts=SHAPES, **limits),
        inputs=[],
        outputs={
            "predictions": "$steps.detection.predictions",
            "counts": "$steps.detection.counts",
        },
    )

    (result,) = run_workflow(own, image=image_bgr(0))
    (expected,) = run_workflow(block, image=image_bgr(0))

    assert len(expected["predictions"])
    np.testing.assert_array_equal(result["predictions"].xyxy, expected["predictions"].xyxy)
    np.testing.assert_array_equal(result["predictions"].confidence, expected["predictions"].confidence)
    assert result["predictions"]["class_name"].tolist() == expected["predictions"]["class_name"].tolist()
    assert result["counts"] == expected["counts"]
    assert set(result["predictions"]["inference_id"]) == {result["inference_id"]}


def test_unprompted_detection_detects_what_the_model_names(ask, model):
    question = "What is this?"
    ((answer,),) = model.answer(IMAGES[:1], [question], max_new_tokens=12)

    (result,) = ask(task_type="object-detection", prompt=question, **SHORT)

    assert result["output"] == answer.text.strip()
    assert result["cut_short"] is (answer.p_end is None)
    assert result["error_status"] is (not result["classes"] or result["cut_short"])
    assert list(result["counts"]) == result["classes"]
    if result["classes"]:
        (boxes,) = model.detect(IMAGES[:1], result["classes"])
        assert len(result["predictions"]) <= len(boxes.xyxy)


def test_points_are_key_points_and_labeled_points(ask, model):
    names = ["dog", "red car"]
    (expected,) = model.point(IMAGES[:1], names)

    (result,) = ask(task_type="pointing", classes=names)

    assert len(expected.xy)
    found = result["predictions"]
    np.testing.assert_allclose(found["keypoints_xy"][:, 0], expected.xy.numpy(), atol=1e-3)
    np.testing.assert_allclose(found.confidence, expected.confidence.numpy(), atol=1e-6)
    assert [(point["x"], point["y"]) for point in result["points"]] == [
        pytest.approx(xy) for xy in expected.xy.tolist()
    ]
    assert {point["positive"] for point in result["points"]} == {True}
    assert result["counts"] == {
        name: int((expected.class_id == number).sum()) for number, name in enumerate(names)
    }


def boxes_input():
    return {"type": "WorkflowBatchInput", "name": "boxes", "kind": ["object_detection_prediction"]}


def ask_boxes(run_workflow, images, boxes, serialize=False, **fields):
    own = definition(grounding_detection="$inputs.boxes", **fields)
    own["inputs"].append(boxes_input())
    return run_workflow(own, serialize=serialize, image=images, boxes=boxes)


def prediction(image, *boxes, size=None):
    """Serialised detections of corners in pixels."""
    height, width = size or image.shape[:2]
    return {
        "image": {"width": width, "height": height},
        "predictions": [
            {
                "x": (x1 + x2) / 2,
                "y": (y1 + y2) / 2,
                "width": x2 - x1,
                "height": y2 - y1,
                "confidence": 0.9,
                "class": "thing",
                "class_id": 0,
                "detection_id": f"box-{number}",
            }
            for number, (x1, y1, x2, y2) in enumerate(boxes)
        ],
    }


GROUNDED = "detection-grounded-visual-question-answering"
BOXES = [(10, 20, 110, 120), (50, 60, 200, 150)]


def relative(image, boxes):
    height, width = image.shape[:2]
    return [(x1 / width, y1 / height, x2 / width, y2 / height) for x1, y1, x2, y2 in boxes]


def test_every_question_is_asked_about_every_box(run_workflow, text_package, model):
    image = IMAGES[0]
    questions = {"kind": "What is this?", "colour": "Which colour is it?"}
    places = [[box] for box in relative(image, BOXES) for _ in questions]
    (expected,) = model.answer(
        [image], list(questions.values()) * len(BOXES), max_new_tokens=12, spatial_refs=places
    )
    texts = [answer.text.strip() for answer in expected]

    (result,) = ask_boxes(
        run_workflow,
        [image],
        [prediction(image, *BOXES)],
        task_type=GROUNDED,
        prompt=questions,
        model_version=text_package,
        **SHORT,
    )

    found = result["predictions"]
    assert [a["answer_kind"] for a in result["attributes"]] == texts[::2] == found["answer_kind"].tolist()
    assert [a["answer_colour"] for a in result["attributes"]] == texts[1::2]
    assert [a["answer_colour_probability"] for a in result["attributes"]] == pytest.approx(
        [answer.probability for answer in expected[1::2]]
    )
    assert [a["detection_id"] for a in result["attributes"]] == ["box-0", "box-1"]
    assert found["class_name"].tolist() == ["thing", "thing"]
    assert result["output"] == [
        {"kind": texts[0], "colour": texts[1]},
        {"kind": texts[2], "colour": texts[3]},
    ]
    assert result["error_status"] is False


def test_classes_of_boxes_replace_their_names(run_workflow, text_package, model):
    image, classes = IMAGES[0], ["dog", "cat", "ball"]
    (expected,) = model.classify(
        [image],
        ["What is it?"] * 2,
        [classes] * 2,
        spatial_refs=[[box] for box in relative(image, BOXES)],
    )
    best = [max(choices, key=lambda choice: choice.probability) for choices in expected]

    (result,) = ask_boxes(
        run_workflow,
        [image],
        [prediction(image, *BOXES)],
        serialize=True,
        task_type="detection-grounded-classification",
        prompt="What is it?",
        classes=classes,
        replace_class=True,
        model_version=text_package,
    )

    found = result["predictions"]["predictions"]
    assert [box["class"] for box in found] == [choice.text for choice in best]
    assert [box["class_id"] for box in found] == [classes.index(choice.text) for choice in best]
    assert [a["answer_probability"] for a in result["attributes"]] == pytest.approx(
        [choice.probability for choice in best]
    )


def test_reasoning_about_boxes_is_that_of_each_box(run_workflow, text_package):
    image = IMAGES[0]
    fields = {"task_type": GROUNDED, "reasoning": True, "model_version": text_package, **SHORT}
    boxes = [prediction(image, BOXES[0], (-9, -9, -1, -1), BOXES[1])]

    (one,) = ask_boxes(run_workflow, [image], boxes, prompt="What?", **fields)
    (named,) = ask_boxes(run_workflow, [image], boxes, prompt={"kind": "What?"}, **fields)

    assert [thought is None for thought in one["reasoning"]] == [False, True, False]
    assert one["reasoning"][0]["text"] != one["reasoning"][2]["text"]
    assert named["reasoning"][2] == {"kind": one["reasoning"][2]}
    assert one["cut_short"][1] is None


def test_answers_that_become_classes_keep_their_ids_from_image_to_image(run_workflow, text_package):
    flipped = np.ascontiguousarray(IMAGES[0][:, ::-1])
    images = [IMAGES[0], flipped]

    results = ask_boxes(
        run_workflow,
        images,
        [prediction(images[0], *BOXES), prediction(flipped, *reversed(BOXES), (-9, -9, -1, -1))],
        task_type=GROUNDED,
        prompt="What is this?",
        replace_class=True,
        model_version=text_package,
        **SHORT,
    )

    pairs = [
        pair
        for result in results
        for pair in zip(
            result["predictions"]["class_name"].tolist(), result["predictions"].class_id.tolist(), strict=True
        )
    ]
    assert len(dict(pairs)) == len(set(pairs)) == len({number for _, number in pairs}) >= 2
    assert results[1]["predictions"]["class_name"][2] == "thing"


def test_boxes_that_cannot_be_asked_about_get_empty_answers_and_others_do(run_workflow, text_package):
    image = IMAGES[0]
    height, width = image.shape[:2]
    outside, degenerate = (width + 5, 5, width + 50, 50), (10, 10, 10, 50)
    partly = (-20, -20, 60, 60)
    boxes = [
        prediction(image, BOXES[0], outside, degenerate, partly),
        prediction(image, BOXES[0], size=(height * 2, width * 2)),
        prediction(image),
        prediction(image, BOXES[0]),
    ]

    results = ask_boxes(
        run_workflow,
        [image] * 4,
        boxes,
        task_type=GROUNDED,
        prompt="What is this?",
        model_version=text_package,
        **SHORT,
    )

    probabilities = [[a["answer_probability"] for a in result["attributes"]] for result in results]
    assert [value is None for value in probabilities[0]] == [False, True, True, False]
    assert [a["answer"] for a in results[0]["attributes"]][1:3] == ["", ""]
    assert probabilities[1] == [None]
    assert probabilities[2] == []
    assert [result["error_status"] for result in results] == [True, True, False, False]
    assert probabilities[3][0] == pytest.approx(probabilities[0][0], rel=1e-3)


def test_boxes_with_nan_are_not_asked_about(run_workflow, text_package):
    image = IMAGES[0]
    detections = sv.Detections(
        xyxy=np.array([[np.nan, 1, 50, 50], [1, 1, 50, 50]], np.float32),
        class_id=np.zeros(2, int),
        confidence=np.ones(2, np.float32),
        data={"class_name": np.array(["a", "b"])},
    )

    (result,) = ask_boxes(
        run_workflow,
        [image],
        [detections],
        task_type=GROUNDED,
        prompt="What is this?",
        model_version=text_package,
        **SHORT,
    )

    assert [a["answer_probability"] is None for a in result["attributes"]] == [True, False]
    assert all(a["detection_id"] for a in result["attributes"])


def test_without_boxes_no_model_is_loaded(run_workflow):
    (result,) = ask_boxes(
        run_workflow,
        [IMAGES[0]],
        [prediction(IMAGES[0])],
        task_type=GROUNDED,
        prompt="What is this?",
        model_version="no/such-model",
    )

    assert result["attributes"] == []
    assert len(result["predictions"]) == 0
    assert result["error_status"] is False


def test_answers_that_cannot_be_parsed_are_empty(ask):
    (result,) = ask(prompt=["What is this?"], parse_as="number", **SHORT)

    assert result["output"] == [None]
    assert result["error_status"] is True
    assert result["probability"][0] > 0


def test_no_value_is_read_from_a_text_that_was_cut_short(ask, model, monkeypatch):
    from workflow_blocks.blocks.moondream2 import outputs

    monkeypatch.setattr(outputs, "parse_answer", lambda text, form: text)  # any text is a number
    ((whole,),) = model.answer(IMAGES[:1], ["What is this?"], max_new_tokens=300)
    assert whole.p_end is not None, "the random model does not end; ask another question"
    n_tokens = len(whole.token_ids)

    (cut,) = ask(prompt="What is this?", parse_as="number", max_tokens=n_tokens)
    (complete,) = ask(prompt="What is this?", parse_as="number", max_tokens=n_tokens + 1)
    (text,) = ask(prompt="What is this?", max_tokens=n_tokens)

    assert (cut["output"], cut["cut_short"], cut["error_status"]) == (None, True, True)
    assert (complete["output"], complete["cut_short"], complete["error_status"]) == (
        whole.text.strip(),
        False,
        False,
    )
    assert (text["output"], text["cut_short"], text["error_status"]) == (whole.text.strip(), True, False)


def test_reasoning_has_its_places_in_pixels(ask, model):
    ((expected,),) = model.answer(IMAGES[:1], ["What is this?"], max_new_tokens=40, reasoning=True)

    (result,) = ask(prompt="What is this?", reasoning=True, max_tokens=40)

    assert result["output"] == expected.text.strip()
    assert result["reasoning"]["text"] == expected.reasoning.text
    assert len(result["reasoning"]["grounding"]) == len(expected.reasoning.grounding)


def test_each_image_may_have_its_own_prompt_and_classes(ask, run_workflow, text_package):
    own = definition(prompt="$inputs.prompt", model_version=text_package, **SHORT)
    own["inputs"] = [
        {"type": "InferenceImage", "name": "image"},
        {"type": "WorkflowBatchInput", "name": "prompt", "kind": ["string", "list_of_values"]},
    ]
    questions = ["What is this?", ["Which colour?", "How many?"]]

    results = run_workflow(own, image=IMAGES, prompt=questions)

    alone = [ask([image], prompt=q, **SHORT)[0]["output"] for image, q in zip(IMAGES, questions, strict=True)]
    assert [result["output"] for result in results] == alone


def test_questions_from_inputs(ask):
    (from_input,) = ask(prompt="$inputs.question", values={"question": ["What is this?"]}, **SHORT)
    (in_dictionary,) = ask(prompt={"kind": "$inputs.question"}, values={"question": "What is this?"}, **SHORT)

    assert in_dictionary["output"] == {"kind": from_input["output"][0]}


WRONG_STEPS = [
    ({}, "`prompt` is empty"),
    ({"task_type": "classification"}, "`classes` is empty"),
    ({"task_type": "classification", "classes": ["dog"]}, "at least two"),
    ({"task_type": "classification", "classes": ["dog", " dog "]}, "at least two"),
    ({"task_type": "classification", "classes": ["a", "b"], "prompt": ["a?", "b?"]}, "give one question"),
    ({"task_type": "multi-label-classification", "classes": ["a"], "prompt": "is it?"}, "{class}"),
    ({"task_type": "pointing"}, "`classes` is empty"),
    ({"task_type": "classification", "classes": {"a": "b", "c": "d"}}, "give a list such as"),
    (
        {
            "task_type": GROUNDED,
            "prompt": {"helmet": "a?", "helmet_probability": "b?"},
            "grounding_detection": "$steps.a.predictions",
        },
        "give the second another name",
    ),
    (
        {
            "task_type": GROUNDED,
            "prompt": "a?",
            "replace_class": True,
            "parse_as": "list",
            "grounding_detection": "$steps.a.predictions",
        },
        "`parse_as` is 'list'",
    ),
    ({"task_type": GROUNDED, "prompt": "What?"}, "`grounding_detection` is empty"),
    (
        {
            "task_type": GROUNDED,
            "prompt": ["a?", "b?"],
            "replace_class": True,
            "grounding_detection": "$steps.a.predictions",
        },
        "give one question",
    ),
]


@pytest.mark.parametrize(("fields", "message"), WRONG_STEPS)
def test_what_a_task_cannot_do_without_is_checked_before_the_run(fields, message):
    with pytest.raises(ValidationError, match=message.replace("{", r"\{")):
        BlockManifest.model_validate(step(**fields))


AT_RUN_TIME = [
    ([], "prompt"),
    ([""], "prompt"),
    ("", "prompt"),
    (["a?", 3], "prompt"),
    ({"colour": 3}, "prompt"),
    ({}, "prompt"),
    ([f"{number}?" for number in range(65)], "prompt"),
]


@pytest.mark.parametrize(("value", "field"), AT_RUN_TIME, ids=lambda value: str(value)[:20])
def test_bad_questions_at_run_time_are_errors_that_name_the_field(ask, value, field):
    with pytest.raises(WorkflowError) as raised:
        ask(prompt="$inputs.value", values={"value": value}, model_version="no/such-model")

    assert f"`{field}`" in str(raised.value.inner_error)


def test_a_text_that_does_not_fit_the_context_is_an_error(ask):
    with pytest.raises(WorkflowError, match="tokens"):
        ask(prompt="🐕" * 900)


@pytest.mark.parametrize("task", ["visual-question-answering", "caption"])
def test_a_model_without_the_skill_is_an_error_that_names_it(ask, golden_package, task):
    with pytest.raises(WorkflowError, match="was not made to"):
        ask(task_type=task, prompt="What is this?", model_version=str(golden_package))


def test_fields_that_the_task_does_not_read_are_logged_and_no_error(caplog):
    with caplog.at_level(logging.WARNING):
        BlockManifest.model_validate(
            step(task_type="caption", classes=["dog"], parse_as="list", prompt="What?")
        )

    assert "'caption' does not read prompt, classes, parse_as" in caplog.text


def test_values_that_other_tasks_left_are_not_read(ask):
    left_over = {"classes": ["dog"], "prompt": "What?", "parse_as": "number", "reasoning": True}

    (result,) = ask(task_type="caption", replace_class=True, **left_over, **SHORT)
    (clean,) = ask(task_type="caption", **SHORT)

    assert result["output"] == clean["output"] != ""
    assert result["error_status"] is False


def test_an_image_with_nothing_to_locate_is_empty_and_others_are_not(ask, run_workflow, text_package):
    for task in ("open-vocabulary-object-detection", "pointing"):
        own = definition(task_type=task, classes="$inputs.classes", model_version=text_package)
        own["inputs"] = [
            {"type": "InferenceImage", "name": "image"},
            {"type": "WorkflowBatchInput", "name": "classes", "kind": ["list_of_values"]},
        ]

        nothing, something = run_workflow(own, image=IMAGES, classes=[[], ["dog"]])

        (alone,) = ask(IMAGES[1:], task_type=task, classes=["dog"])
        assert len(nothing["predictions"]) == 0
        assert nothing["counts"] == {}
        assert (nothing["classes"], something["classes"]) == ([], ["dog"])
        assert nothing["error_status"] is False
        assert something["counts"] == alone["counts"]


def test_prompts_of_a_class_point_at_its_objects_once(ask, model):
    (expected,) = model.point(IMAGES[:1], ["dog", "cat"])
    of_dog = expected.xy[expected.class_id == 0].numpy()
    of_cat = expected.xy[expected.class_id == 1].numpy()
    near = 0.03 * max(IMAGES[0].shape[:2])
    new = [xy for xy in of_cat if not (np.linalg.norm(of_dog - xy, axis=1) <= near).any()]

    (result,) = ask(task_type="pointing", classes={"pet": ["dog", "cat"], "feline": "cat"})

    assert result["counts"] == {"pet": len(of_dog) + len(new), "feline": len(of_cat)}
    assert result["classes"] == ["pet", "feline"]


def test_all_that_is_asked_is_checked_before_an_image_is_encoded(ask, run_workflow, text_package, caplog):
    own = definition(prompt="$inputs.prompt", model_version=text_package, **SHORT)
    own["inputs"] = [
        {"type": "InferenceImage", "name": "image"},
        {"type": "WorkflowBatchInput", "name": "prompt", "kind": ["string"]},
    ]

    with caplog.at_level(logging.INFO), pytest.raises(WorkflowError, match="tokens"):
        run_workflow(own, image=IMAGES, prompt=["What?", "🐕" * 900])

    assert "decoded in" not in caplog.text


def test_detections_of_another_step_stay_as_they_are(run_workflow, text_package):
    nothing = {**detection_step(prompts=["dog"], confidence=1.0), "model_version": DEMO}
    before = {"type": "workflow_blocks/detections_table@v1", "name": "table"}
    outputs = {"csv": "$steps.table.content", "answers": "$steps.ask.attributes"}
    own = workflow(
        nothing,
        step(
            task_type=GROUNDED,
            prompt="What?",
            grounding_detection="$steps.detection.predictions",
            model_version=text_package,
        ),
        {**before, "predictions": "$steps.detection.predictions"},
        inputs=[],
        outputs=outputs,
    )

    (result,) = run_workflow(own, image=IMAGES[0])

    assert result["answers"] == []
    assert "answer" not in result["csv"]


@pytest.mark.parametrize("task", list(TASKS))
def test_outputs_are_typed_by_the_task(task):
    fields = {"prompt": "What?", "classes": ["a", "b"], "grounding_detection": "$steps.a.predictions"}
    used = {name: value for name, value in fields.items() if name in TASKS[task].required}

    outputs = BlockManifest.model_validate(step(task_type=task, **used)).get_actual_outputs()

    (kinds,) = [output.kind for output in outputs if output.name == "predictions"]
    assert {kind.name for kind in kinds} == {kind.name for kind in TASKS[task].kinds} or not TASKS[task].kinds
    assert [output.name for output in outputs] == OUTPUTS


def steps_of_the_guide():
    text = (GUIDE_FOLDER / "from_the_core_block.md").read_text()
    return list(map(json.loads, re.findall(r"```json\n(.*?)```", text, re.DOTALL)))


def test_the_steps_of_the_guide_compile(run_workflow):
    core, detection, attributes = steps_of_the_guide()
    limiter = {
        "type": "roboflow_core/rate_limiter@v1",
        "name": "limiter",
        "cooldown_seconds": 1,
        "depends_on": "$inputs.image",
        "next_steps": ["$steps.detection"],
        "video_reference_image": "$inputs.image",
    }
    steps = [limiter, *({**step, "model_version": DEMO} for step in (detection, attributes))]
    outputs = {"predictions": "$steps.detection.predictions", "attributes": "$steps.attributes.attributes"}

    (result,) = run_workflow(workflow(*steps, inputs=[], outputs=outputs), image=image_bgr(0) * 0)

    assert core["prompt"] in detection["classes"]
    assert result["attributes"] == []
