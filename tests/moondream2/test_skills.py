"""Points, answers, captions, choices and reasoning are those of the reference, in any grouping."""

import json
import math
import random
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from workflow_blocks.moondream2.answers import TextSettings
from workflow_blocks.moondream2.decoding import Request
from workflow_blocks.moondream2.memory import WorkingMemory
from workflow_blocks.moondream2.prompt_tokens import Prompts
from workflow_blocks.moondream2.runtime import Query, Question, Runtime

MOST_TOKENS = 40
SETTINGS = TextSettings(max_tokens=MOST_TOKENS)


@pytest.fixture(scope="module")
def expected(golden_folder):
    return json.loads((golden_folder / "expected_skills.json").read_text())


@pytest.fixture(scope="module")
def text_folder(golden_folder, tmp_path_factory):
    """The golden checkpoint with a text head whose texts differ and end."""
    folder = tmp_path_factory.mktemp("golden_with_text")
    shutil.copy(golden_folder / "config_with_text.json", folder / "config.json")
    shutil.copy(golden_folder / "tokenizer.json", folder)
    weights = load_file(golden_folder / "model.safetensors") | load_file(
        golden_folder / "lm_head_text.safetensors"
    )
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def runtime(text_folder):
    return Runtime.from_folder(text_folder)


@pytest.fixture(scope="module")
def encoded(runtime, expected, golden_folder):
    names = sorted({case["image"] for kind in expected.values() if isinstance(kind, list) for case in kind})
    images = [np.asarray(Image.open(golden_folder / name).convert("RGB")) for name in names]
    return dict(zip(names, runtime.encode_images(images), strict=True))


def question_of(case, encoded):
    return Question(encoded[case["image"]], case["question"], case.get("spatial_refs") or ())


def assert_answer(answer, case, text):
    assert answer.text == case[text]
    assert list(answer.token_ids) == case["token_ids"]
    assert answer.probabilities == pytest.approx(case["probabilities"], abs=1e-3)
    assert answer.p_end == (None if case["p_eos"] is None else pytest.approx(case["p_eos"], abs=1e-3))


def groupings(cases):
    """All together, one by one, and mixed groups."""
    mixed = random.Random(0).sample(cases, len(cases))
    yield [cases]
    yield [[case] for case in cases]
    yield [mixed[start : start + 7] for start in range(0, len(mixed), 7)]


def test_points(golden_detector, expected, golden_folder):
    cases = expected["points"]
    names = sorted({case["image"] for case in cases})
    images = [np.asarray(Image.open(golden_folder / name).convert("RGB")) for name in names]
    encoded = dict(zip(names, golden_detector.encode_images(images), strict=True))

    for groups in groupings(cases):
        for group in groups:
            found = golden_detector.point(
                [Query(encoded[case["image"]], case["prompt"]) for case in group], 12
            )
            for points, case in zip(found, group, strict=True):
                assert [(point.x, point.y) for point in points] == [(p["x"], p["y"]) for p in case["points"]]
                assert all(0 <= point.confidence <= 1 for point in points)
    assert any(case["points"] for case in cases)


def test_answers(runtime, expected, encoded):
    for groups in groupings(expected["answers"]):
        for group in groups:
            answers = runtime.query([question_of(case, encoded) for case in group], SETTINGS)
            for answer, case in zip(answers, group, strict=True):
                assert_answer(answer, case, "answer")


def test_prompts_of_questions(runtime, text_folder, expected):
    prompts = Prompts(runtime.model.config, runtime.tokenizer)
    for case in expected["answers"]:
        assert list(prompts.query(case["question"], case["spatial_refs"] or ()).ids) == case["prompt_ids"]


def test_captions(runtime, expected, encoded):
    for length in ("short", "normal", "long"):
        cases = [case for case in expected["captions"] if case["length"] == length]
        answers = runtime.caption([encoded[case["image"]] for case in cases], length, SETTINGS)
        for answer, case in zip(answers, cases, strict=True):
            assert_answer(answer, case, "caption")


def test_choices(runtime, expected, encoded):
    prompts = Prompts(runtime.model.config, runtime.tokenizer)
    for case in expected["choices"]:
        request = Request(encoded[case["image"]], prompts.query(case["question"]))
        choices = case["log_probabilities"]
        found = runtime._choices.log_probabilities([request] * len(choices), list(choices))
        assert found == pytest.approx(list(choices.values()), abs=1e-3)


def test_choices_add_up_their_spellings(runtime, expected, encoded):
    case = expected["choices"][0]
    question = question_of(case, encoded)
    request = Request(question.image, Prompts(runtime.model.config, runtime.tokenizer).query(question.text))
    (scored,) = runtime.score_choices([question], [["dog", "x"]])

    for choice in scored:
        spellings = runtime._choices.log_probabilities([request] * 2, [choice.text, f" {choice.text}"])
        assert choice.log_probability == pytest.approx(np.logaddexp(*spellings), abs=1e-6)
    assert sum(choice.probability for choice in scored) == pytest.approx(1)
    odds = math.exp(scored[0].log_probability - scored[1].log_probability)
    assert scored[0].probability / scored[1].probability == pytest.approx(odds)


def test_reasoning(runtime, expected, encoded):
    for groups in groupings(expected["reasoning"]):
        for group in groups:
            answers = runtime.query([question_of(case, encoded) for case in group], SETTINGS, reasoning=True)
            for answer, case in zip(answers, group, strict=True):
                assert answer.reasoning.text == case["reasoning"]["text"]
                found = [
                    {"start_idx": part.start, "end_idx": part.end, "points": [list(p) for p in part.points]}
                    for part in answer.reasoning.grounding
                ]
                assert found == case["reasoning"]["grounding"]
                assert answer.text == case["answer"]


def test_texts_are_the_same_when_memory_is_short(runtime, text_folder, expected, encoded):
    small = Runtime(runtime.model, runtime.tokenizer, WorkingMemory(2**22))
    cases = expected["answers"][:20]

    answers = small.query([question_of(case, encoded) for case in cases], SETTINGS)

    for answer, case in zip(answers, cases, strict=True):
        assert_answer(answer, case, "answer")
