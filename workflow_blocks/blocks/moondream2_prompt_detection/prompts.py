"""What counts as a prompt."""

from collections.abc import Iterable

from workflow_blocks.blocks.common.client_errors import InvalidInputError, shown

MAX_PROMPTS = 64
MAX_PROMPT_LENGTH = 256


def parse_prompts(value: object) -> list[str]:
    """One prompt or several, as a caller gave them, to distinct prompts without blanks around.

    A string is one prompt; commas do not split it.

    Raises:
        InvalidInputError: nothing to look for, or something that is no prompt.
    """
    if isinstance(value, str):
        return [parse_prompt(value)]
    if not isinstance(value, Iterable) or isinstance(value, (bytes, dict)):
        raise InvalidInputError(
            f"`prompts` is {shown(value)}; give a string such as 'red car' or a list of strings"
        )
    # `dict` keeps the order and drops repeats.
    prompts = list(dict.fromkeys(parse_prompt(item) for item in value))
    if not prompts:
        raise InvalidInputError("`prompts` is an empty list; give at least one prompt")
    if len(prompts) > MAX_PROMPTS:
        raise InvalidInputError(
            f"`prompts` holds {len(prompts)} prompts, at most {MAX_PROMPTS} are taken; use several steps"
        )
    return prompts


def parse_prompt(value: object) -> str:
    """A single prompt without blanks around.

    Raises:
        InvalidInputError: it is no string, no Unicode text, blank or too long.
    """
    if not isinstance(value, str):
        raise InvalidInputError(f"`prompts` holds {shown(value)}, which is no string; give words to look for")
    prompt = value.strip()
    if not prompt:
        raise InvalidInputError(f"`prompts` holds {shown(value)}, which is blank; name an object to look for")
    if len(prompt) > MAX_PROMPT_LENGTH:
        raise InvalidInputError(
            f"`prompts` holds a prompt of {len(prompt)} characters, {shown(prompt)}; "
            f"at most {MAX_PROMPT_LENGTH} are taken"
        )
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise InvalidInputError(
            f"`prompts` holds {shown(value)}, which has half of a surrogate pair; give Unicode text"
        )
    return prompt
