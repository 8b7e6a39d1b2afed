"""Definitions as people save them, and what is said about wrong ones."""

import codecs
import copy
import json

import pytest

from workflow_blocks.inference_host.engine import make_engine
from workflow_blocks.running.definitions import read_definition
from workflow_blocks.running.errors import RunError, definition_problem

DEFINITION = read_definition("count_by_prompt")
TEXT = json.dumps(DEFINITION)


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        TEXT.encode("utf-16"),
        json.dumps({"specification": DEFINITION}).encode(),
        codecs.BOM_UTF8 + json.dumps({"specification": DEFINITION, "name": "mine"}).encode(),
    ],
    ids=["plain", "mark", "UTF-16", "exported", "exported with mark"],
)
def test_a_saved_definition_is_read(tmp_path, content):
    (tmp_path / "mine.json").write_bytes(content)

    assert read_definition(str(tmp_path / "mine.json")) == DEFINITION


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b'{"specification": "text"}', b"null"]
)
def test_what_is_no_definition_is_refused(tmp_path, content):
    (tmp_path / "mine.json").write_bytes(content)

    with pytest.raises(RunError, match=r"mine\.json (is not JSON|holds no workflow definition)"):
        read_definition(str(tmp_path / "mine.json"))


def test_a_definition_with_a_key_twice_is_refused(tmp_path):
    (tmp_path / "mine.json").write_text('{"steps": [{"prompts": {"helmet": "a", "helmet": "b"}}]}')

    with pytest.raises(RunError, match=r"mine\.json: the key 'helmet' is there twice"):
        read_definition(str(tmp_path / "mine.json"))


def test_a_name_that_is_too_long_is_refused():
    with pytest.raises(RunError, match="cannot be read: File name too long"):
        read_definition("x" * 300)


def of(section, index, **fields):
    return lambda definition: definition[section][index].update(fields)


def without(section, index, field):
    return lambda definition: definition[section][index].pop(field)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            of("steps", 0, type="workflow_blocks/moondream2_promt_detection@v1"),
            ["step 'detection'", "no type", "did you mean 'workflow_blocks/moondream2_prompt_detection@v1'"],
        ),
        (without("steps", 0, "type"), ["step 'detection'", "`type` is missing"]),
        (without("steps", 0, "prompts"), ["step 'detection'", "field prompts", "required"]),
        (without("steps", 0, "name"), ["step 0", "field name", "required"]),
        (of("steps", 0, confidence=7), ["step 'detection'", "`confidence` is 7; give a number from 0 to 1"]),
        (of("steps", 0, images="$inputs.nope"), ["step detection", "field images", "$inputs.nope"]),
        (of("steps", 0, images="$steps.nope.image"), ["step detection", "field images", "$steps.nope"]),
        (of("steps", 1, predictions="$steps.detection.counts"), ["predictions", "$steps.detection.counts"]),
        (of("steps", 1, name="detection"), ["`steps` has more than one 'detection'"]),
        (of("inputs", 0, type="Nope"), ["input 'image'", "no type 'Nope'"]),
        (without("inputs", 0, "name"), ["input 0", "field name", "required"]),
        (of("outputs", 0, selector="$steps.nope.x"), ["predictions", "$steps.nope"]),
        (without("outputs", 0, "selector"), ["output 'predictions'", "field selector", "required"]),
        (lambda d: d.pop("version"), ["version", "required"]),
        (lambda d: d.pop("steps"), ["steps", "required"]),
        (lambda d: d.update(steps=None), ["steps", "valid list"]),
        (lambda d: d.update(steps=["x"]), ["step", "index 0"]),
        (lambda d: d.update(inputs=["x"]), ["input", "valid dictionary"]),
        (lambda d: d.clear(), ["version", "inputs", "steps", "outputs"]),
    ],
)
def test_a_wrong_definition_is_explained(model_manager, change, words):
    definition = copy.deepcopy(DEFINITION)
    change(definition)

    with pytest.raises(Exception) as error:  # noqa: PT011 - many types
        make_engine(definition, model_manager)
    problem = definition_problem(error.value, definition)

    assert all(word in problem for word in words), problem
    assert "inner error" not in problem
    assert len(problem) < 1000
