"""Measures answers and captions, on pictures that training never draws."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.evaluate_things import Share
from training.names import NAMES
from training.pictures import Item, Picture
from training.tasks import (
    COLOUR_QUESTIONS,
    LIST_QUESTIONS,
    NAME_QUESTIONS,
    NOTHING,
    NUMBERS,
    caption,
    count_question,
    text_of,
    yes_no_question,
)
from training.words import Wanted, absent, found, present, wordings_of
from workflow_blocks.moondream2.answers import TextSettings
from workflow_blocks.moondream2.prompt_tokens import CAPTION_LENGTHS
from workflow_blocks.moondream2.rows import EncodedImage
from workflow_blocks.moondream2.runtime import Question, Runtime

MAX_COUNT = 5
_SHORT, _LONG = TextSettings(max_tokens=48), TextSettings(max_tokens=120)
_BINS = 10
_SINGULAR = {wordings_of(name)[0][1]: name for name in NAMES}


@dataclass
class AnswerScore:
    """How answers did; `named` counts pairs of a true name and the one given."""

    yes_no: Share = field(default_factory=Share)
    probabilities: list[tuple[float, bool]] = field(
        default_factory=list
    )  # of "yes", and whether it was right
    name: Share = field(default_factory=Share)
    named: Counter[tuple[str, str]] = field(default_factory=Counter)
    colour: Share = field(default_factory=Share)
    listed: Share = field(default_factory=Share)  # F1
    counts: dict[int, Share] = field(default_factory=lambda: {n: Share() for n in range(1, MAX_COUNT + 1)})
    captions: dict[str, Share] = field(
        default_factory=lambda: {length: Share() for length in CAPTION_LENGTHS}
    )

    @property
    def calibration_error(self) -> float:
        """The mean difference between the probability of "yes" and how often it was right, over ten bins."""
        values = np.array(self.probabilities, float).reshape(-1, 2)
        bins = np.minimum((values[:, 0] * _BINS).astype(int), _BINS - 1)
        gaps = [
            abs(values[bins == one].mean(axis=0) @ (1, -1)) * (bins == one).mean() for one in np.unique(bins)
        ]
        return float(np.sum(gaps))

    @property
    def count_accuracy(self) -> float:
        """The mean over the numbers, so that each weighs the same."""
        return float(np.mean([share.value for share in self.counts.values() if share.all]))


def evaluate_answers(
    runtime: Runtime, pictures: Iterable[tuple[np.random.Generator, Picture]]
) -> AnswerScore:
    score = AnswerScore()
    for rng, picture in pictures:
        (image,) = runtime.encode_images([picture.image])
        _add_yes_no(score, runtime, image, rng, picture.items)
        _add_boxes(score, runtime, image, rng, picture.items)
        _add_list(score, runtime, image, rng, picture.items)
        for length in CAPTION_LENGTHS:
            (answer,) = runtime.caption([image], length, _LONG)
            score.captions[length].add(answer.text == text_of(caption(length, picture.items)))
    return score


def _add_yes_no(
    score: AnswerScore, runtime: Runtime, image: EncodedImage, rng: np.random.Generator, items: Sequence[Item]
) -> None:
    """As many questions for what is there as for what is not."""
    asked: list[tuple[Wanted, bool]] = []
    for draw, answer in ((present, True), (absent, False)):
        candidates = [draw(rng, items) for _ in range(8)] if items else []
        fitting = [one for one in candidates if _found_any(one, items) is answer]
        asked += [(one, answer) for one in fitting[:2]]
    if len(asked) != 4:
        return
    questions = [Question(image, yes_no_question(rng, one)) for one, _ in asked]
    for (_, answer), scored in zip(asked, runtime.score_choices(questions, [["yes", "no"]] * 4), strict=True):
        p_yes = scored[0].probability
        score.yes_no.add((p_yes > 0.5) == answer)
        score.probabilities.append((p_yes, answer))


def _found_any(wanted: Wanted, items: Sequence[Item]) -> bool | None:
    places = found(wanted, items)
    return None if places is None else bool(places)


def _add_boxes(
    score: AnswerScore, runtime: Runtime, image: EncodedImage, rng: np.random.Generator, items: Sequence[Item]
) -> None:
    names = [Question(image, str(rng.choice(NAME_QUESTIONS)), [item.box]) for item in items]
    coloured = [item for item in items if item.colour]
    colours = [Question(image, str(rng.choice(COLOUR_QUESTIONS)), [item.box]) for item in coloured]
    answers = iter(runtime.query([*names, *colours], _SHORT))
    for item in items:
        text = next(answers).text
        score.name.add(text == item.name)
        score.named[item.name, text] += 1
    for item in coloured:
        score.colour.add(next(answers).text == item.colour)


def _add_list(
    score: AnswerScore, runtime: Runtime, image: EncodedImage, rng: np.random.Generator, items: Sequence[Item]
) -> None:
    (answer,) = runtime.query([Question(image, str(rng.choice(LIST_QUESTIONS)))], _SHORT)
    true = list(dict.fromkeys(item.name for item in items))
    hits, given = names_in(answer.text, true)
    score.listed.add(2 * hits, given + len(true))


def add_counts(
    score: AnswerScore, runtime: Runtime, pictures: Iterable[tuple[np.random.Generator, Picture]]
) -> None:
    """Counts the objects of each name in pictures that have few names and many objects."""
    for rng, picture in pictures:
        numbers = Counter(item.name for item in picture.items)
        asked = [
            name for name, number in numbers.items() if number <= MAX_COUNT and _is_sure(name, picture.items)
        ]
        (image,) = runtime.encode_images([picture.image])
        questions = [Question(image, count_question(rng, Wanted(name))) for name in asked]
        for name, answer in zip(asked, runtime.query(questions, _SHORT), strict=True):
            score.counts[numbers[name]].add(answer.text == str(numbers[name]))


def _is_sure(name: str, items: Sequence[Item]) -> bool:
    """Whether the name means the items of that name and no others."""
    return all(Wanted(name).matches(item) is (item.name == name) for item in items)


def _is_number(word: str) -> bool:
    return word in NUMBERS or word.isdecimal()


def names_in(text: str, true: Sequence[str]) -> tuple[int, int]:
    """How many of the true names a list such as "dog, two pizzas" holds, and how many entries it has."""
    entries = [entry.strip() for entry in text.split(",")]
    words = [entry.partition(" ")[2] if _is_number(entry.split(" ")[0]) else entry for entry in entries]
    names = {_SINGULAR.get(word, word) for word in words if word not in ("", NOTHING)}
    return len(names & set(true)), len(names)
