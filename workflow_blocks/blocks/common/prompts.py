"""What blocks make of prompts, and of class names, which come from prompts."""


def normalised(text: str) -> str:
    """A prompt without surrounding whitespace."""
    return text.strip()
