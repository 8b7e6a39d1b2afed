"""Decodes text: answers, captions and reasoning, with the probability of every token.

Shapes: B rows. Coordinates are relative to the image, 0 to 1.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from workflow_blocks.moondream2.config import TokenizerConfig
from workflow_blocks.moondream2.decoding import Batcher, Decoding, Request
from workflow_blocks.moondream2.prompt_tokens import Point, is_number, is_whole_number, shown
from workflow_blocks.moondream2.region import choose_coordinates

# Batches are made for answers of this length. If longer ones fill the memory, rows are set aside and resumed.
_EXPECTED_TOKENS = 64


class TextSettingsError(ValueError):
    """A setting of how text is decoded is out of its range; the message names it."""


@dataclass(frozen=True)
class TextSettings:
    """How text is decoded.

    Attributes:
        max_tokens: the most tokens of an answer, and of its reasoning; at least 1.
        temperature: 0 takes the most likely token (greedy); above 0, tokens are drawn at random.
        top_p: tokens are drawn among the most likely ones whose probabilities reach this sum, above 0 to 1.
        seed: of the random draws, at least 0; the same seed gives the same text in any grouping of questions.

    Raises:
        TextSettingsError: a value is out of its range.
    """

    max_tokens: int = 700
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (is_whole_number(self.max_tokens) and self.max_tokens >= 1):
            raise TextSettingsError(f"max_tokens is {shown(self.max_tokens)}; give a whole number from 1")
        if not (is_number(self.temperature) and 0 <= self.temperature < math.inf):
            raise TextSettingsError(
                f"temperature is {shown(self.temperature)}; give 0 (greedy) or a positive number"
            )
        if not (is_number(self.top_p) and 0 < self.top_p <= 1):
            raise TextSettingsError(f"top_p is {shown(self.top_p)}; give a number above 0, at most 1")
        if not (is_whole_number(self.seed) and self.seed >= 0):
            raise TextSettingsError(f"seed is {shown(self.seed)}; give a whole number from 0")


@dataclass(frozen=True)
class Grounding:
    """The places that a part of the reasoning is about."""

    start: int  # in the characters of the reasoning
    end: int
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Reasoning:
    """What the model writes before its answer."""

    text: str
    grounding: tuple[Grounding, ...]


@dataclass(frozen=True)
class Answer:
    """A text that the model wrote, as decoded: it may start with a space.

    `probabilities` are those of the tokens, and `p_end` is that of the end after them, or None if the text
    reached its most tokens first.
    """

    text: str
    token_ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    p_end: float | None
    reasoning: Reasoning | None = None

    @property
    def probability(self) -> float:
        """The probability of the whole answer, its end included if it was reached."""
        return math.prod(self.probabilities) * (1.0 if self.p_end is None else self.p_end)


class _Kind(Enum):
    """What is written; each ends at another token, and excludes others from the second token on."""

    ANSWER = "answer"
    REASONING = "reasoning"

    def end_id(self, ids: TokenizerConfig) -> int:
        return ids.eos_id if self is _Kind.ANSWER else ids.answer_id

    def share_of_room(self, room: int) -> int:
        """How many of the tokens that fit the context to use: reasoning leaves half to the answer."""
        return room if self is _Kind.ANSWER else room // 2

    def excluded_ids(self, ids: TokenizerConfig) -> list[int]:
        return [ids.answer_id] if self is _Kind.ANSWER else [ids.eos_id, ids.size_id]


@dataclass
class _Text:
    """A text while it is written."""

    request: Request
    random: np.random.Generator | None  # draws tokens, if any are drawn
    max_tokens: int
    token_ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    # Values of the coordinate tokens among `token_ids`, by place.
    coordinates: dict[int, float] = field(default_factory=dict)
    p_end: float | None = None

    @property
    def last_coordinate(self) -> float | None:
        return self.coordinates.get(len(self.token_ids) - 1)

    @property
    def continued(self) -> Request:
        """The prompt with what is written so far."""
        if not self.token_ids:
            return self.request
        prompt = self.request.prompt.with_tokens(self.token_ids, list(self.coordinates.items()))
        return Request(self.request.image, prompt)


class AnswerDecoder:
    """Writes answers to many prompts, in batches whose rows leave as they end."""

    def __init__(self, batcher: Batcher, tokenizer: Tokenizer) -> None:
        self._batcher = batcher
        self._tokenizer = tokenizer
        self._config = batcher.model.config
        self._ids = self._config.tokenizer

    def answers(self, requests: Sequence[Request], settings: TextSettings) -> list[Answer]:
        """The answers to prompts (questions or captions)."""
        return [self._answer(text) for text in self._write(requests, settings, _Kind.ANSWER)]

    def reasoned_answers(self, requests: Sequence[Request], settings: TextSettings) -> list[Answer]:
        """The answers to prompts that start reasoning, each after its reasoning."""
        thoughts = self._write(requests, settings, _Kind.REASONING)
        assert self._config.tokenizer.templates.query is not None
        suffix = self._config.tokenizer.templates.query.suffix
        after = [
            Request(image, prompt.with_tokens(suffix))
            for image, prompt in (thought.continued for thought in thoughts)
        ]
        texts = self._write(after, settings, _Kind.ANSWER)
        return [
            self._answer(text, self._reasoning(thought))
            for text, thought in zip(texts, thoughts, strict=True)
        ]

    def _write(self, requests: Sequence[Request], settings: TextSettings, kind: _Kind) -> list[_Text]:
        # Seeded with the prompt, so that the draws do not depend on what else is asked.
        texts = [
            _Text(
                request,
                np.random.default_rng((settings.seed, *request.prompt.ids)) if settings.temperature else None,
                min(settings.max_tokens, kind.share_of_room(self._config.room - len(request.prompt))),
            )
            for request in requests
        ]
        waiting = texts
        while waiting:
            batches = self._batcher.batches(
                [text.continued for text in waiting], min(settings.max_tokens, _EXPECTED_TOKENS)
            )
            set_aside = []
            for batch in batches:
                writer = _Writer(self._batcher, [waiting[place] for place in batch], settings, kind)
                set_aside += writer.run()
            waiting = set_aside
        return texts

    def _answer(self, text: _Text, reasoning: Reasoning | None = None) -> Answer:
        return Answer(
            text=self._tokenizer.decode(text.token_ids, skip_special_tokens=False),
            token_ids=tuple(text.token_ids),
            probabilities=tuple(text.probabilities),
            p_end=text.p_end,
            reasoning=reasoning,
        )

    def _reasoning(self, thought: _Text) -> Reasoning:
        parts, written = [], ""
        for ids, coordinates in self._chunks(thought):
            chunk = self._tokenizer.decode(ids, skip_special_tokens=False)
            points = tuple(zip(coordinates[::2], coordinates[1::2], strict=False))
            if points:
                parts.append(Grounding(len(written), len(written) + len(chunk), points))
            written += chunk
        return Reasoning(written, tuple(parts))

    def _chunks(self, thought: _Text) -> Iterator[tuple[list[int], list[float]]]:
        """The token ids and coordinates of each part of a reasoning between grounding tokens."""
        ids: list[int] = []
        coordinates: list[float] = []
        for place, token in enumerate(thought.token_ids):
            if token in (self._ids.start_ground_points_id, self._ids.end_ground_id):
                yield ids, coordinates
                ids, coordinates = [], []
            elif place in thought.coordinates:
                coordinates.append(thought.coordinates[place])
            else:
                ids.append(token)
        yield ids, coordinates


class _Writer:
    """Writes the texts of one batch."""

    def __init__(self, batcher: Batcher, texts: list[_Text], settings: TextSettings, kind: _Kind) -> None:
        self._batcher = batcher
        self._texts = texts
        self._settings = settings
        self._kind = kind
        self._ids = batcher.model.config.tokenizer
        self._decoding = Decoding(batcher.model, [text.continued for text in texts])

    def run(self) -> list[_Text]:
        """Writes until all texts are complete; returns those set aside because memory became short."""
        set_aside: list[_Text] = []
        while len(self._decoding):
            self._choose_tokens()
            self._drop_complete()
            set_aside += self._set_aside()
            if len(self._decoding):
                self._read_tokens()
        return set_aside

    def _rows(self) -> list[_Text]:
        return [self._texts[place] for place in self._decoding.places.tolist()]

    def _choose_tokens(self) -> None:
        """Adds the next token to each text. The token that ends a text is no part of it."""
        rows, logits = self._rows(), self._decoding.logits()
        late = [row for row, text in enumerate(rows) if text.token_ids]
        excluded = self._kind.excluded_ids(self._ids)
        logits[torch.tensor(late, dtype=torch.long)[:, None], torch.tensor(excluded)] = -math.inf
        chosen = self._choose(logits, rows)
        probabilities = logits.softmax(dim=-1).gather(1, chosen[:, None]).squeeze(1).tolist()
        tokens = chosen.tolist()
        for text, token, probability in zip(rows, tokens, probabilities, strict=True):
            if token == self._kind.end_id(self._ids):
                text.p_end = probability
            else:
                text.token_ids.append(token)
                text.probabilities.append(probability)
        if self._kind is _Kind.REASONING and self._ids.coord_id in tokens:
            values = choose_coordinates(
                self._decoding.model.region.coordinate_logits(self._decoding.hidden)
            ).value.tolist()
            for text, token, value in zip(rows, tokens, values, strict=True):
                if token == self._ids.coord_id:
                    text.coordinates[len(text.token_ids) - 1] = value

    def _choose(self, logits: Tensor, rows: list[_Text]) -> Tensor:
        """A token for each row, (B,): the most likely one, or one drawn at random."""
        if self._settings.temperature == 0:
            return logits.argmax(dim=-1)
        likely_first, order = (logits / self._settings.temperature).softmax(dim=-1).sort(descending=True)
        # Nucleus sampling: Holtzman et al., 2020, https://arxiv.org/abs/1904.09751.
        before = likely_first.cumsum(dim=-1) - likely_first
        sums = (likely_first * (before < self._settings.top_p)).cumsum(dim=-1)
        draws = torch.tensor(
            [text.random.random() for text in rows if text.random is not None], device=logits.device
        )
        index = (sums < draws[:, None] * sums[:, -1:]).sum(dim=-1, keepdim=True)
        return order.gather(1, index).squeeze(1)

    def _drop_complete(self) -> None:
        self._keep([text.p_end is None and len(text.token_ids) < text.max_tokens for text in self._rows()])

    def _set_aside(self) -> list[_Text]:
        """Drops the last rows if all would not fit the memory with one more token each."""
        fit = self._batcher.rows_that_fit(self._decoding.n_tokens + 1)
        rows = self._rows()
        self._keep([row < fit for row in range(len(rows))])
        return rows[fit:]

    def _keep(self, is_kept: list[bool]) -> None:
        self._decoding.keep(torch.tensor(is_kept).nonzero().squeeze(1))

    def _read_tokens(self) -> None:
        rows = self._rows()
        model, device = self._decoding.model, self._decoding.device
        embeddings = model.text.embed(torch.tensor([text.token_ids[-1] for text in rows], device=device))
        values = {row: text.last_coordinate for row, text in enumerate(rows)}
        places = [row for row, value in values.items() if value is not None]
        if places:
            numbers = torch.tensor([values[row] for row in places], device=device)
            embeddings[places] = model.region.encode_coordinate(numbers)
        self._decoding.read(embeddings)
