"""Values read from answers."""

import pytest

from workflow_blocks.blocks.moondream2.parsing import NotParsedError, parse_answer

READ = [
    ("text", " A dog. ", "A dog."),
    ("list", "a dog, a cat and a ball", ["dog", "cat", "ball"]),
    ("list", "dog", ["dog"]),
    ("list", "dog, two pizzas", ["dog", "pizzas"]),
    ("list", "black and white cat, dog", ["black and white cat", "dog"]),
    ("list", "A dog, a cat, and the dog.", ["dog", "cat"]),
    ("list", "1. red car\n2. person", ["red car", "person"]),
    ("list", "- red car\n- person", ["red car", "person"]),
    ("list", '["red car", "person"]', ["red car", "person"]),
    ("list", "- dog\n- black and white cat", ["dog", "black and white cat"]),
    ("list", "a black and white cat", ["black and white cat"]),
    ("list", "a man and a woman", ["man", "woman"]),
    ("list", "dog and cat", ["dog", "cat"]),
    ("list", "The image shows a man, a dog and a car.", ["man", "dog", "car"]),
    ("list", "Objects:\n- dog\n- bread and butter", ["dog", "bread and butter"]),
    ("list", "Objects: a dog, a cat", ["dog", "cat"]),
    ("list", "1. dog, 2. cat", ["dog", "cat"]),
    ("list", "Dog, dog", ["Dog"]),
    ("list", "St. Bernard, dog", ["St. Bernard", "dog"]),
    ("list", "nothing", []),
    ("list", "There is nothing in the picture.", []),
    ("number", "3", 3),
    ("number", " Three.", 3),
    ("number", "-1.5", -1.5),
    ("number", "1,200", 1200),
    ("number", "106141412345678908", 106141412345678908),
    ("number", "0.00003", 0.00003),
    ("boolean", "Yes", True),
    ("boolean", "No, there is no car.", False),
    ("boolean", "no.", False),
    ("boolean", "Yes, there is a car.", True),
]
NOT_READ = [
    ("list", ""),
    ("list", ", and ,"),
    ("list", "[1, 2]"),
    ("list", "[" * 100_000),
    ("list", "x" * 300),
    ("list", ", ".join(map(str, range(65)))),
    ("list", "A dog. It is brown."),
    ("number", ""),
    ("number", "9" * 309),
    ("number", "٣"),
    ("number", "about 3"),
    ("number", "3 or 4"),
    ("number", "nan"),
    ("number", "twenty-one dogs"),
    ("boolean", ""),
    ("boolean", "No idea"),
    ("boolean", "Yesterday"),
    ("boolean", "maybe"),
    ("boolean", "yes, no"),
    ("boolean", "No. 5"),
]


@pytest.mark.parametrize(("form", "text", "value"), READ)
def test_answers_that_have_the_form(form, text, value):
    assert parse_answer(text, form) == value


@pytest.mark.parametrize(("form", "text"), NOT_READ)
def test_answers_of_another_form_are_not_guessed(form, text):
    with pytest.raises(NotParsedError):
        parse_answer(text, form)
