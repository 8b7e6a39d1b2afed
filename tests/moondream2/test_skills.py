"""Points, answers, captions, choices and reasoning are those of the reference, in any grouping."""

import json
import math
import random
import re

import numpy as np
import pytest
from PIL import Image

from tests.stand_ins import SHAPES_MODEL, checkpoint_with_text
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.moondream2.answers import TextSettings, TextSettingsError
from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.decoding import Request
from workflow_blocks.moondream2.memory import WorkingMemory
from workflow_blocks.moondream2.prompt_tokens import PromptError, Prompts, PromptTooLongError, SkillError
from workflow_blocks.moondream2.runtime import Query, Question, Runtime

MOST_TOKENS = 40
SETTINGS = TextSettings(max_tokens=MOST_TOKENS)


@pytest.fixture(scope="module")
def expected(golden_folder):
    return json.loads((golden_folder / "expected_skills.json").read_text())


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    return checkpoint_with_text(tmp_path_factory.mktemp("golden_with_text"))


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


@pytest.mark.parametrize("skill", ["detect", "point"])
@pytest.mark.parametrize("name", ["red  circle", " red circle\n", "red\n\tcircle", "red\xa0\u3000circle"])
def test_blanks_in_a_name_change_nothing(golden_detector, skill, name):
    prompts = Prompts(golden_detector.model.config, golden_detector.tokenizer)

    assert getattr(prompts, skill)(name) == getattr(prompts, skill)("red circle")


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
        assert choice.log_probability == pytest.approx(np.logaddexp(*spellings), abs=1e-4)
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


@pytest.mark.parametrize(
    ("ask", "skill"),
    [
        (lambda runtime, image: runtime.query([Question(image, "what?")]), "answer questions"),
        (lambda runtime, image: runtime.caption([image], "short"), "write short captions"),
        (lambda runtime, image: runtime.score_choices([Question(image, "?")], [["a", "b"]]), "answer"),
    ],
    ids=["query", "caption", "choices"],
)
def test_a_model_without_a_template_lacks_the_skill(golden_detector, ask, skill):
    (image,) = golden_detector.encode_images([np.zeros((20, 20, 3), np.uint8)])

    with pytest.raises(SkillError, match=f"this model was not made to {skill}"):
        ask(golden_detector, image)


def test_a_small_model_without_templates_of_its_own_lacks_the_skills():
    detector = Runtime.from_folder(SHAPES_MODEL)
    (image,) = detector.encode_images([np.zeros((20, 20, 3), np.uint8)])

    with pytest.raises(SkillError, match="this model was not made to point"):
        detector.point([Query(image, "circle")])


@pytest.mark.parametrize(
    ("question", "references", "problem"),
    [
        pytest.param(" ", (), "' '; give a string that is not blank", id="blank"),
        pytest.param(7, (), "is 7; give a string", id="no string"),
        pytest.param("\ud800", (), "half of a surrogate pair", id="no Unicode"),
        pytest.param("what?", [(0.1, 0.2, 0.3)], "give a point", id="three numbers"),
        pytest.param("what?", [(0.1, math.nan)], "from 0 to 1", id="not a number"),
        pytest.param("what?", [(0.1, 1.2)], "from 0 to 1", id="outside"),
        pytest.param("what?", [(True, 0.2)], "from 0 to 1", id="boolean"),
        pytest.param("what?", [(0.5, 0.2, 0.4, 0.6)], "x_min < x_max", id="corners the wrong way round"),
        pytest.param("what?", ["ab"], "give a point", id="a string"),
        pytest.param("what?", 5, "give a list", id="no list"),
        pytest.param("what?", [(0.1, 0.2)] * 33, "at most 32", id="too many"),
    ],
)
def test_questions_that_cannot_be_asked(runtime, encoded, question, references, problem):
    image = next(iter(encoded.values()))

    with pytest.raises(PromptError, match=re.escape(problem)):
        runtime.query([Question(image, question, references)])


def test_a_question_that_leaves_no_room_for_an_answer(runtime, encoded):
    with pytest.raises(PromptTooLongError, match="tokens; at most 1317 fit"):
        runtime.query([Question(next(iter(encoded.values())), "x" * 5000)])


@pytest.mark.parametrize(
    ("choices", "problem"),
    [
        ([], "give at least two"),
        (["one"], "give at least two"),
        ("yes", "are a str, 'yes'; give a list of at least two"),
        (["a", " a"], "more than once"),
        (["a", " "], "not blank"),
        (["a", 1], "not blank"),
        (["a", "\ud800"], "surrogate"),
        ({"yes", "no"}, "give a list of at least two"),
        (5, "give a list of at least two"),
        (["a", "x" * 5000], "tokens; at most 1317 fit"),
        (["a", "x" * 50_000], "50000 characters; at most 1318 tokens fit"),
        ([str(number) for number in range(300)], "at most 256"),
    ],
)
def test_choices_that_cannot_be_scored(runtime, encoded, choices, problem):
    with pytest.raises(PromptError, match=problem):
        runtime.score_choices([Question(next(iter(encoded.values())), "what?")], [choices])


def test_sampled_texts_depend_on_the_seed_and_not_on_the_grouping(runtime, encoded):
    images = list(encoded.values())[:4]
    questions = [Question(image, text) for image in images for text in ("what is red?", "x")]

    def texts(seed, groups):
        settings = TextSettings(max_tokens=12, temperature=1.0, top_p=0.9, seed=seed)
        return [answer.text for group in groups for answer in runtime.query(group, settings)]

    together = texts(1, [questions])
    assert together == texts(1, [[question] for question in questions])
    assert together != texts(2, [questions])
    assert together != [answer.text for answer in runtime.query(questions, TextSettings(max_tokens=12))]


def test_a_tiny_top_p_is_greedy(runtime, encoded):
    questions = [Question(image, "what is red?") for image in encoded.values()]
    sampled = runtime.query(questions, TextSettings(max_tokens=12, temperature=2.0, top_p=1e-6))

    greedy = runtime.query(questions, TextSettings(max_tokens=12))

    assert [answer.token_ids for answer in sampled] == [answer.token_ids for answer in greedy]


@pytest.mark.parametrize(
    "values",
    [
        *({"max_tokens": value} for value in (0, 1.5, None, True)),
        *({"temperature": value} for value in (-1, math.inf, math.nan, "hot")),
        *({"top_p": value} for value in (0, 1.1, None)),
        *({"seed": value} for value in (-1, 0.5, "x")),
    ],
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(TextSettingsError, match=f"{next(iter(values))} is "):
        TextSettings(**values)


def test_no_questions_give_no_answers(runtime):
    assert runtime.query([]) == []
    assert runtime.score_choices([], []) == []


def test_a_config_lists_the_skills_that_its_model_has(text_folder, tmp_path):
    def skills_of(folder):
        return Moondream2Config.from_file(folder / "config.json").skills

    with_all = ["detect", "point", "query", "caption short", "caption normal", "caption long"]
    assert Moondream2Config().skills == with_all  # the released model
    assert skills_of(text_folder) == with_all
    assert skills_of(demo_model_folder()) == with_all
    assert skills_of(SHAPES_MODEL) == ["detect"]
    document = json.loads((text_folder / "config.json").read_text())
    templates = document["config"]["tokenizer"]["templates"]
    templates["query"] = templates["caption"]["long"] = None
    templates["point"] = {"prefix": [], "suffix": []}
    (tmp_path / "config.json").write_text(json.dumps(document))
    assert skills_of(tmp_path) == ["detect", "caption short", "caption normal"]
