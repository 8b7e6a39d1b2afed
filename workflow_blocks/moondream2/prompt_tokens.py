"""Prompts as the text decoder reads them: token ids, and coordinates and sizes in place of some.

All coordinates and sizes are relative to the image, 0 to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real

from tokenizers import Tokenizer

from workflow_blocks.moondream2.config import CaptionTemplates, Moondream2Config, PromptTemplate
from workflow_blocks.prompt_text import normalized_prompt

Point = tuple[float, float]
# x_min, y_min, x_max, y_max.
Box = tuple[float, float, float, float]
CAPTION_LENGTHS = tuple(CaptionTemplates.model_fields)
MAX_REFERENCES = 32

_SHOWN_LENGTH = 40


class SkillError(ValueError):
    """The model was not made for what is asked of it; the message names the skill."""


class PromptError(ValueError):
    """A prompt cannot be used; the message names it."""


class PromptTooLongError(PromptError):
    """A prompt has more tokens than the model can read."""


@dataclass(frozen=True)
class PromptTokens:
    """A prompt after the image prefix; `ids` has placeholders where coordinates and sizes are read."""

    ids: tuple[int, ...]
    coordinates: tuple[tuple[int, float], ...] = ()  # place, value
    sizes: tuple[tuple[int, float, float], ...] = ()  # place, width, height

    def __len__(self) -> int:
        return len(self.ids)

    def with_tokens(
        self, ids: Sequence[int], coordinates: Sequence[tuple[int, float]] = ()
    ) -> "PromptTokens":
        """The same prompt with more tokens at its end; `coordinates` have places among these tokens."""
        moved = tuple((len(self) + place, value) for place, value in coordinates)
        return replace(self, ids=(*self.ids, *ids), coordinates=(*self.coordinates, *moved))


class Prompts:
    """Builds the prompts of each skill, as a model's templates say."""

    def __init__(self, config: Moondream2Config, tokenizer: Tokenizer) -> None:
        self._config = config
        self._templates = config.tokenizer.templates
        self._tokenizer = tokenizer
        # A token stands for its bytes, so no text of more characters can fit the context.
        self._max_characters = config.room * max(map(len, tokenizer.get_vocab()))

    def detect(self, name: str) -> PromptTokens:
        return self._of_object("detect", self._templates.detect, name)

    def point(self, name: str) -> PromptTokens:
        return self._of_object("point", self._templates.point, name)

    def query(
        self, question: str, references: Sequence[Point | Box] = (), reasoning: bool = False
    ) -> PromptTokens:
        """A question, about the places in the image that `references` name if there are any."""
        template = self._checked("answer questions", self._templates.query)
        check_text("the question", question)
        places = self._references(references)
        # The model was trained with the suffix twice, or with the token that starts reasoning.
        end = (self._config.tokenizer.thinking_id,) if reasoning else template.suffix
        words = self._encode(question)
        prompt = PromptTokens(template.prefix).with_tokens(places.ids, places.coordinates)
        sizes = tuple((len(template.prefix) + place, w, h) for place, w, h in places.sizes)
        return replace(prompt, sizes=sizes).with_tokens([*words, *template.suffix, *end])

    def caption(self, length: str) -> PromptTokens:
        """Raises `PromptError` unless the length is one of `CAPTION_LENGTHS`."""
        if length not in CAPTION_LENGTHS:
            raise PromptError(f"the caption length is {length!r}; give one of {', '.join(CAPTION_LENGTHS)}")
        templates = self._templates.caption
        ids = None if templates is None else getattr(templates, length)
        return PromptTokens(self._in_vocabulary(f"write {length} captions", ids))

    def check_characters(self, text: str) -> None:
        """Raises `PromptTooLongError` if a text cannot fit the context, without counting its tokens."""
        if len(text) > self._max_characters:
            raise PromptTooLongError(
                f"{shown(text)} has {len(text)} characters; at most {self._config.room} tokens fit beside "
                "the image"
            )

    def check_length(self, prompt: PromptTokens, text: str, n_more: int) -> None:
        """Raises `PromptTooLongError` if the prompt and `n_more` tokens would not fit the model's context."""
        room = self._config.room - n_more
        if len(prompt) > room:
            raise PromptTooLongError(
                f"{shown(text)} has {len(prompt)} tokens; at most {max(room, 0)} fit beside the image and "
                f"{n_more} tokens of the answer"
            )

    def _encode(self, text: str) -> list[int]:
        self.check_characters(text)
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def _of_object(self, skill: str, template: PromptTemplate | None, name: str) -> PromptTokens:
        template = self._checked(skill, template)
        check_text("the object's name", name)
        words = self._encode(" " + normalized_prompt(name))
        return PromptTokens((*template.prefix, *words, *template.suffix))

    def _checked(self, skill: str, template: PromptTemplate | None) -> PromptTemplate:
        self._in_vocabulary(skill, None if template is None else (*template.prefix, *template.suffix))
        assert template is not None
        return template

    def _in_vocabulary(self, skill: str, ids: tuple[int, ...] | None) -> tuple[int, ...]:
        if ids is None or not self._config.has_template(ids):
            raise SkillError(f"this model was not made to {skill}: its config.json has no template for it")
        return ids

    def _references(self, references: Sequence[Point | Box]) -> PromptTokens:
        check_references(references)
        ids, tokens = self._config.tokenizer, PromptTokens(())
        for reference in references:
            if len(reference) == 2:
                tokens = tokens.with_tokens([ids.coord_id] * 2, list(enumerate(reference)))
                continue
            x_min, y_min, x_max, y_max = reference
            centre = ((x_min + x_max) / 2, (y_min + y_max) / 2)
            tokens = tokens.with_tokens([ids.coord_id] * 2, list(enumerate(centre)))
            size = (len(tokens), x_max - x_min, y_max - y_min)
            tokens = replace(tokens.with_tokens([ids.size_id]), sizes=(*tokens.sizes, size))
        return tokens


def check_references(references: Sequence[Point | Box]) -> None:
    """Raises `PromptError` unless all are points (x, y) or boxes (x_min, y_min, x_max, y_max) from 0 to 1."""
    if not isinstance(references, (tuple, list)):
        raise PromptError(f"the spatial references are {shown(references)}; give a list of points and boxes")
    if len(references) > MAX_REFERENCES:
        raise PromptError(f"{len(references)} spatial references are given; give at most {MAX_REFERENCES}")
    for reference in references:
        if not isinstance(reference, (tuple, list)) or len(reference) not in (2, 4):
            raise PromptError(
                f"a spatial reference is {shown(reference)}; give a point (x, y) or a box "
                "(x_min, y_min, x_max, y_max)"
            )
        if not all(_is_share(value) for value in reference):
            raise PromptError(
                f"a spatial reference is {shown(reference)}; give numbers from 0 to 1, relative to the image"
            )
        if len(reference) == 4 and (reference[0] >= reference[2] or reference[1] >= reference[3]):
            raise PromptError(
                f"a spatial reference is {shown(reference)}; give a box with x_min < x_max and y_min < y_max"
            )


def shown(value: object) -> str:
    """A value as an error message shows it, shortened."""
    text = repr(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."


def _is_share(value: object) -> bool:
    return is_number(value) and 0 <= value <= 1  # type: ignore[operator]


def is_number(value: object) -> bool:
    """Whether a value is a real number; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole_number(value: object) -> bool:
    return is_number(value) and isinstance(value, Integral)


def check_text(what: str, text: object) -> None:
    if not isinstance(text, str) or not text.strip():
        raise PromptError(f"{what} is {shown(text)}; give a string that is not blank")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{what} is {shown(text)}, which holds half of a surrogate pair; give Unicode text"
        ) from error
