"""The tab that asks, in a real Chromium, on the real server, with a tiny model that has every skill."""

import json

import numpy as np
import pytest
import requests

from tests.running.page import (
    DONE,
    HOSTILE,
    SCENE,
    add_class,
    detect,
    needs_chromium,
    run_definition,
    scene_file,
    settle,
)
from tests.scenes import image_png
from tests.stand_ins import SHAPES_MODEL
from workflow_blocks.bundled_model import DEMO_MODEL

QUESTIONS = ["What is it?", "Which colour is it?"]
CHOICES = ["red", "blue", "a very dark green"]
THINGS = ["dog", "7", "red  car"]
# The task, and what its fields hold.
TASKS = [
    ("questions", {"questions": "\n".join([*QUESTIONS, "", " "]), "length": 12}),
    ("choices", {"question": QUESTIONS[1], "choices": "\n".join(CHOICES)}),
    ("choices", {"question": "", "choices": "yes\nno"}),
    ("each", {"things": "\n".join(THINGS)}),
    ("caption", {"caption": "caption", "length": 12}),
    ("caption", {"caption": "more-detailed-caption", "length": 5}),
    ("point", {"things": "red  car"}),
]

pytestmark = needs_chromium


@pytest.fixture
def open_asking(open_page, text_package):
    """The page with one image and this tab selected."""

    def open_it(model=text_package, **options):
        page = open_page(**options)
        page.set_input_files("#files", scene_file())
        page.click("#mode-ask")
        page.fill("#model", model)
        return page

    return open_it


def choose(page, task, fields):
    page.select_option("#task", task)
    for name, value in fields.items():
        if name == "caption":
            page.select_option("#caption", value)
        else:
            page.fill(f"#{name}", str(value))


def answers(page, card=0):
    """The texts and probabilities that a card shows, and the widths of their bars from 0 to 1."""
    return (
        page.locator(".card")
        .nth(card)
        .evaluate(
            """(card) => [...card.querySelectorAll('.answer')].map((row) => {
            const bar = row.querySelector('.bar');
            return [row.querySelector('.words').textContent, row.querySelector('.probability').value,
                bar.firstChild.getBoundingClientRect().width / bar.clientWidth];
        })"""
        )
    )


def expected_answers(task, output):
    """What the card should show of the server's outputs: texts and probabilities."""
    predictions = output.get("predictions")
    if task == "questions":
        return list(zip(output["output"], output["probability"], strict=True))
    if task == "caption":
        return [(output["output"], output["probability"])]
    if task == "choices":
        found = [(one["class"], one["confidence"]) for one in predictions["predictions"]]
        return sorted(found, key=lambda one: -one[1])
    if task == "each":
        return [(name, one["confidence"]) for name, one in predictions["predictions"].items()]
    points = predictions["predictions"]
    return [
        (f"{name} {number}", one["confidence"])
        for name in output["counts"]
        for number, one in enumerate((one for one in points if one["class"] == name), 1)
    ]


def shown(probability):
    return "< 0.01" if 0 < probability < 0.005 else f"{probability:.2f}"


@pytest.mark.parametrize(("task", "fields"), TASKS)
def test_answers_have_probabilities_and_the_copies_give_the_same(
    open_asking, server, tmp_path, monkeypatch, capsys, task, fields
):
    page = open_asking()
    choose(page, task, fields)

    detect(page)

    page.click("#tab-definition")
    page.click("[data-copy=definition-text]")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    page.click("#tab-images")
    output = run_definition(server, copied)
    expected = expected_answers(task, output)
    found = answers(page)
    assert len(expected) > 0
    assert sorted((text, number) for text, number, _ in found) == sorted(
        (text or "(an empty answer)", shown(probability)) for text, probability in expected
    )
    by_text = {text or "(an empty answer)": probability for text, probability in expected}
    assert [width for *_, width in found] == pytest.approx([by_text[text] for text, *_ in found], abs=0.03)
    answered = page.text_content("#answered")
    for words in ("this plugin's runtime", "1 image in"):
        assert words in answered

    (tmp_path / "photo.jpg").write_bytes(image_png(SCENE))
    monkeypatch.chdir(tmp_path)
    exec(compile(page.text_content("#python-text"), "ask.py", "exec"), {})
    printed = capsys.readouterr().out
    for _, probability in expected:
        assert str(round(probability, 3)) in printed


def test_questions_stand_with_their_answers(open_asking):
    page = open_asking()
    choose(page, "questions", {"questions": "\n".join(QUESTIONS), "length": 12})

    detect(page)

    assert page.locator(".answers .question").all_text_contents() == QUESTIONS
    assert [group.locator(".answer").count() for group in page.locator(".answers li").all()] == [1, 1]


def test_the_likeliest_choice_comes_first(open_asking):
    page = open_asking()
    choose(page, "choices", {"question": "Is it?", "choices": "yes\nno"})  # this model always says no

    detect(page)

    assert [text for text, *_ in answers(page)] == ["no", "yes"]
    assert page.locator(".words.chosen").all_text_contents() == ["no"]


def test_points_are_drawn_where_they_are_with_their_counts(open_asking, server):
    page = open_asking()
    choose(page, "point", {"things": "\n".join(THINGS)})

    detect(page)

    output = run_definition(server, json.loads(page.text_content("#definition-text")))
    size = output["predictions"]["image"]
    expected = [
        [one["x"] / size["width"], one["y"] / size["height"]] for one in output["predictions"]["predictions"]
    ]
    found = page.evaluate(
        """() => {
        const area = document.querySelector('.boxes').getBoundingClientRect();
        return [...document.querySelectorAll('.point')].map((point) => {
            const {left, top, width, height} = point.getBoundingClientRect();
            return [(left + width / 2 - area.left) / area.width, (top + height / 2 - area.top) / area.height];
        })}"""
    )
    assert len(expected) > len(THINGS)
    np.testing.assert_allclose(sorted(found), sorted(expected), atol=0.006)
    counts = {
        "".join(text.split(": ")[:-1]): int(text.split(": ")[-1].split()[0])
        for text in page.locator(".answers .question").all_text_contents()
    }
    assert counts == output["counts"]
    assert f"{len(expected)} points" in page.text_content(".card .note")
    colours = page.eval_on_selector_all(
        ".point", "(all) => all.map((point) => getComputedStyle(point).backgroundColor)"
    )
    assert len(set(colours)) == len([count for count in counts.values() if count])


@pytest.mark.parametrize("task", ["questions", "caption", "point"])
def test_what_the_model_cannot_do_is_said_before_and_the_error_after(open_asking, server, task):
    page = open_asking(model=str(SHAPES_MODEL))
    page.wait_for_selector("#model-hint:has-text('It can: detect.')")
    choose(page, task, {})

    detect(page)

    body = {
        "specification": json.loads(page.text_content("#definition-text")),
        "inputs": {"image": {"type": "base64", "value": ""}},
    }
    assert requests.post(f"{server}/workflows/run", json=body, timeout=60).status_code == 400
    assert "this model was not made to" in page.text_content(".card.failed .note")
    assert page.text_content("#summary") == "1 image, 1 failed"
    assert page.locator(".answer").count() == 0
    page.click("#mode-detect")
    page.fill("#model", DEMO_MODEL)
    page.wait_for_selector("#model-hint:has-text('drawn things')")


def test_models_with_the_skill_and_unknown_models_get_no_warning(open_asking, text_package):
    page = open_asking(model=str(SHAPES_MODEL))
    for model in (text_package, DEMO_MODEL, "no-such/3", "./nowhere", ""):
        page.fill("#model", str(SHAPES_MODEL))
        page.wait_for_selector("#model-hint:has-text('not made for')")
        if model == "":
            page.fill("#model", model)
        else:
            with page.expect_response("**/playground/api/model?*"):
                page.fill("#model", model)
        settle(page)
        assert "not made for" not in page.text_content("#model-hint")


def test_an_error_takes_the_place_of_answers(open_asking):
    page = open_asking()
    choose(page, "choices", {"question": "Is it?", "choices": "yes\nno"})
    detect(page)
    assert answers(page)
    page.fill("#choices", "yes")

    detect(page)

    assert "give at least two different classes" in page.text_content(".card.failed .note")
    assert answers(page) == []


def test_the_length_of_texts_is_checked_by_the_server(open_asking):
    page = open_asking()
    choose(page, "caption", {"length": 0})

    detect(page)

    assert "give a whole number from 1 to 2048" in page.text_content(".card.failed .note")


def test_hostile_texts_stay_text(open_asking):
    page = open_asking()
    page.click("#clear")
    page.set_input_files("#files", scene_file(name=f"{HOSTILE.replace('/', '')}.png"))
    texts = []
    for task, fields in (
        ("questions", {"questions": f"{HOSTILE}\n$inputs.{HOSTILE}", "length": 12}),  # refused and quoted
        ("questions", {"questions": f"{HOSTILE}\nb", "length": 12}),
        ("choices", {"question": HOSTILE, "choices": f"{HOSTILE}\n__proto__"}),
        ("each", {"things": f"{HOSTILE}\n__proto__\nconstructor"}),
        ("point", {"things": f"{HOSTILE}\n__proto__"}),
    ):
        choose(page, task, fields)
        detect(page)
        texts.append(page.locator(".card").inner_text())
        for tab in ("definition", "python", "images"):
            page.click(f"#tab-{tab}")
    page.route("**/workflows/run", with_answers(HOSTILE))
    choose(page, "caption", {"length": 12})
    detect(page)
    texts.append(page.locator(".card").inner_text())
    with page.expect_response("**/playground/api/model?*"):
        page.fill("#model", HOSTILE)
    settle(page)

    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == page.locator("b:text('bold')").count() == 0
    assert all(HOSTILE in text for text in texts[1:])
    assert "window.hacked" in texts[0]
    assert all("__proto__" in text for text in texts[2:5])


def with_answers(text):
    """The server's own answers, with another text."""

    def change(route):
        answer = route.fetch()
        document = answer.json()
        document["outputs"][0]["output"] = text
        route.fulfill(response=answer, json=document)

    return change


def test_the_tabs_share_the_images_and_keep_their_results(open_asking):
    page = open_asking()
    choose(page, "questions", {"questions": "a", "length": 5})
    detect(page)
    page.set_input_files("#files", scene_file(2, "second.png"))
    assert page.locator(".card").count() == 2
    first = answers(page)
    page.click("#tab-definition")

    page.click("#mode-detect")
    page.fill("#model", DEMO_MODEL)
    add_class(page, "shape")
    detect(page)
    assert page.locator(".card .box").count() > 0
    assert page.locator(".card .answer").count() == 0
    assert "moondream2_prompt_detection@v1" in page.text_content("#definition-text")
    page.click("#tab-dataset")
    page.click("#mode-ask")

    assert page.locator("#images").is_visible()  # this tab makes no dataset
    assert not page.locator("#dataset, #tab-dataset").locator("visible=true").count()
    assert answers(page) == first
    page.locator(".card [title=Remove]").first.click()
    assert page.locator(".card .title").all_text_contents() == ["second.png"]
    page.click("#mode-detect")
    assert page.locator(".card .title").all_text_contents() == ["second.png"]


def test_only_images_without_these_answers_are_asked_about(open_asking):
    page = open_asking()
    asked = []
    page.on("request", lambda sent: asked.append(1) if sent.url.endswith("/workflows/run") else None)
    choose(page, "questions", {"questions": "a", "length": 5})
    detect(page)
    page.set_input_files("#files", scene_file(2, "second.png"))
    detect(page)
    assert len(asked) == 2

    page.fill("#questions", "b")
    page.wait_for_selector(".card.stale")
    assert "of other questions" in page.text_content(".card .note")
    detect(page)
    assert len(asked) == 4
    assert page.locator(".card.stale").count() == 0


def test_the_lowest_probability_comes_first_on_demand(open_asking):
    page = open_asking()
    page.set_input_files("#files", [scene_file(number, f"{number}.png") for number in (2, 3)])
    choose(page, "choices", {"question": "Is it?", "choices": "\n".join(CHOICES)})
    detect(page)

    page.select_option("#order", "unsure")
    settle(page)

    lowest = page.eval_on_selector_all(
        ".card",
        "(all) => all.map((card) => Math.min(...[...card.querySelectorAll('.probability')]"
        ".map((one) => Number(one.title.split(' ')[1]))))",
    )
    assert lowest == sorted(lowest)


def test_what_is_missing_is_said(open_asking):
    page = open_asking()
    for task, field, words in (
        ("questions", "questions", "Ask a question"),
        ("choices", "choices", "Name the choices"),
        ("each", "things", "Name what may be"),
        ("point", "things", "Name what to point at"),
    ):
        choose(page, task, {field: " \n "})
        page.click("#run")
        assert words in page.locator(".messages li").first.text_content()


def test_the_keyboard_is_enough(open_asking):
    page = open_asking()
    page.focus("#mode-ask")
    for key, mode in (
        ("ArrowLeft", "detect"),
        ("ArrowLeft", "ask"),
        ("ArrowRight", "detect"),
        ("End", "ask"),
        ("Home", "detect"),
        ("ArrowRight", "ask"),
    ):
        page.keyboard.press(key)
        selected = page.locator(f"#mode-{mode}:focus[aria-selected=true][tabindex='0']")
        assert selected.count() == 1, key
        panel = selected.get_attribute("aria-controls")
        assert page.locator(f"[role=tabpanel][aria-labelledby=mode-{mode}]").get_attribute("id") == panel
        assert page.locator("#find, #ask").locator("visible=true").get_attribute("id") == panel
    for tab in ("definition", "python", "images", "python"):
        if tab == "definition":
            page.focus("#tab-images")
        page.keyboard.press({"python": "End"}.get(tab, "ArrowRight"))
        assert page.locator(f"#tab-{tab}:focus[aria-selected=true]").count() == 1, tab  # Dataset is skipped
    page.focus("#task")
    page.keyboard.type("Choose")
    page.keyboard.press("Tab")
    page.keyboard.type("Is it?")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".answer")
    page.wait_for_selector(DONE)
    assert page.text_content(".answers .question") == "Is it?"
    page.focus(".picture")
    page.keyboard.press("Enter")
    assert page.locator("#large .picture").count() == 1
    page.keyboard.press("Escape")
    page.wait_for_selector("#grid .picture")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_in_both_colour_schemes(open_asking, scheme):
    page = open_asking(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    long = "x" * 200
    for task, fields in (
        ("questions", {"questions": long, "length": 40}),
        ("choices", {"question": long, "choices": f"{long}\nno"}),
        ("each", {"things": long}),
        ("point", {"things": long}),
    ):
        choose(page, task, fields)
        detect(page)
        assert page.locator(".card.failed").count() == 0, page.text_content(".card .note")
        for tab in ("definition", "python", "images"):
            page.click(f"#tab-{tab}")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (task, tab)
    bar = page.evaluate("getComputedStyle(document.querySelector('.bar span')).backgroundColor")
    assert bar == {"light": "rgb(79, 70, 229)", "dark": "rgb(165, 160, 255)"}[scheme]
