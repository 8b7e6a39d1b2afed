"""Prompts about scenes, in natural variants, and which objects each should find."""

from dataclasses import dataclass

import numpy as np

from training.scenes import COLOURS, SHAPES, SceneObject

OTHER_COLOURS = ("purple", "orange", "black", "white", "grey", "pink", "brown")
OTHER_NOUNS = (
    "dog", "cat", "person", "car", "tree", "house", "bird", "hand", "face", "bottle", "cup", "chair", "table",
    "phone", "book", "door", "window", "road", "truck", "bus", "bicycle", "horse", "cow", "sheep", "fish",
    "apple", "banana", "flower", "leaf", "cloud", "sun", "moon", "ball", "box", "knife", "fork", "spoon", "plate",
    "shoe", "hat", "shirt", "glove", "helmet", "sign", "light", "lamp", "screen", "key", "letter", "word", "line",
    "hexagon", "pentagon", "cross", "arrow", "heart", "cube", "pyramid", "cone", "ring", "spiral", "stripe",
    "person wearing a hat", "license plate", "traffic light", "crack", "scratch", "defect", "boat", "plane",
)  # fmt: skip
ANY_NOUNS = ("shape", "object", "thing")
ARTICLES = ("a", "the", "all", "every", "any", "all the", "each", "one")


@dataclass(frozen=True)
class Question:
    """What a prompt asks for; `None` stands for any colour or shape, `impossible` for neither."""

    colour: str | None = None
    shape: str | None = None
    impossible: bool = False

    def matches(self, item: SceneObject) -> bool:
        return not self.impossible and self.colour in (None, item.colour) and self.shape in (None, item.shape)


def plain_prompt(question: Question) -> str:
    """The shortest wording: 'red circle', 'circle', 'red shape', 'shape'."""
    return " ".join(word for word in (question.colour, question.shape or "shape") if word)


def random_wording(rng: np.random.Generator, question: Question) -> str:
    """One of the ways in which people ask for a thing."""
    if question.impossible:
        return _senseless(rng)
    noun = question.shape or str(rng.choice(ANY_NOUNS, p=(0.6, 0.25, 0.15)))
    return _dress(rng, question.colour, noun)


def dress(rng: np.random.Generator, colour: str | None, noun: str) -> str:
    """A noun with its colour, if one is given, at times after an article."""
    words = noun
    if colour is not None:
        style = rng.random()
        words = f"{colour} {noun}"
        if style > 0.95:
            words = f"{noun} that {'are' if noun.endswith('s') else 'is'} {colour}"
        elif style > 0.9:
            words = f"{colour} {rng.choice(['coloured', 'colored'])} {noun}"
    if rng.random() < 0.35:
        words = f"{rng.choice(ARTICLES)} {words}"
    return words


def _dress(rng: np.random.Generator, colour: str | None, noun: str) -> str:
    """The same, at times in the plural."""
    return dress(rng, colour, f"{noun}s" if rng.random() < 0.3 else noun)


def _senseless(rng: np.random.Generator) -> str:
    """A prompt that no drawn object answers."""
    kind = rng.random()
    if kind < 0.3:
        noun = str(rng.choice([*SHAPES, *ANY_NOUNS]))
        return _dress(rng, str(rng.choice(OTHER_COLOURS)), noun)
    if kind < 0.85:
        colour = str(rng.choice([*COLOURS, *OTHER_COLOURS])) if rng.random() < 0.4 else None
        return _dress(rng, colour, str(rng.choice(OTHER_NOUNS)))
    letters = list("abcdefghijklmnopqrstuvwxyz")
    return "".join(rng.choice(letters, int(rng.integers(2, 10))))
