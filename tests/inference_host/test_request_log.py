"""The line in the log for each request."""

import logging
import re

import numpy as np
import pytest
from inference_models.errors import ModelInputError

from tests.scenes import image_bgr
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.inference_host.model import Moondream2Model

LINE = re.compile(
    r"(\w+) with demo_model: (\d+) images, (\d+) prompts each, encoded in [\d.]+ s "
    r"\((\d+) from the cache(?:, (\d) given as encoded)?\), "
    r"decoded in [\d.]+ s"
)


@pytest.fixture(scope="module")
def model():
    return Moondream2Model.from_pretrained(str(demo_model_folder()))


def test_a_request_is_one_line_with_what_it_asked_and_what_the_cache_had(model, caplog):
    caplog.set_level(logging.INFO, "workflow_blocks")
    images = [image_bgr(number) for number in range(3)]

    model.detect(images[:2], ["star", "circle", "red square"])
    model.detect(images, ["star"])
    encoded = model.encode_images(images[2])
    model.detect(encoded, ["star"])

    lines = [LINE.fullmatch(message).groups() for message in caplog.messages]
    assert lines == [
        ("detect", "2", "3", "0", None),
        ("detect", "3", "1", "2", None),
        ("encode", "1", "0", "1", None),
        ("detect", "1", "1", "0", "1"),
    ]


@pytest.mark.parametrize(
    ("task", "ask"),
    [
        ("detect", lambda model: model.detect(image_bgr(0), ["secret " * 900])),
        ("point", lambda model: model.point(np.zeros((0, 5, 3), np.uint8), ["secret"])),
        ("answer", lambda model: model.query(image_bgr(0), " ")),
        ("caption", lambda model: model.caption(image_bgr(0), "secret")),
    ],
)
def test_a_request_that_fails_is_a_line_without_what_a_client_sent(model, caplog, task, ask):
    caplog.set_level(logging.INFO, "workflow_blocks")

    with pytest.raises(ModelInputError):
        ask(model)

    (line,) = caplog.messages
    assert re.fullmatch(rf"{task} with demo_model failed after [\d.]+ s: ModelInputError", line)
