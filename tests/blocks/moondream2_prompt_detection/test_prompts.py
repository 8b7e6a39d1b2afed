import pytest

from workflow_blocks.blocks.common.client_errors import InvalidInputError
from workflow_blocks.blocks.moondream2_prompt_detection.prompts import (
    MAX_PROMPT_LENGTH,
    MAX_PROMPTS,
    parse_prompts,
)


@pytest.mark.parametrize(
    ("value", "prompts"),
    [
        pytest.param("red car", ["red car"], id="a string"),
        pytest.param("dog, cat", ["dog, cat"], id="commas do not split"),
        pytest.param(["dog", "cat"], ["dog", "cat"], id="a list"),
        pytest.param(("dog", "cat"), ["dog", "cat"], id="a tuple"),
        pytest.param(["  dog\n", "cat"], ["dog", "cat"], id="blanks around"),
        pytest.param(["b", "a", "b ", "c", "a"], ["b", "a", "c"], id="repeats collapse to the first"),
        pytest.param(["a"] * 100, ["a"], id="repeats count once"),
        pytest.param(["Dog", "dog"], ["Dog", "dog"], id="case matters"),
        pytest.param("собака 🐕", ["собака 🐕"], id="any script"),
        pytest.param("x" * MAX_PROMPT_LENGTH, ["x" * MAX_PROMPT_LENGTH], id="longest"),
        pytest.param([str(i) for i in range(MAX_PROMPTS)], [str(i) for i in range(MAX_PROMPTS)], id="most"),
    ],
)
def test_parse_prompts(value, prompts):
    assert parse_prompts(value) == prompts


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param("", "is ''", id="empty"),
        pytest.param(" \t\n", r"is ' \t\n'", id="blank"),
        pytest.param("\x1c", r"is '\x1c'", id="blank in Python only"),
        pytest.param(["dog", " "], "holds ''", id="one blank"),
        pytest.param([], "is []", id="empty list"),
        pytest.param(None, "is None", id="nothing"),
        pytest.param(7, "is 7", id="a number"),
        pytest.param(["dog", 7], "holds 7", id="a number among strings"),
        pytest.param([["dog"]], "holds ['dog']", id="a list in a list"),
        pytest.param({"dog": 1}, "is {'dog': 1}", id="a dictionary"),
        pytest.param(b"dog", "is b'dog'", id="bytes"),
        pytest.param("\ud800", r"is '\ud800'", id="half of a surrogate pair"),
        pytest.param("x" * (MAX_PROMPT_LENGTH + 1), "(257 characters)", id="too long"),
        pytest.param([str(i) for i in range(MAX_PROMPTS + 1)], "(65 items)", id="too many"),
    ],
)
def test_parse_prompts_names_the_invalid_value(value, problem):
    with pytest.raises(InvalidInputError) as error:
        parse_prompts(value)

    assert problem in str(error.value)
    assert str(error.value).startswith("`prompts` ")
    assert f"1 to {MAX_PROMPT_LENGTH} Unicode characters" in str(error.value)
    assert len(str(error.value)) < 300
