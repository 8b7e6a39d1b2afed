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
        pytest.param("", "blank", id="empty"),
        pytest.param(" \t\n", "blank", id="blank"),
        pytest.param(["dog", " "], "blank", id="one blank"),
        pytest.param([], "empty list", id="empty list"),
        pytest.param(None, "None", id="nothing"),
        pytest.param(7, "7", id="a number"),
        pytest.param(["dog", 7], "7, which is no string", id="a number among strings"),
        pytest.param([["dog"]], "which is no string", id="a list in a list"),
        pytest.param({"dog": 1}, "{'dog': 1}", id="a dictionary"),
        pytest.param(b"dog", "b'dog'", id="bytes"),
        pytest.param("x" * (MAX_PROMPT_LENGTH + 1), "257 characters", id="too long"),
        pytest.param([str(i) for i in range(MAX_PROMPTS + 1)], "65 prompts", id="too many"),
    ],
)
def test_parse_prompts_names_what_is_wrong(value, problem):
    with pytest.raises(InvalidInputError) as error:
        parse_prompts(value)

    assert problem in str(error.value)
    assert "`prompts`" in str(error.value)
    assert len(str(error.value)) < 300
