"""What training asks about a picture, in Moondream's own token formats, and the right answers.

Objects are named from left to right, so that "which next" has one answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from training.names import NAMES
from training.pictures import Item
from training.words import (
    ANYTHING,
    Wanted,
    absent,
    found,
    left_to_right,
    phrase,
    present,
    with_article,
    wordings_of,
)
from workflow_blocks.moondream2.prompt_tokens import Box, Point, Prompts, PromptTokens

LIST_QUESTIONS = (
    "what is in the picture?", "what is in the image?", "what can you see?", "what do you see in the image?",
    "list the objects in the picture.", "which objects are in the image?", "what is there?",
)  # fmt: skip
COUNT_QUESTIONS = (
    "how many {} are there?", "how many {} are there in the image?", "how many {} are in the picture?",
    "how many {} do you see?", "count the {}.",
)  # fmt: skip
IS_THERE_QUESTIONS = (
    "is there {}?", "is there {} in the picture?", "is there {} in the image?", "do you see {}?",
    "does the image show {}?",
)  # fmt: skip
ARE_THERE_QUESTIONS = ("are there {}?", "are there any {}?", "are there any {} in the image?")
NAME_QUESTIONS = ("what is this?", "what is it?", "what is that?", "what object is this?")
COLOUR_QUESTIONS = (
    "what colour is this?", "what color is this?", "what colour is it?", "what color is it?",
    "which colour is this?",
)  # fmt: skip
IS_THIS_QUESTIONS = ("is this {}?", "is it {}?", "is that {}?")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
NOTHING = "nothing"
# With as many prompts for what is there as for what is not, the model finds too much.
N_ABSENT_NAMES = 10
# Names whose colour people would mention.
COLOURED_NAMES = ("apple", "book")
_PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the middle", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)

# A part of an answer: its words, and the places of the objects that they are about; None for no matter.
Part = tuple[str, tuple[int, ...] | None]


@dataclass(frozen=True)
class Task:
    """A prompt and its answer: objects for detection and pointing, else text.

    `found` are places of items; `looks_at` names, for each answer token and the end, the items
    that it is about (empty for none, None where it does not matter).
    """

    prompt: PromptTokens
    skill: str
    found: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()
    looks_at: tuple[tuple[int, ...] | None, ...] = field(default=())


class TaskMaker:
    """Draws tasks about pictures."""

    def __init__(self, prompts: Prompts, tokenizer: Tokenizer) -> None:
        self._prompts = prompts
        self._tokenizer = tokenizer

    def tasks(self, rng: np.random.Generator, items: Sequence[Item]) -> list[Task]:
        """The tasks of one picture, about 30; encoding the picture takes longer than all of them."""
        tasks = [self._objects(rng, items, "detect") for _ in range(6)]
        tasks += self._absent_names(rng, items)
        tasks += [self._objects(rng, items, "point") for _ in range(3)]
        tasks += [self._yes_no(rng, items) for _ in range(2)]
        tasks += [self._count(rng, items) for _ in range(3)]
        tasks.append(self._list(rng, items))
        if rng.random() < 0.5:
            tasks.append(self._caption(rng, items))
        if items:
            tasks += [self._name(rng, items), self._name(rng, items), self._colour(rng, items)]
            if rng.random() < 0.4:
                tasks.append(self._is_this(rng, items))
        return tasks

    def _objects(self, rng: np.random.Generator, items: Sequence[Item], skill: str) -> Task:
        wanted, places = _wanted(rng, items, 0.55)
        build = self._prompts.detect if skill == "detect" else self._prompts.point
        return Task(build(phrase(rng, wanted)), skill, found=tuple(places))

    def _absent_names(self, rng: np.random.Generator, items: Sequence[Item]) -> list[Task]:
        """Detection of any names that are not there, of which people may search for many in one picture."""
        names = [Wanted(str(name)) for name in rng.choice(NAMES, N_ABSENT_NAMES, replace=False)]
        return [
            Task(self._prompts.detect(phrase(rng, name)), "detect")
            for name in names
            if found(name, items) == []
        ]

    def _yes_no(self, rng: np.random.Generator, items: Sequence[Item]) -> Task:
        wanted, places = _wanted(rng, items, 0.55)
        return self._text(yes_no_question(rng, wanted), [("yes" if places else "no", tuple(places))])

    def _count(self, rng: np.random.Generator, items: Sequence[Item]) -> Task:
        wanted, places = _wanted(rng, items, 0.8)
        return self._text(count_question(rng, wanted), [(str(len(places)), tuple(places))])

    def _list(self, rng: np.random.Generator, items: Sequence[Item]) -> Task:
        return self._text(str(rng.choice(LIST_QUESTIONS)), list_answer(items))

    def _name(self, rng: np.random.Generator, items: Sequence[Item]) -> Task:
        place = int(rng.integers(len(items)))
        reference = _reference(rng, items[place].box)
        return self._text(str(rng.choice(NAME_QUESTIONS)), [(items[place].name, (place,))], [reference])

    def _colour(self, rng: np.random.Generator, items: Sequence[Item]) -> Task:
        coloured = [(place, item.colour) for place, item in enumerate(items) if item.colour]
        if not coloured:
            return self._name(rng, items)
        place, colour = coloured[int(rng.integers(len(coloured)))]
        reference = _reference(rng, items[place].box)
        return self._text(str(rng.choice(COLOUR_QUESTIONS)), [(colour, (place,))], [reference])

    def _is_this(self, rng: np.random.Generator, items: Sequence[Item]) -> Task:
        place = int(rng.integers(len(items)))
        wanted, _ = _wanted(rng, items[place : place + 1], 0.5)
        answer = "yes" if wanted.matches(items[place]) else "no"
        question = str(rng.choice(IS_THIS_QUESTIONS)).format(_one(rng, wanted))
        return self._text(question, [(answer, (place,))], [_reference(rng, items[place].box)])

    def _caption(self, rng: np.random.Generator, items: Sequence[Item]) -> Task:
        length = str(rng.choice(["short", "normal", "long"]))
        return self._answered(self._prompts.caption(length), caption(length, items))

    def _text(self, question: str, parts: Sequence[Part], references: Sequence[Point | Box] = ()) -> Task:
        return self._answered(self._prompts.query(question, references), parts)

    def _answered(self, prompt: PromptTokens, parts: Sequence[Part]) -> Task:
        text, ids = "", []
        looks_at: list[tuple[int, ...] | None] = []
        for words, places in parts:
            text = join_words(text, words)
            # Words are tokens of their own, so those before stay as they are.
            ids = self._tokenizer.encode(text).ids
            looks_at += [places] * (len(ids) - len(looks_at))
        return Task(prompt, "text", answer=tuple(ids), looks_at=(*looks_at, ()))


def join_words(before: str, words: str) -> str:
    return before + words if not before or words in ",." else f"{before} {words}"


def text_of(parts: Sequence[Part]) -> str:
    text = ""
    for words, _ in parts:
        text = join_words(text, words)
    return text


def list_answer(items: Sequence[Item]) -> list[Part]:
    """ "dog, two pizzas"."""
    return _joined(_groups(items, lambda item: item.name, with_articles=False), ", ", ", ")


def caption(length: str, items: Sequence[Item]) -> list[Part]:
    """A caption of one of the lengths; a long one says where each object is."""
    if length != "long":
        start: list[Part] = [("a picture of", None)] if length == "normal" else []
        listed = _joined(_groups(items, describe, with_articles=True), ", ", " and ")
        return [*start, *listed, (".", None)] if length == "normal" else listed
    each: list[Part] = []
    for place in left_to_right(list(range(len(items))), items):
        item = items[place]
        each.append((f"{with_article(describe(item))} {place_of(item.box)}", (place,)))
    return [*_joined(each, ", ", " and "), (".", None)]


def number_word(count: int) -> str:
    """ "two"; "9" where the model has no word for it."""
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def describe(item: Item) -> str:
    """ "red star", "dog", "green apple"."""
    with_colour = item.colour and (item.is_shape or item.name in COLOURED_NAMES)
    return f"{item.colour} {item.name}" if with_colour else item.name


def place_of(box: Box) -> str:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return _PLACES[min(int(3 * y), 2)][min(int(3 * x), 2)]


def yes_no_question(rng: np.random.Generator, wanted: Wanted) -> str:
    if rng.random() < 0.3 and wanted.words is None:
        return str(rng.choice(ARE_THERE_QUESTIONS)).format(_many(rng, wanted))
    return str(rng.choice(IS_THERE_QUESTIONS)).format(_one(rng, wanted))


def count_question(rng: np.random.Generator, wanted: Wanted) -> str:
    return str(rng.choice(COUNT_QUESTIONS)).format(_many(rng, wanted))


def _one(rng: np.random.Generator, wanted: Wanted) -> str:
    """ "a red apple"."""
    if wanted.words is not None:
        return with_article(wanted.words)
    wordings = wordings_of(wanted.noun)
    singular, _ = wordings[0] if rng.random() < 0.8 else wordings[int(rng.integers(len(wordings)))]
    return with_article(" ".join(part for part in (wanted.colour, singular) if part))


def _many(rng: np.random.Generator, wanted: Wanted) -> str:
    """ "red apples"."""
    if wanted.words is not None:
        return wanted.words
    wordings = wordings_of(wanted.noun)
    _, plural = wordings[0] if rng.random() < 0.8 else wordings[int(rng.integers(len(wordings)))]
    return " ".join(part for part in (wanted.colour, plural) if part)


def _wanted(
    rng: np.random.Generator, items: Sequence[Item], share_present: float
) -> tuple[Wanted, list[int]]:
    """A phrase and the places of the items that it means."""
    for _ in range(12):
        wanted = present(rng, items) if items and rng.random() < share_present else absent(rng, items)
        places = found(wanted, items)
        if places is not None:
            return wanted, places
    every = left_to_right(list(range(len(items))), items)
    return Wanted(ANYTHING), every


def _reference(rng: np.random.Generator, box: Box) -> Point | Box:
    """Mostly the box, about as well placed as the model's own; else a point inside it."""
    x_min, y_min, x_max, y_max = box
    x, y, w, h = (x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min
    if rng.random() < 0.2:
        x, y = x + w * rng.uniform(-0.2, 0.2), y + h * rng.uniform(-0.2, 0.2)
        return float(x), float(y)
    x, y = x + w * rng.normal(0, 0.03), y + h * rng.normal(0, 0.03)
    w, h = w * np.exp(rng.normal(0, 0.05)), h * np.exp(rng.normal(0, 0.05))
    low_x, low_y, high_x, high_y = (
        float(np.clip(value, 0, 1)) for value in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    )
    return low_x, low_y, high_x, high_y


def _groups(items: Sequence[Item], name: Callable[[Item], str], with_articles: bool) -> list[Part]:
    """The items by name, with their numbers: "a dog", "two pizzas"."""
    groups: dict[str, list[int]] = {}
    for place in left_to_right(list(range(len(items))), items):
        groups.setdefault(name(items[place]), []).append(place)
    parts: list[Part] = []
    for words, places in groups.items():
        if len(places) == 1:
            parts.append((with_article(words) if with_articles else words, tuple(places)))
        else:
            noun = items[places[0]].name
            plural = words.removesuffix(noun) + wordings_of(noun)[0][1]
            parts.append((f"{number_word(len(places))} {plural}", tuple(places)))
    return parts


def _joined(parts: Sequence[Part], separator: str, last_separator: str) -> list[Part]:
    if not parts:
        return [(NOTHING, ())]
    joined = [parts[0]]
    for index, part in enumerate(parts[1:], 2):
        joined += [((last_separator if index == len(parts) else separator).strip(), None), part]
    return joined
