"""How people name objects: what a noun phrase asks for, and its wordings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.colours import COLOUR_WORDS
from training.names import (
    KINDS,
    LOOK_ALIKES,
    NAMES,
    THING_OF_NAME,
    THINGS,
    doubtful_kinds_of,
    kinds_of,
    plural_of,
)
from training.pictures import Item
from training.prompts import OTHER_NOUNS, dress
from training.scenes import COLOURS, SHAPES

# Words for any object; "shape" stands for circles, squares, triangles and stars.
ANYTHING, ANY_SHAPE = "thing", "shape"
_ANYTHING_WORDS = (("thing", "things"), ("object", "objects"), ("item", "items"))


@dataclass(frozen=True)
class Wanted:
    """What a noun phrase stands for: a name, kind, `ANYTHING` or `ANY_SHAPE`, of a colour if one is given.

    `words` is set for nouns of no object in any picture, such as "person".
    """

    noun: str
    colour: str | None = None
    words: str | None = None

    def matches(self, item: Item) -> bool | None:
        """Whether the phrase means the item; None if people would not agree."""
        if self.words is not None:
            return False
        by_noun, by_colour = _noun_matches(self.noun, item), _colour_matches(self.colour, item)
        if by_noun is False or by_colour is False:
            return False
        return None if by_noun is None or by_colour is None else True


def _noun_matches(noun: str, item: Item) -> bool | None:
    if noun == ANY_SHAPE:
        return item.is_shape
    if noun in (ANYTHING, item.name) or noun in kinds_of(item.name):
        return True
    return None if noun in doubtful_kinds_of(item.name) else False


def _colour_matches(colour: str | None, item: Item) -> bool | None:
    if colour in (None, item.colour):
        return True
    return None if colour in item.doubtful_colours else False


def found(wanted: Wanted, items: Sequence[Item]) -> list[int] | None:
    """The places of the items that are meant, from left to right; None if people would not agree."""
    matches = [wanted.matches(item) for item in items]
    if None in matches:
        return None
    return left_to_right([place for place, match in enumerate(matches) if match], items)


def left_to_right(places: list[int], items: Sequence[Item]) -> list[int]:
    return sorted(places, key=lambda place: items[place].box[0] + items[place].box[2])


def wordings_of(noun: str) -> tuple[tuple[str, str], ...]:
    """Singular and plural words for a noun, the usual ones first."""
    if noun in THING_OF_NAME:
        return THING_OF_NAME[noun].wordings
    if noun == ANYTHING:
        return _ANYTHING_WORDS
    return ((noun, plural_of(noun)),)


def present(rng: np.random.Generator, items: Sequence[Item]) -> Wanted:
    """A phrase that means one of the items, and perhaps others."""
    item = items[int(rng.integers(len(items)))]
    breadth, noun = rng.random(), item.name
    kinds = sorted(kinds_of(item.name))
    if breadth < 0.2 and kinds:
        noun = str(rng.choice(kinds))
    elif breadth < 0.3:
        noun = ANY_SHAPE if item.is_shape else ANYTHING
    with_colour = item.colour is not None and rng.random() < (0.5 if item.is_shape else 0.3)
    return Wanted(noun, item.colour if with_colour else None)


def absent(rng: np.random.Generator, items: Sequence[Item]) -> Wanted:
    """A phrase that seldom means any of the items, at times of something that is like one of them."""
    kind = rng.random()
    item = items[int(rng.integers(len(items)))] if items else None
    if kind < 0.3 and item is not None:
        alike = sorted(set().union(*(group for group in LOOK_ALIKES if item.name in group)) - {item.name})
        if alike:
            return Wanted(str(rng.choice(alike)))
    if kind < 0.5 and item is not None:
        colours = tuple(COLOURS) if item.is_shape and rng.random() < 0.7 else COLOUR_WORDS
        return Wanted(item.name, str(rng.choice(colours)))
    if kind < 0.6:
        return Wanted(str(rng.choice([*KINDS, ANY_SHAPE])))
    if kind < 0.72:
        return Wanted(ANYTHING, words=unknown_words(rng))
    noun = str(rng.choice(SHAPES if rng.random() < 0.25 else NAMES))
    return Wanted(noun, str(rng.choice(COLOUR_WORDS)) if rng.random() < 0.25 else None)


def phrase(rng: np.random.Generator, wanted: Wanted) -> str:
    """One of the ways in which people write it: "dog", "the dogs", "all red apples"."""
    if wanted.words is not None:
        return wanted.words
    wordings = wordings_of(wanted.noun)
    usual = rng.random() < 0.75
    singular, plural = wordings[0] if usual else wordings[int(rng.integers(len(wordings)))]
    return dress(rng, wanted.colour, plural if rng.random() < 0.35 else singular)


def unknown_words(rng: np.random.Generator) -> str:
    """Words for what no picture shows."""
    kind = rng.random()
    if kind < 0.7:
        colour = str(rng.choice(COLOUR_WORDS)) if rng.random() < 0.3 else None
        return dress(rng, colour, str(rng.choice(UNKNOWN_NOUNS)))
    letters = list("abcdefghijklmnopqrstuvwxyz")
    lengths = rng.integers(2, 10, int(rng.integers(1, 3)))
    return " ".join("".join(rng.choice(letters, int(length))) for length in lengths)


def with_article(words: str) -> str:
    """ "a dog", "an egg", but "scissors"."""
    if words.rsplit(maxsplit=1)[-1] in _PLURAL_ONLY:
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


_PLURAL_ONLY = frozenset(
    thing.name.split()[-1] for thing in THINGS if thing.name == thing.plural and thing.name.endswith("s")
)


def _known_words() -> frozenset[str]:
    nouns = (*NAMES, *KINDS, ANYTHING, ANY_SHAPE)
    return frozenset(word for noun in nouns for pair in wordings_of(noun) for word in pair)


# Nouns of things that pictures do not show.
UNKNOWN_NOUNS = tuple(
    noun for noun in (*OTHER_NOUNS, "man", "woman", "tool", "toy", "building", "insect", "zebra", "giraffe",
                      "wolf", "goat", "deer", "violin", "piano", "sofa", "bed", "lamp post", "river", "mountain",
                      "helmet", "forklift", "pallet", "bottle cap", "potato", "onion", "kiwi", "coconut")
    if noun not in _known_words()
)  # fmt: skip
