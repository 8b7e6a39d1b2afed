import pytest

from workflow_blocks.blocks.common.client_errors import InvalidInputError, shown
from workflow_blocks.blocks.common.prompts import parse_prompts


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [10, 100, 300, 900, 990, 10_000])
def test_a_deeply_nested_value_is_an_input_error(depth):
    with pytest.raises(InvalidInputError, match="`prompts` "):
        parse_prompts(nested(depth))


@pytest.mark.parametrize("value", [nested(100_000), 10**10_000], ids=["nested", "digits"])
def test_a_value_that_cannot_be_shown_is_described(value):
    assert shown(value) == f"a {type(value).__name__} that is too large to show"
