"""Values read from answers."""

import pytest

from workflow_blocks.blocks.moondream2.parsing import NotParsedError, parse_answer, parse_cut_list

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
    ("list", '```json\n["cat", "dog"]\n```', ["cat", "dog"]),
    ("list", "```\ncat, dog\n```", ["cat", "dog"]),
    ("list", '"cat", "dog"', ["cat", "dog"]),
    ("list", "'a cat', 'a dog'", ["cat", "dog"]),
    ("list", "cat, dog, etc.", ["cat", "dog"]),
    ("list", "cat's toy, dog", ["cat's toy", "dog"]),
    ("list", "nothing", []),
    ("list", "No.", []),
    ("list", "There is nothing in the picture.", []),
    ("number", "3", 3),
    ("number", " Three.", 3),
    ("number", "-1.5", -1.5),
    ("number", "1,200", 1200),
    ("number", "106141412345678908", 106141412345678908),
    ("number", "0.00003", 0.00003),
    ("number", "3.14159265358979323846", 3.141592653589793),
    ("number", "0.30000000000000004441", 0.30000000000000004),
    ("number", "-1,234.000000000000000000000", -1234),
    ("number", "00000000000000000000000007", 7),
    ("number", "-.0", 0),
    ("number", "+.5", 0.5),
    ("number", "9007199254740993.0", 9007199254740993),
    ("boolean", "Yes", True),
    ("boolean", "No, it is not there.", False),
    ("boolean", "No, there isn't one.", False),
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
    ("number", "9" * 19 + ".5"),
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
    ("boolean", "No. one"),
    ("boolean", "Yes, or no"),
    ("boolean", "Yes, but no."),
    ("boolean", "yes... no"),
    ("boolean", "Yes, maybe not"),
    ("boolean", "Yes, it could be yes or no"),
    ("boolean", "Yes, there is no car."),
    ("boolean", "Yes, it isn't."),
    ("boolean", "No, perhaps."),
    ("list", "There are no cats"),
    ("list", "1. cat 2. dog"),
    ("list", '{"a": 1}'),
    ("list", "```json\n```"),
    ("number", "0" * 5000),
    ("number", "123456789012345678.9"),
]


@pytest.mark.parametrize(("form", "text", "value"), READ)
def test_answers_that_have_the_form(form, text, value):
    assert parse_answer(text, form) == value


@pytest.mark.parametrize(("form", "text"), NOT_READ)
def test_answers_of_another_form_are_not_guessed(form, text):
    with pytest.raises(NotParsedError):
        parse_answer(text, form)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("dog, cat, bi", ["dog", "cat"]),
        ("dog; cat; bi", ["dog", "cat"]),
        ("dog\ncat\nbi", ["dog", "cat"]),
        ("1. dog\n2. cat\n3.", ["dog", "cat"]),
        ("- black and white cat\n- bi", ["black and white cat"]),
        ("a dog, a cat and a bi", ["dog", "cat"]),
        ("a dog and a ca", ["dog"]),
        ("a dog, a black and whi", ["dog"]),
        ("dog, black and whi", ["dog"]),
        ("The image shows a man, a dog and", ["man"]),
        ("dog, cat,", ["dog", "cat"]),
        ('["dog", "black and white cat", "bi', ["dog", "black and white cat"]),
    ],
)
def test_of_a_list_that_was_cut_the_whole_items_are_read(text, items):
    assert parse_cut_list(text) == items


@pytest.mark.parametrize("text", ["", "do", "black and whi", "There is nothing in", '["do', "[", "nothing"])
def test_a_list_that_was_cut_in_its_first_item_is_not_read(text):
    with pytest.raises(NotParsedError):
        parse_cut_list(text)
