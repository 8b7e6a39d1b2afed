"""Packs the tasks of a picture into one sequence, and several pictures into a batch.

All tasks see the image prefix, none sees another, and positions restart after the prefix for each.

Shapes: B pictures, T packed tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.pictures import Item
from training.tasks import Task
from workflow_blocks.moondream2.config import Moondream2Config

# What a packed token is, and what it asks for.
TOKEN, X, Y, SIZE, PADDING, WORD = range(6)


@dataclass
class Packed:
    """Packed tasks of a batch of pictures; all but `tokens` and `kinds` speak of what is true."""

    kinds: Tensor  # (B, T): TOKEN, X, Y (both coordinates), SIZE or PADDING
    tokens: Tensor  # (B, T): ids where the kind is TOKEN
    values: Tensor  # (B, T, 2): the coordinate (first value) or size that the token embeds
    task: Tensor  # (B, T): which task of its picture a token belongs to
    positions: Tensor  # (B, T)
    asks: Tensor  # (B, T): what the token must tell: X (or the end), Y, SIZE, WORD; PADDING for nothing
    answers: Tensor  # (B, T, 2): true x, y or size, or the id of the next word
    looks_at: (
        Tensor  # (B, T): bits of the items that the answer is about; 0 for none, -1 where it does not matter
    )

    def to(self, device: torch.device) -> "Packed":
        return Packed(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass
class _Token:
    kind: int
    token: int = 0
    first: float = 0.0
    second: float = 0.0
    asks: int = PADDING
    a: float = 0.0
    b: float = 0.0
    looks_at: int = -1

    def must_tell(self, asks: int, a: float, b: float, looks_at: int) -> None:
        self.asks, self.a, self.b, self.looks_at = asks, a, b, looks_at


Row = tuple[float, ...]
_PADDING_ROW: Row = (PADDING, 0, 0.0, 0.0, -1, 0, PADDING, 0.0, 0.0, -1)


def pack_picture(
    rng: np.random.Generator, items: Sequence[Item], tasks: Sequence[Task], config: Moondream2Config
) -> list[Row]:
    """The tasks of one picture, as rows of numbers for `pack`."""
    rows: list[Row] = []
    for index, task in enumerate(tasks):
        tokens = _prompt_tokens(task)
        if task.skill == "text":
            _append_text(tokens, task, config.tokenizer.eos_id)
        else:
            _append_objects(rng, tokens, items, task)
        for offset, one in enumerate(tokens):
            position = config.prefix_length + offset
            rows.append(
                (
                    one.kind,
                    one.token,
                    one.first,
                    one.second,
                    index,
                    position,
                    one.asks,
                    one.a,
                    one.b,
                    one.looks_at,
                )
            )
    return rows


def pack(pictures: list[list[Row]]) -> Packed:
    length = max(len(rows) for rows in pictures)
    table = torch.tensor(
        [rows + [_PADDING_ROW] * (length - len(rows)) for rows in pictures], dtype=torch.float64
    )
    kinds, tokens, task, positions, asks, looks_at = (table[..., i].long() for i in (0, 1, 4, 5, 6, 9))
    return Packed(
        kinds, tokens, table[..., 2:4].float(), task, positions, asks, table[..., 7:9].float(), looks_at
    )


def _prompt_tokens(task: Task) -> list[_Token]:
    tokens = [_Token(TOKEN, token) for token in task.prompt.ids]
    for place, value in task.prompt.coordinates:
        tokens[place] = _Token(X, first=value)
    for place, width, height in task.prompt.sizes:
        tokens[place] = _Token(SIZE, first=width, second=height)
    return tokens


def _append_text(tokens: list[_Token], task: Task, eos_id: int) -> None:
    for word, looks_at in zip((*task.answer, eos_id), task.looks_at, strict=True):
        bits = -1 if looks_at is None else _bits(looks_at)
        tokens[-1].must_tell(WORD, float(word), 0.0, bits)
        if word != eos_id:
            tokens.append(_Token(TOKEN, word))


def _append_objects(
    rng: np.random.Generator, tokens: list[_Token], items: Sequence[Item], task: Task
) -> None:
    for place in task.found:
        x_min, y_min, x_max, y_max = items[place].box
        x, y, w, h = (x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min
        bits = _bits((place,))
        tokens[-1].must_tell(X, x, 0.0, bits)
        tokens.append(_Token(X, first=_noisy(rng, x)))
        tokens[-1].must_tell(Y, y, 0.0, bits)
        tokens.append(_Token(Y, first=_noisy(rng, y)))
        if task.skill == "detect":
            tokens[-1].must_tell(SIZE, w, h, bits)
            tokens.append(_Token(SIZE, first=_noisy(rng, w), second=_noisy(rng, h)))
    tokens[-1].must_tell(X, -1.0, 0.0, 0)


def _bits(places: Sequence[int]) -> int:
    return sum(1 << place for place in places)


def _noisy(rng: np.random.Generator, value: float) -> float:
    """Half of the time a little off, as the model's own answers will be."""
    if rng.random() < 0.5:
        return value
    return float(np.clip(value + rng.normal(0, 0.008), 0.001, 0.999))
