import pytest

from workflow_blocks.blocks.common.client_errors import InvalidInputError
from workflow_blocks.blocks.common.prompts import MAX_PROMPTS, parse_prompts
from workflow_blocks.prompt_text import MAX_PROMPT_LENGTH


@pytest.mark.parametrize(
    ("value", "prompts"),
    [
        pytest.param("red car", ["red car"], id="a string"),
        pytest.param("dog, cat", ["dog, cat"], id="commas do not split"),
        pytest.param(["dog", "cat"], ["dog", "cat"], id="a list"),
        pytest.param(("dog", "cat"), ["dog", "cat"], id="a tuple"),
        pytest.param(["  dog\n", "cat"], ["dog", "cat"], id="blanks around"),
        pytest.param("red  circle", ["red circle"], id="blanks inside"),
        pytest.param(
            "red\n circle\t\r\nin a\xa0box\u3000", ["red circle in a box"], id="blanks of all kinds"
        ),
        pytest.param(
            ["red circle", "red  circle", "red\ncircle"], ["red circle"], id="repeats but for blanks"
        ),
        pytest.param(
            ["a b", *(f"a{' ' * i}b" for i in range(2, 100))], ["a b"], id="repeats are not too many"
        ),
        pytest.param("x" + " " * 1000 + "y", ["x y"], id="blanks do not count as length"),
        pytest.param(["b", "a", "b ", "c", "a"], ["b", "a", "c"], id="repeats collapse to the first"),
        pytest.param(["a"] * 100, ["a"], id="repeats count once"),
        pytest.param(["Dog", "dog"], ["Dog", "dog"], id="case matters"),
        pytest.param("собака 🐕", ["собака 🐕"], id="any script"),
        pytest.param("x" * MAX_PROMPT_LENGTH, ["x" * MAX_PROMPT_LENGTH], id="longest"),
        pytest.param([str(i) for i in range(MAX_PROMPTS)], [str(i) for i in range(MAX_PROMPTS)], id="most"),
    ],
)
def test_parse_prompts(value, prompts):
    classes = parse_prompts(value)

    assert classes.names == classes.prompts == prompts
    assert classes.pairs == [(index, index) for index in range(len(prompts))]


@pytest.mark.parametrize(
    ("value", "by_name", "prompts", "pairs"),
    [
        pytest.param(
            {"helmet": ["hard hat", "safety helmet"], "person": "person"},
            {"helmet": ("hard hat", "safety helmet"), "person": ("person",)},
            ["hard hat", "safety helmet", "person"],
            [(0, 0), (0, 1), (1, 2)],
            id="one prompt and several",
        ),
        pytest.param(
            {"vehicle": ["car", "truck"], "car": "car"},
            {"vehicle": ("car", "truck"), "car": ("car",)},
            ["car", "truck"],
            [(0, 0), (0, 1), (1, 0)],
            id="a prompt of two classes",
        ),
        pytest.param(
            {" a\nb ": ["x  y", "x y", "z"]},
            {"a b": ("x y", "z")},
            ["x y", "z"],
            [(0, 0), (0, 1)],
            id="blanks",
        ),
        pytest.param({"*": "star"}, {"*": ("star",)}, ["star"], [(0, 0)], id="any name"),
        pytest.param(
            {"a": [str(i) for i in range(64)], "b": "7"},
            {"a": tuple(str(i) for i in range(64)), "b": ("7",)},
            [str(i) for i in range(64)],
            [*((0, i) for i in range(64)), (1, 7)],
            id="most different prompts",
        ),
    ],
)
def test_parse_prompts_of_classes(value, by_name, prompts, pairs):
    classes = parse_prompts(value)

    assert dict(classes.by_name) == by_name
    assert classes.names == list(by_name)
    assert classes.prompts == prompts
    assert classes.pairs == pairs


def nested(depth):
    value = "dog"
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param("", "is ''", id="empty"),
        pytest.param(" \t\n", r"is ' \t\n'", id="blank"),
        pytest.param("\x1c", r"is '\x1c'", id="blank in Python only"),
        pytest.param(["dog", " "], "holds ''", id="one blank"),
        pytest.param([], "is []", id="empty list"),
        pytest.param(None, "is None", id="nothing"),
        pytest.param(7, "is 7", id="a number"),
        pytest.param(["dog", 7], "holds 7", id="a number among strings"),
        pytest.param([["dog"]], "holds ['dog']", id="a list in a list"),
        pytest.param({"dog": 1}, "holds {'dog': 1}", id="a number for a class"),
        pytest.param({"dog": "dog", "cat": []}, "holds {'cat': []}", id="a class without prompts"),
        pytest.param({"dog": "dog", "cat": " "}, "holds {'cat': ' '}", id="a class with a blank prompt"),
        pytest.param({"dog": ["dog", ""]}, "holds {'dog': ['dog', '']}", id="a blank prompt among others"),
        pytest.param({"": "dog"}, "holds {'': 'dog'}", id="a class without a name"),
        pytest.param({" ": "dog"}, "holds {' ': 'dog'}", id="a class with a blank name"),
        pytest.param({3: "dog"}, "holds {3: 'dog'}", id="a class with a number as its name"),
        pytest.param({"x" * 257: "dog"}, "holds {'xxx", id="a class with a long name"),
        pytest.param({}, "is {}", id="no classes"),
        pytest.param({"a b": "dog", "a  b": "cat"}, "is {'a b': 'dog', 'a  b': 'cat'}", id="two of one name"),
        pytest.param({"a": {"b": "dog"}}, "holds {'a': {'b': 'dog'}}", id="a dictionary in a dictionary"),
        pytest.param(nested(90_000), "holds a dict that is too large to show", id="nested too deep"),
        pytest.param({"a": [["dog"]]}, "holds {'a': [['dog']]}", id="a list in a list of a class"),
        pytest.param({"a": [str(i) for i in range(65)]}, "holds {'a': ['0'", id="too many of a class"),
        pytest.param(
            {str(i): [f"{i} a", f"{i} b"] for i in range(33)}, "(33 items)", id="too many of all classes"
        ),
        pytest.param({str(i): "dog" for i in range(65)}, "(65 items)", id="too many classes"),
        pytest.param(b"dog", "is b'dog'", id="bytes"),
        pytest.param("\ud800", r"is '\ud800'", id="half of a surrogate pair"),
        pytest.param("x" * (MAX_PROMPT_LENGTH + 1), "(257 characters)", id="too long"),
        pytest.param([str(i) for i in range(MAX_PROMPTS + 1)], "(65 items)", id="too many"),
    ],
)
def test_parse_prompts_names_the_invalid_value(value, problem):
    with pytest.raises(InvalidInputError) as error:
        parse_prompts(value)

    assert problem in str(error.value)
    assert str(error.value).startswith("`prompts` ")
    assert f"1 to {MAX_PROMPT_LENGTH} Unicode characters" in str(error.value)
    assert len(str(error.value)) < 300
