"""Values of parameters, by the kind of the input."""

import math

import pytest

from workflow_blocks.running.parameters import (
    ParameterError,
    parse_parameters,
    read_parameters,
    with_directories_in,
)


def parse(entry, *words):
    definition = {"inputs": [{"type": "WorkflowParameter", "name": "x", **entry}]}
    return parse_parameters(["--x", *words], definition)["x"]


@pytest.mark.parametrize(
    ("kind", "words", "value"),
    [
        (["float_zero_to_one"], ["0.5"], 0.5),
        (["float"], ["1e3"], 1000.0),
        (["integer"], ["7"], 7),
        (["integer"], ["-7"], -7),
        (["boolean"], ["true"], True),
        (["boolean"], ["False"], False),
        (["string"], ["7"], "7"),
        (["string"], ['"quoted"'], '"quoted"'),
        (["string"], ["null"], "null"),
        (["roboflow_model_id"], ["7"], "7"),
        (["list_of_values"], ["star"], ["star"]),
        (["list_of_values"], ["star", "square"], ["star", "square"]),
        (["list_of_values"], ['["star", "square"]'], ["star", "square"]),
        (["list_of_values"], ["[red] circle"], ["[red] circle"]),
        (["list_of_values"], ["7", "no"], ["7", "no"]),
        (["string", "list_of_values"], ["star"], "star"),
        (["string", "list_of_values"], ["7", "8"], ["7", "8"]),
        (["string", "list_of_values"], ['["a", "b"]'], ["a", "b"]),
        (["dictionary"], ['{"train": 1}'], {"train": 1}),
        ([{"type": "WorkflowKind", "name": "integer"}], ["7"], 7),
        (None, ["0.5"], 0.5),
        (None, ["true"], True),
        (None, ['["star", "square"]'], ["star", "square"]),
        (None, ["star", "square"], ["star", "square"]),
        (None, ["star"], "star"),
        (None, ["[red] circle"], "[red] circle"),
        (None, ["[[" * 5000], "[[" * 5000),
        (None, ["NaN"], "NaN"),
        (None, ["007"], "007"),
        (["*"], ["0.5"], 0.5),
        (["zone"], ["[[0, 1], [2, 3]]"], [[0, 1], [2, 3]]),
    ],
)
def test_a_value_without_a_default(kind, words, value):
    found = parse({} if kind is None else {"kind": kind}, *words)

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("default", "words", "value"),
    [
        (["star"], ["[red] circle"], ["[red] circle"]),
        (["star"], ["[red", "circle]"], ["[red", "circle]"]),
        (["star"], ["7"], ["7"]),
        (["star"], ["null"], ["null"]),
        ("star", ["7"], "7"),
        (0.5, ["1"], 1),
        (True, ["False"], False),
        (["red circle"], ['{"round": ["circle", "ball"]}'], {"round": ["circle", "ball"]}),
        (["red circle"], ["{}x"], ["{}x"]),
        ({"train": 1}, ["train"], "train"),
        ({"train": 1}, ['{"valid": 1}'], {"valid": 1}),
    ],
)
def test_a_value_with_a_default(default, words, value):
    assert parse({"default_value": default}, *words) == value


def test_the_kind_comes_before_the_default():
    assert parse({"kind": ["string"], "default_value": None}, "7") == "7"
    assert math.isclose(parse({"kind": ["float"], "default_value": "0.3"}, "0.5"), 0.5)


@pytest.mark.parametrize(
    ("entry", "words", "problem"),
    [
        ({"kind": ["integer"]}, ["big"], "`x` is 'big'; give a value of the kind integer"),
        ({"kind": ["integer"]}, ["0.5"], "give a value of the kind integer"),
        ({"kind": ["integer"]}, ["true"], "give a value of the kind integer"),
        ({"kind": ["boolean"]}, ["maybe"], "give a value of the kind boolean"),
        ({"kind": ["dictionary"]}, ["{"], "give a value of the kind dictionary"),
        ({"kind": ["float"], "default_value": 0.5}, ["low"], "give a value such as 0.5"),
        ({"kind": ["string"]}, ["a", "b"], "`x` takes one value"),
        ({"default_value": [[0, 1]]}, ["[[0,"], "give a list such as [[0, 1]]"),
    ],
)
def test_a_value_of_another_kind_is_refused(entry, words, problem):
    with pytest.raises(ParameterError) as error:
        parse(entry, *words)

    assert problem in str(error.value)


@pytest.mark.parametrize(
    "inputs", [None, {}, ["text"], [{"type": "WorkflowParameter"}], [{"type": [], "name": "x"}]]
)
def test_a_malformed_definition_has_no_parameters(inputs):
    with pytest.raises(ParameterError, match=r"no parameter `x`; it has none"):
        parse_parameters(["--x", "1"], {"inputs": inputs})


def test_folders_are_in_the_output_unless_they_are_given(tmp_path):
    entries = {"target": "dataset", "other": "other", "unused_directory": "text", "none": None}
    inputs = [
        {"type": "WorkflowParameter", "name": name, "default_value": default}
        for name, default in entries.items()
    ]
    steps = [{"type": "sink", "target_directory": f"$inputs.{name}"} for name in ("target", "other", "none")]

    found = with_directories_in(tmp_path, {"other": "mine"}, {"inputs": inputs, "steps": steps})

    assert found == {"target": str(tmp_path / "dataset"), "other": "mine"}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, ['{"helmet": "a", "helmet": "b"}']),
        ({"default_value": ["star"]}, ['{"helmet": "a", "helmet": "b"}']),
        ({"kind": ["dictionary"]}, ['{"a": {"helmet": 1, "helmet": 2}}']),
        ({"kind": ["list_of_values"]}, ['[{"helmet": 1, "helmet": 2}]']),
        ({"type": "WorkflowBatchInput"}, ['{"helmet": 1, "helmet": 2}']),
    ],
)
def test_a_key_that_is_there_twice_is_named(entry, words):
    with pytest.raises(ParameterError, match=r"`x`: the key 'helmet' is there twice"):
        parse(entry, *words)


def test_text_that_looks_like_json_stays_text():
    assert parse({"kind": ["string"]}, '{"a": 1, "a": 2}') == '{"a": 1, "a": 2}'


def test_a_file_of_parameters_with_a_key_twice_is_refused(tmp_path):
    file = tmp_path / "parameters.json"
    file.write_text('{"x": {"helmet": "a", "helmet": "b"}}')

    with pytest.raises(ParameterError, match=r"parameters\.json: the key 'helmet' is there twice"):
        read_parameters(file, {"inputs": [{"type": "WorkflowParameter", "name": "x"}]})


def test_a_file_of_prompts_alone_gets_a_hint(tmp_path):
    definition = {"inputs": [{"type": "WorkflowParameter", "name": name} for name in ("prompts", "model")]}
    file = tmp_path / "prompts.json"

    file.write_text('{"circle": ["circle", "disc"]}')
    with pytest.raises(ParameterError, match=r"no parameter `circle`.* under the key `prompts`"):
        read_parameters(file, definition)
    file.write_text('{"prompts": ["circle"], "modle": "x"}')
    with pytest.raises(ParameterError, match=r"no parameter `modle`; it has prompts, model$"):
        read_parameters(file, definition)
