"""Invalid arguments of the model class: a clear error before the model runs."""

import re
from functools import partial

import cv2
import numpy as np
import pytest
from inference_models.entities import ImageDimensions
from inference_models.errors import ModelInputError
from inference_models.models.moondream2.moondream2_hf import EncodedImage

from tests.stand_ins import GOLDEN, checkpoint_with_text
from workflow_blocks.inference_host.arguments import Sampling
from workflow_blocks.inference_host.model import Moondream2Model
from workflow_blocks.moondream2.runtime import Runtime

IMAGE = np.zeros((30, 40, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(checkpoint_with_text(tmp_path_factory.mktemp("with_text")))


@pytest.fixture(scope="module")
def model(folder):
    return Moondream2Model.from_pretrained(folder)


@pytest.fixture
def refused(model, monkeypatch):
    """The message about arguments, of a model that must not run."""

    def refuse(skill, *arguments, images=IMAGE, **options):
        with monkeypatch.context() as patches:
            patches.setattr(Runtime, "_encode", lambda *_: pytest.fail("the model runs"))
            patches.setattr(Runtime, "detect", lambda *_: pytest.fail("the model runs"))
            with pytest.raises(ModelInputError) as raised:
                getattr(model, skill)(images, *arguments, **options)
        return str(raised.value)

    return refuse


TEXT_SKILLS = [("query", ("what?",)), ("caption", ()), ("answer", (["what?"],)), ("describe", ())]


@pytest.mark.parametrize(("skill", "arguments"), TEXT_SKILLS)
@pytest.mark.parametrize("sampling", [None, 0.5, (0.1, 1.0, 1, 2), "hot", {"seed": 1}])
def test_a_sampling_of_another_form(refused, skill, arguments, sampling):
    message = refused(skill, *arguments, sampling=sampling)

    assert "sampling is " in message
    assert "give Sampling(temperature, top_p, seed)" in message


@pytest.mark.parametrize(("skill", "arguments"), TEXT_SKILLS)
@pytest.mark.parametrize("tokens", [0, -1, None, 1.5, "many", True])
def test_max_new_tokens_is_named(refused, skill, arguments, tokens):
    message = refused(skill, *arguments, max_new_tokens=tokens)

    assert f"max_new_tokens is {tokens!r}; give a whole number from 1" in message


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        (None, "classes is None; give a list of classes for each question"),
        (5, "classes is 5; give a list of classes"),
        ("yes", "classes is 'yes'; give a list"),
        ({"yes": "no"}, "give a list of classes for each question"),
        ([], "0 lists of classes are given for 1 questions"),
        ([{"yes", "no"}], "the classes of a question are a set, {"),
        ([{"yes", "no"}], "give a list of at least two"),
        ([None], "the classes of a question are a NoneType"),
        (["yes"], "the classes of a question are a str"),
        ([["yes"]], "the classes of a question are ['yes']; give at least two"),
        ([["yes", None]], "one of the classes is None; give a string"),
        ([["yes", " yes"]], "the classes hold 'yes' more than once"),
        ([[str(number) for number in range(257)]], "257 classes are given; at most 256"),
        ([["yes", "x" * 10_000_000]], "has 10000000 characters"),
    ],
)
def test_classes_of_another_form(refused, classes, problem):
    message = refused("classify", ["what?"], classes)

    assert problem in message
    assert "choice" not in message


@pytest.mark.parametrize(
    ("skill", "arguments"),
    [
        ("detect", lambda text: [[text]]),
        ("point", lambda text: [[text]]),
        ("query", lambda text: [text]),
        ("answer", lambda text: [["what?", text]]),
        ("classify", lambda text: [[text], [["yes", "no"]]]),
    ],
)
@pytest.mark.parametrize("text", ["x" * 10_000_000, "\N{GRINNING FACE}" * 1_000_000], ids=["ASCII", "emoji"])
def test_a_text_that_is_far_too_long_is_refused_by_its_characters(refused, skill, arguments, text):
    message = refused(skill, *arguments(text))

    assert f"has {len(text)} characters" in message.replace(f"{len(text) + 1}", f"{len(text)}")


def test_the_longest_text_that_fits_is_not_refused_for_its_characters(refused):
    longest = max(Runtime.from_folder(GOLDEN).tokenizer.get_vocab(), key=len)

    message = refused("query", longest * 1318)  # as many tokens as fit beside the image

    assert "tokens; at most" in message


@pytest.mark.parametrize("skill", ["query", "answer"])
def test_no_references_are_the_default(model, skill):
    question = "what?" if skill == "query" else ["what?"]

    ask = partial(getattr(model, skill), IMAGE, question, 3)

    assert ask(spatial_refs=None) == ask(spatial_refs=[] if skill == "query" else [None]) == ask()


@pytest.mark.parametrize("sampling", [(), (0.0,), [0.0, 1.0], (0.0, 1.0, 0), Sampling()])
def test_a_shorter_sampling_has_the_defaults(model, sampling):
    assert model.query(IMAGE, "what?", 3, sampling=sampling) == model.query(IMAGE, "what?", 3)


@pytest.mark.parametrize(
    ("skill", "arguments"),
    [
        ("encode_images", ()),
        ("detect", (["dog"],)),
        ("point", (["dog"],)),
        ("query", ("what?",)),
        ("caption", ()),
        ("classify", (["what?"], [["yes", "no"]])),
    ],
)
@pytest.mark.parametrize("other", ["sizes", "weights", "class"])
def test_an_image_that_another_model_encoded(model, folder, demo_detector, refused, skill, arguments, other):
    encoded = {
        "sizes": lambda: Moondream2Model(demo_detector).encode_images(IMAGE),
        "weights": lambda: Moondream2Model.from_pretrained(folder).encode_images(IMAGE),
        "class": lambda: [EncodedImage(object(), ImageDimensions(30, 40))],
    }[other]()

    for images in (encoded[0], encoded, [*model.encode_images(IMAGE), *encoded]):
        message = refused(skill, *arguments, images=images)
        assert "encoded by another model; encode it with this one" in message


def test_images_that_this_model_encoded_are_used(model):
    image = cv2.imread(str(GOLDEN / "images" / "0_300x200.png"))
    encoded = model.encode_images(image)

    assert model.detect(encoded, ["red circle"], 9)[0].xyxy.tolist() == (
        model.detect(image, ["red circle"], 9)[0].xyxy.tolist()
    )
    assert model.encode_images(encoded) == encoded


def test_the_adapter_names_unknown_arguments(model_manager):
    model_manager.add_model("moondream2-demo", None)

    with pytest.raises(ModelInputError, match=re.escape("task 'detect' do not fit: ")) as raised:
        model_manager.run_tensor_native_inference(
            "moondream2-demo", images=[IMAGE], classes=["dog"], max_new_token=5
        )

    assert "max_new_token" in str(raised.value)
