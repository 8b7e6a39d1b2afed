import numpy as np
import pytest

from training.demo_config import DEMO_CONFIG
from training.pictures import Item
from training.tasks import TaskMaker, caption, list_answer, text_of
from training.tokenizer import RESERVED, make_tokenizer
from training.words import ANY_SHAPE, ANYTHING, Wanted, absent, found, phrase, present, with_article
from workflow_blocks.moondream2.prompt_tokens import Prompts

SURE = frozenset()


def item(name, x=0.5, y=0.5, colour=None, doubtful=SURE, size=0.2):
    return Item(name, colour, doubtful, (x - size / 2, y - size / 2, x + size / 2, y + size / 2))


ITEMS = (
    item("pizza", 0.8, 0.2),
    item("dog", 0.2, 0.5, "brown"),
    item("apple", 0.5, 0.8, "green"),
    item("pizza", 0.4, 0.5, None, frozenset({"red"})),
    item("star", 0.6, 0.5, "red"),
)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def maker(tokenizer):
    return TaskMaker(Prompts(DEMO_CONFIG, tokenizer), tokenizer)


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        (Wanted("dog"), [1]),
        (Wanted("pizza"), [3, 0]),
        (Wanted("animal"), [1]),
        (Wanted("food"), [3, 2, 0]),
        (Wanted("apple", "green"), [2]),
        (Wanted("apple", "red"), []),
        (Wanted("pizza", "red"), None),
        (Wanted(ANY_SHAPE), [4]),
        (Wanted(ANYTHING), [1, 3, 2, 4, 0]),
        (Wanted(ANYTHING, words="person"), []),
    ],
)
def test_a_phrase_means_its_items_from_left_to_right(wanted, places):
    assert found(wanted, ITEMS) == places


def test_kinds_about_which_people_disagree_are_not_decided():
    assert found(Wanted("fruit"), [item("tomato")]) is None
    assert found(Wanted("food"), [item("tomato")]) == [0]
    assert found(Wanted("car"), [item("taxi")]) == [0]
    assert found(Wanted("taxi"), [item("car")]) == []


def test_present_phrases_mean_something_and_absent_ones_seldom():
    rng = np.random.default_rng(0)
    assert all(found(present(rng, ITEMS), ITEMS) != [] for _ in range(200))
    assert np.mean([found(absent(rng, ITEMS), ITEMS) == [] for _ in range(400)]) > 0.85


def test_most_searches_are_for_what_is_not_there_and_never_miss_what_is(maker, tokenizer):
    rng = np.random.default_rng(0)
    searches = [task for _ in range(100) for task in maker.tasks(rng, ITEMS) if task.skill == "detect"]
    tasks = {task.prompt.ids: task for task in searches}

    assert np.mean([task.found == () for task in searches]) > 0.6
    for words, places in (("dog", (1,)), ("pizza", (3, 0)), ("star", (4,)), ("cat", ())):
        prompt = Prompts(DEMO_CONFIG, tokenizer).detect(words)
        assert tasks[prompt.ids].found == places


def test_phrases_use_names_plurals_synonyms_and_articles():
    rng = np.random.default_rng(0)
    phrases = {phrase(rng, Wanted("car", "red")) for _ in range(400)}

    assert {"red car", "red cars", "a red car", "the red cars", "red automobile"} <= phrases


def test_answers_and_captions_read_like_text():
    assert text_of(list_answer(ITEMS)) == "dog, two pizzas, apple, star"
    assert text_of(caption("short", ITEMS)) == "a dog, two pizzas, a green apple and a red star"
    assert text_of(caption("normal", ITEMS[:2])) == "a picture of a dog and a pizza."
    assert text_of(caption("long", ITEMS[:2])) == "a dog on the left and a pizza at the top right."
    assert text_of(list_answer([])) == "nothing"
    assert with_article("scissors") == "scissors"
    assert with_article("orange") == "an orange"


def test_every_word_that_training_uses_is_one_token(maker, tokenizer):
    rng = np.random.default_rng(1)
    for _ in range(60):
        for task in maker.tasks(rng, ITEMS):
            answer = tokenizer.decode(list(task.answer))
            assert all(len(token) > 1 or token in ".,-" for token in tokenizer.encode(answer).tokens[1:]), (
                answer
            )
            assert len(task.looks_at) == (len(task.answer) + 1 if task.skill == "text" else 0)


def test_words_have_the_same_token_after_a_space_and_come_back(tokenizer):
    assert tokenizer.encode("dog").ids == tokenizer.encode(" dog").ids
    for text in ("dog, two pizzas", "is there an ice cream?", "three t-shirts.", "zebra"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_templates_name_reserved_tokens(tokenizer):
    assert [tokenizer.id_to_token(index) for index in range(len(RESERVED))] == list(RESERVED)
    templates = DEMO_CONFIG.tokenizer.templates
    assert tokenizer.id_to_token(templates.detect.prefix[1]) == "<|detect|>"
    assert tokenizer.id_to_token(templates.point.prefix[1]) == "<|point|>"
    assert tokenizer.id_to_token(templates.query.prefix[1]) == "<|query|>"
    for length in ("short", "normal", "long"):
        assert tokenizer.id_to_token(getattr(templates.caption, length)[3]) == f"<|{length}|>"
    assert tokenizer.get_vocab_size() <= DEMO_CONFIG.text.vocab_size


def test_answers_are_right_and_look_at_what_they_are_about(maker, tokenizer):
    rng = np.random.default_rng(2)
    seen = set()
    for _ in range(200):
        for task in maker.tasks(rng, ITEMS):
            question, answer = (tokenizer.decode(list(ids)) for ids in (task.prompt.ids, task.answer))
            if "how many pizzas" in question:
                assert answer == "2"
                assert task.looks_at[0] == (3, 0)
                seen.add("count")
            if question.strip() == "is there a dog?":
                assert answer == "yes"
                seen.add("yes")
            if question.strip() == "what is this?" and task.looks_at[0] == (4,):
                assert answer == "star"
                seen.add("name")
    assert seen == {"count", "yes", "name"}
