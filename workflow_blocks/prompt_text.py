"""How prompts are spelled, wherever they come from."""

MAX_PROMPT_LENGTH = 256  # Unicode characters

_MAX_SHOWN = 60


def normalized_prompt(text: str) -> str:
    """A prompt without blanks around it, and with one space for the blanks (also line breaks) between words.

    The model was trained on prompts of this form: it finds nothing for "red  circle".
    """
    return " ".join(text.split())


def shortened(text: str) -> str:
    """A text in quotes, for a message."""
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")


def name_problem(text: str) -> str | None:
    """Why a text cannot be the name of a class, such as `is empty`; None if it can."""
    spelled = normalized_prompt(text)
    if not spelled:
        return "is empty"
    if len(spelled) > MAX_PROMPT_LENGTH:
        return f"has {len(spelled)} characters; at most {MAX_PROMPT_LENGTH} are possible"
    return None


def prompt_problem(text: str) -> str | None:
    """The same of a prompt."""
    if text.lstrip().startswith("$"):
        return "starts with $, as the selectors of a definition do"
    return name_problem(text)
