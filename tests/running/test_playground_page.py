"""The playground's page in a real Chromium, on the real server."""

import base64
import json
import re
import socket
import zipfile
from io import BytesIO
from threading import Thread

import cv2
import numpy as np
import pytest
import requests
import supervision as sv
import uvicorn
from fastapi import FastAPI

from tests.running.page import (
    DONE,
    HOSTILE,
    READY,
    SCENE,
    add_class,
    detect,
    durations,
    needs_chromium,
    run_definition,
    scene_file,
    set_slider,
    settle,
)
from tests.scenes import image_bgr, image_png, recall, true_boxes
from workflow_blocks.datasets.formats import FORMATS
from workflow_blocks.datasets.labelled import read_labelled
from workflow_blocks.evaluation.searches import read_prompts
from workflow_blocks.running.playground.access import Access
from workflow_blocks.running.playground.routes import add_playground

# Red, green and yellow squares, of which one is found with a score far below the others.
SCENE_OF_DIFFERENT_SCORES = 10

pytestmark = needs_chromium


def shown_boxes(page, card=0):
    """Names, scores and corners (N, 4) in shares of the picture, as the page shows them."""
    found = (
        page.locator(".card")
        .nth(card)
        .evaluate(
            """(node) => {
            const area = node.querySelector('.boxes').getBoundingClientRect();
            return [...node.querySelectorAll('.box:not([hidden])')].map((box) => {
                const {left, top, right, bottom} = box.getBoundingClientRect();
                return [box.querySelector('.tag').textContent, (left - area.left) / area.width,
                    (top - area.top) / area.height, (right - area.left) / area.width,
                    (bottom - area.top) / area.height];
            })}"""
        )
    )
    return sorted(found)


def as_shown(output):
    """What the page should show of an answer: see `shown_boxes`."""
    detections = sv.Detections.from_inference(output["predictions"])
    size = output["predictions"]["image"]
    scale = np.array([size["width"], size["height"]] * 2)
    names = detections.data.get("class_name", [])
    return sorted(
        [f"{name} {confidence:.2f}", *(corners / scale).tolist()]
        for name, confidence, corners in zip(names, detections.confidence, detections.xyxy, strict=True)
    )


def assert_same(shown, expected):
    assert [text for text, *_ in shown] == [text for text, *_ in expected]
    np.testing.assert_allclose(
        [corners for _, *corners in shown], [corners for _, *corners in expected], atol=0.006
    )


def test_a_picture_goes_in_and_boxes_come_out(open_page, server):
    page = open_page()
    page.set_input_files("#files", scene_file())
    add_class(page, "circle", "star", "square")

    detect(page)

    definition = json.loads(page.text_content("#definition-text"))
    expected = as_shown(run_definition(server, definition))
    assert len(expected) >= 3
    assert_same(shown_boxes(page), expected)
    answered = page.text_content("#answered")
    for words in ("moondream2-demo", "this plugin's runtime", "float32", "1 image in"):
        assert words in answered
    colours = page.eval_on_selector_all(
        ".box", "(all) => all.map((box) => getComputedStyle(box).borderTopColor)"
    )
    names = [text.rpartition(" ")[0] for text in page.locator(".box .tag").all_text_contents()]
    assert len(set(zip(names, colours, strict=True))) == len(set(names)) == len(set(colours)) > 1


def test_the_first_view_is_ready_to_detect(open_page):
    page = open_page(empty=False)
    page.wait_for_load_state("networkidle")
    sizes = page.evaluate("performance.getEntriesByType('resource').map((one) => one.encodedBodySize)")
    assert len(sizes) > 10
    assert sum(sizes) < 200_000 - len(page.content())

    detect(page)

    assert all(shown_boxes(page, card) for card in range(page.locator(".card").count()))


def test_a_slider_acts_without_a_request_and_the_copied_definition_gives_the_same(open_page, server):
    page = open_page()
    page.set_input_files("#files", scene_file(SCENE_OF_DIFFERENT_SCORES))
    add_class(page, "shape", "dog")
    detect(page)
    before = shown_boxes(page)
    scores = sorted(float(text.split()[-1]) for text, *_ in before if text.startswith("shape"))
    requested = []
    page.on("request", lambda sent: requested.append(sent.url))

    set_slider(page, round((scores[0] + scores[-1]) / 2, 2))

    after = shown_boxes(page)
    assert 0 < sum(text.startswith("shape") for text, *_ in after) < len(scores)
    assert [box for box in after if box[0].startswith("dog")] == [
        box for box in before if box[0].startswith("dog")
    ]
    assert requested == []
    page.click("#tab-definition")
    page.click("[data-copy=definition-text]")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    page.click("#tab-images")
    assert_same(after, as_shown(run_definition(server, copied, SCENE_OF_DIFFERENT_SCORES)))


def test_the_python_code_gives_the_same(open_page, tmp_path, monkeypatch, capsys):
    page = open_page()
    page.set_input_files("#files", scene_file())
    add_class(page, "star", 'a "quoted" \\ name')
    page.fill(".classes li:first-child .more", "blue star")
    page.press(".classes li:first-child .more", "Enter")
    detect(page)
    (tmp_path / "photo.jpg").write_bytes(image_png(SCENE))
    monkeypatch.chdir(tmp_path)

    exec(compile(page.text_content("#python-text"), "detect.py", "exec"), {})

    printed = capsys.readouterr().out.splitlines()
    assert len(printed) - 1 == len(shown_boxes(page)) > 0


def test_classes_with_several_prompts(open_page):
    page = open_page()
    page.set_input_files("#files", scene_file())
    add_class(page, "star", "circle")
    page.fill(".classes li:first-child .name", "thing")
    page.press(".classes li:first-child .name", "Tab")
    page.fill(".classes li:first-child .more", "square")
    page.press(".classes li:first-child .more", "Enter")

    detect(page)

    step = json.loads(page.text_content("#definition-text"))["steps"][0]
    assert step["prompts"] == {"thing": ["star", "square"], "circle": "circle"}
    titles = page.eval_on_selector_all(".box", "(all) => all.map((box) => box.title)")
    assert {"star", "square"} >= {title.partition("found by: ")[2] for title in titles} - {""} != set()
    assert {title.split()[0] for title in titles} <= {"thing", "circle"}


def test_several_images_stand_side_by_side(open_page):
    page = open_page()
    page.set_input_files("#files", [scene_file(number, f"{number}.png") for number in range(3)])
    add_class(page, "shape")
    detect(page)

    boxes = [page.locator(".card").nth(number).bounding_box() for number in range(3)]

    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert all(shown_boxes(page, number) for number in range(3))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_in_both_colour_schemes(open_page, scheme):
    page = open_page(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    page.set_input_files("#files", scene_file(name=f"{'long' * 40}.png"))
    add_class(page, "shape " + "x" * 200)
    detect(page)

    for tab in ("images", "definition", "python", "dataset"):
        box = page.locator(f"#tab-{tab}").bounding_box()
        assert page.locator("#tabs").bounding_box()["x"] <= box["x"]
        assert box["x"] + box["width"] <= 360, tab
        page.click(f"#tab-{tab}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), tab
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([int(part) for part in re.findall(r"\d+", back)[:3]])
    assert (brightness < 80) == (scheme == "dark")


def test_hostile_names_stay_text(open_page):
    page = open_page()
    page.set_input_files("#files", scene_file(name=f"{HOSTILE.replace('/', '')}.png"))
    page.set_input_files("#files", {"name": f"{HOSTILE.replace('/', '')}.txt", "mimeType": "", "buffer": b""})
    add_class(page, HOSTILE, "shape", f"$inputs.{HOSTILE}")
    document = {"prompts": {HOSTILE: [HOSTILE, "shape"], "shape": HOSTILE}}
    detect(page)  # the server refuses the selector, and quotes it
    page.set_input_files("#open-prompts", as_file("prompts.json", document))
    detect(page)
    page.set_input_files("#open-prompts", as_file(f"{HOSTILE.replace('/', '')}.json", {HOSTILE: 7}))
    settle(page)

    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == page.locator("b:text('bold')").count() == 0
    assert HOSTILE in page.locator(".chip").all_text_contents()
    assert any(
        HOSTILE.replace('"', '\\"') in text for text in page.locator(".messages li").all_text_contents()
    )
    assert json.loads(page.text_content("#definition-text"))["steps"][0]["prompts"] == document["prompts"]
    assert any(text.startswith(HOSTILE) for text in page.locator(".box .tag").all_text_contents())


def as_file(name, document):
    text = document if isinstance(document, str) else json.dumps(document)
    return {"name": name, "mimeType": "application/json", "buffer": text.encode()}


def test_prompts_go_out_and_in_as_evaluate_reads_them(open_page, tmp_path):
    page = open_page()
    document = {
        "prompts": {"thing": ["star", "square"], "circle": "circle"},
        "confidence": {"thing": 0.3, "*": 0.1},
    }
    page.set_input_files("#open-prompts", as_file("prompts.json", document))

    with page.expect_download() as download:
        page.click("#save-prompts")

    assert download.value.suggested_filename == "prompts.json"
    download.value.save_as(tmp_path / "prompts.json")
    found = read_prompts(tmp_path / "prompts.json")
    assert found.prompts == {"thing": ("star", "square"), "circle": ("circle",)}
    assert found.thresholds == {"thing": 0.3, "circle": 0.1}
    step = json.loads(page.text_content("#definition-text"))["steps"][0]
    assert step["confidence"] == {"thing": 0.3, "circle": 0.1}


BAD_PROMPTS = [
    ('{"prompts": {\n"a": ["b",]}}', "line 2"),
    ('{"prompts":\n\n{"a": "b"', "line 3"),
    ("[]", "holds no prompts"),
    ({"prompts": {"a": []}}, '"a"'),
    ({"prompts": {" ": "b"}}, "has no name"),
    ({"prompts": {"a": {"b": "c"}}}, '"a"'),
    ({"prompts": {"a": [["b"]]}}, '"a"'),
    ({"prompts": {"a": "b", "a ": "c"}}, "two classes"),
    ({"prompts": ["a", 7]}, "7"),
    ({"prompts": "a", "confidence": 2}, "2"),
    ({"prompts": "a", "confidence": {"a": "high"}}, "high"),
    ({"prompts": "a", "confidence": {"*": 0.1, "b": 0.2}}, '"b", which is no class'),
    ("[" * 100_000, ""),
    ('{"prompts": {"a": ' + "[" * 50_000 + "]" * 50_000 + "}}", '"a"'),
]


PROMPTS_ALONE = [
    ({"circle": ["circle", "disc"]}, {"circle": ["circle", "disc"]}),
    ({"prompts": "star", "circle": "circle"}, {"prompts": "star", "circle": "circle"}),
    (["star", "circle", "star ", " star"], ["star", "circle"]),
    ('"star"', ["star"]),
    ({"prompts": ["star"]}, ["star"]),
]


@pytest.mark.parametrize(("document", "prompts"), PROMPTS_ALONE)
def test_a_file_of_prompts_alone_opens_and_takes_away_the_message_about_another(open_page, document, prompts):
    page = open_page()
    page.click("#run")
    page.set_input_files("#open-prompts", as_file("bad.json", {"a": 7}))
    page.wait_for_selector(".messages li:has-text('bad.json')")

    page.set_input_files("#open-prompts", as_file("prompts.json", document))

    page.wait_for_selector(".messages li:has-text('bad.json')", state="detached")
    settle(page)
    step = json.loads(page.text_content("#definition-text"))["steps"][0]
    assert step["prompts"] == prompts
    assert step["confidence"] == 0
    # What the messages of other actions say stays until these are done again.
    assert page.locator(".messages li span").all_text_contents() == ["Name something to find."]


def test_classes_whose_names_are_numbers_keep_their_order(open_page, tmp_path, server):
    page = open_page()
    prompts = '{"10": ["star", "\\"2\\": star"], "b": "square", "2": "circle"}'
    text = f'{{"prompts": {prompts}, "confidence": {{"10": 0.3, "2": 0.1}}}}'
    page.set_input_files("#open-prompts", as_file("prompts.json", text))
    page.set_input_files("#files", scene_file())
    with page.expect_response("**/workflows/run") as answer:
        detect(page)
    with page.expect_download() as download:
        page.click("#save-prompts")
    saved = json.loads(download.value.path().read_text())
    definition = json.loads(page.text_content("#definition-text"))
    code = page.text_content("#python-text")

    order = ["10", "b", "2"]
    names = page.eval_on_selector_all(".classes .name", "(all) => all.map((one) => one.value)")
    assert names == order
    assert saved["prompts"] == {"10": ["star", '"2": star'], "b": ["square"], "2": ["circle"]}
    assert list(saved["prompts"]) == list(saved["confidence"]) == order
    assert list(answer.value.json()["outputs"][0]["counts"]) == order
    assert list(definition["steps"][0]["prompts"]) == order
    assert list(definition["steps"][0]["confidence"]) == ["10", "2"]
    assert list(run_definition(server, definition)["counts"]) == order
    assert code.index('"10": [') < code.index('"b": ') < code.index('"2": "circle"')


def test_a_threshold_of_a_class_named_as_the_rest_hides_no_other_boxes(open_page, server):
    page = open_page()
    page.set_input_files("#files", scene_file())
    page.set_input_files("#open-prompts", as_file("prompts.json", {"*": "star", "thing": "shape"}))
    detect(page)

    set_slider(page, 0.99)

    definition = json.loads(page.text_content("#definition-text"))
    assert definition["steps"][0]["confidence"] == {"*": 0.99, "thing": 0}
    assert any(text.startswith("thing") for text, *_ in shown_boxes(page))
    assert_same(shown_boxes(page), as_shown(run_definition(server, definition)))


def test_bad_prompts_files_are_refused_with_their_names(open_page):
    page = open_page()
    add_class(page, "kept")

    for number, (document, words) in enumerate(BAD_PROMPTS):
        page.set_input_files("#open-prompts", as_file(f"prompts {number}.json", document))
        message = page.locator(f".messages li:has-text('prompts {number}.json: ')").text_content()
        assert words in message
    assert page.input_value(".classes li .name") == "kept"


def test_bad_uploads_are_reported_and_the_others_go_on(open_page, tmp_path):
    page = open_page()
    (tmp_path / "large.png").write_bytes(b"")
    with (tmp_path / "large.png").open("r+b") as file:
        file.truncate(33 * 2**20)
    add_class(page, "shape")
    page.set_input_files("#files", tmp_path / "large.png")
    broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"no image"}
    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"text"}
    empty = broken | {"name": "empty.png", "buffer": b""}
    page.set_input_files("#files", [broken, text, scene_file(), empty])

    detect(page)

    notes = page.locator(".card .note").all_text_contents()
    assert "32 MiB" in notes[0]
    assert notes[1] == "The file is not an image that the server can read."
    assert notes[3] == "The file is empty."
    assert "This browser cannot show" in page.locator(".card .picture").nth(1).text_content()
    assert page.locator(".card.failed").count() == 3
    assert "notes.txt is not an image" in page.locator(".messages").text_content()
    assert len(shown_boxes(page, 2)) > 0
    assert page.locator("#summary").text_content() == "4 images, 3 failed"


def test_an_error_of_the_server_is_shown_as_written(open_page, server):
    page = open_page()
    page.set_input_files("#files", scene_file())
    add_class(page, "shape")
    page.fill("#model", "no-such/3")

    detect(page)

    definition = json.loads(page.text_content("#definition-text"))
    image = {"type": "base64", "value": ""}
    body = {"specification": definition, "inputs": {"image": image}}
    assert requests.post(f"{server}/workflows/run", json=body, timeout=60).status_code >= 400
    note = page.locator(".card .note").text_content()
    assert "`model_version` 'no-such/3' cannot be fetched" in note
    assert "None" not in note


def test_a_picture_that_only_the_server_can_read(open_page):
    page = open_page()
    content = cv2.imencode(".tiff", image_bgr(SCENE))[1].tobytes()
    page.set_input_files("#files", {"name": "scan.tiff", "mimeType": "image/tiff", "buffer": content})
    page.wait_for_selector(".picture:has-text('This browser cannot show this picture')")
    add_class(page, "shape")

    detect(page)

    assert len(shown_boxes(page)) > 0
    assert page.locator(".card img").count() == 0


def test_files_and_folders_are_dropped_by_mouse(open_page, tmp_path):
    folder = tmp_path / "folder" / "below"
    folder.mkdir(parents=True)
    for path in (tmp_path / "one.png", folder / "two.png", folder.parent / "notes.txt"):
        path.write_bytes(image_png(SCENE) if path.suffix == ".png" else b"no image")
    page = open_page()
    mouse = page.context.new_cdp_session(page)
    dropped = [str(tmp_path / "one.png"), str(tmp_path / "folder")]

    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": dropped, "dragOperationsMask": 1}
        mouse.send("Input.dispatchDragEvent", {"type": kind, "x": 700, "y": 500, "data": data})
        assert page.evaluate("document.body.classList.contains('dropping')") == (kind != "drop")

    page.wait_for_selector(".card >> nth=1")
    assert page.locator(".card .title").all_text_contents() == ["one.png", "two.png"]
    assert "notes.txt is not an image" in page.text_content(".messages")


def test_an_empty_page_says_what_is_missing(open_page):
    page = open_page()

    for words in ("Name something", "Add an image"):
        page.click("#run")
        assert words in page.locator(".messages li").first.text_content()
        add_class(page, "shape")


def test_the_keyboard_is_enough(open_page):
    page = open_page()
    page.set_input_files("#files", scene_file())
    page.focus("#new-class")
    page.keyboard.type("shape")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".box")
    page.wait_for_selector(DONE)

    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className.includes('picture')"):
            break
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert page.locator(".box:focus").get_attribute("aria-checked") == "false"
    page.keyboard.press("x")
    assert not page.locator(".card .title input").is_checked()
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    assert page.locator("#large .box").count() > 0
    page.keyboard.press("Escape")
    page.wait_for_selector("#grid .box")


def test_a_folder_is_labelled_reviewed_and_downloaded(open_page, tmp_path):
    page = open_page()
    page.click("#open-folder")
    page.click("#folder >> text=inner/")
    page.click("#folder >> text=Add 1 image")
    page.click("#open-folder")
    page.click("#folder >> text=Add 2 images")
    page.set_input_files("#files", scene_file(3, "dropped.png"))
    add_class(page, "shape", "dog")
    detect(page)
    set_slider(page, 0.2)
    page.locator(".card").nth(1).locator(".box:not([hidden])").first.click(position={"x": 3, "y": 3})
    page.locator(".card").nth(2).locator(".title input").uncheck()
    settle(page)
    cards = page.locator(".card")
    expected = {
        cards.nth(at).locator(".title").text_content()[:-4]: len(shown_boxes(page, at)) for at in (0, 1, 3)
    }
    expected["0"] -= 1

    page.click("#tab-dataset")
    page.fill("#share-train", "0")
    page.fill("#share-valid", "1")
    for name in FORMATS:
        dataset = download_dataset(page, name, tmp_path)
        assert dataset.problems == []
        assert {image.path.name.rpartition("-")[0]: len(image.boxes) for image in dataset.images} == expected
        if name == "coco":
            document = json.loads((tmp_path / name / "valid" / "_annotations.coco.json").read_text())
            assert all(0.2 <= entry["score"] <= 1 for entry in document["annotations"])
            assert {entry["attributes"]["prompt"] for entry in document["annotations"]} == {"shape"}
        if name != "pascal_voc":  # which has no list of classes
            assert dataset.class_names == ["shape", "dog"]
        (dropped,) = [image for image in dataset.images if image.path.name.startswith("dropped")]
        hits, there = recall(dropped.boxes, true_boxes(3))
        assert hits >= there - 1 > 0


def test_a_split_without_an_image_is_reported(open_page):
    page = open_page()
    page.set_input_files("#files", [scene_file()])
    add_class(page, "shape")
    detect(page)
    page.click("#tab-dataset")

    with page.expect_download():
        page.click("#make")
    page.wait_for_selector(".messages .done")
    texts = page.locator(".messages li span").all_text_contents()
    (there,) = [name for name in ("train", "valid") if f"1 image in {name}" in texts[0]]
    (missing,) = {"train", "valid"} - {there}
    assert texts[1].startswith(f"No image is in {missing}: ")

    page.fill(f"#share-{missing}", "0")
    with page.expect_download():
        page.click("#make")
    page.wait_for_selector(".messages .error", state="detached")
    assert page.locator(".messages li").count() == 1


def download_dataset(page, format, folder):
    page.select_option("#format", format)
    with page.expect_download() as download:
        page.click("#make")
    assert download.value.suggested_filename == f"dataset-{format}.zip"
    with zipfile.ZipFile(BytesIO(download.value.path().read_bytes())) as archive:
        archive.extractall(folder / format)
    return read_labelled(folder / format, "valid", format)


def test_a_slider_hides_some_of_300_boxes(open_page):
    page = open_page()
    page.set_input_files("#files", scene_file())
    add_class(page, "shape", "star")

    def with_300_boxes(route):
        answer = route.fetch()
        document = answer.json()
        output = document["outputs"][0]
        boxes = output["predictions"]["predictions"]
        output["predictions"]["predictions"] = [
            boxes[number % len(boxes)] | {"confidence": (number % 97) / 100} for number in range(300)
        ]
        route.fulfill(response=answer, json=document)

    page.route("**/workflows/run", with_300_boxes)
    detect(page)
    assert page.locator(".box").count() == 300
    for step in range(1, 41):
        set_slider(page, step / 50, row=step % 2)

    assert 0 < page.locator(".box:not([hidden])").count() < 300
    # What `benchmarks.playground` reads.
    assert len(durations(page, "playground:boxes")) == 1
    assert len(durations(page, "playground:slider")) == len(durations(page, "playground:refresh")[-40:]) == 40


def test_a_slider_of_many_images(open_page):
    page = open_page()
    add_class(page, "shape", "star")
    page.evaluate(
        """(content) => {
            const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
            const transfer = new DataTransfer();
            for (let at = 0; at < 1000; at++)
                transfer.items.add(new File([bytes], `${at}.png`, {type: 'image/png'}));
            document.getElementById('files').files = transfer.files;
            document.getElementById('files').dispatchEvent(new Event('change'));
        }""",
        base64.b64encode(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()).decode(),
    )
    page.wait_for_selector("#summary:has-text('1,000 images')")
    n_before = len(durations(page, "playground:refresh"))

    for step in range(1, 11):
        set_slider(page, step / 20, row=step % 2)

    # A refresh for each move: of all images at once.
    assert len(durations(page, "playground:refresh")[n_before:]) == 10


@pytest.fixture
def address_with_token():
    """The playground alone, as it is served away from loopback, at an address with the token `secret`."""
    app = FastAPI()
    add_playground(app, {}, Access("secret"), None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/playground"
        server.should_exit = True
        thread.join()


def test_the_token_opens_the_page(browser, address_with_token):
    page = browser.new_page()
    page.goto(address_with_token)
    page.fill("#token", "wrong")
    page.click("button")
    page.wait_for_selector("#problem:has-text('not the token')")
    assert not page.locator("#drop").count()

    page.goto("about:blank")
    page.goto(f"{address_with_token}#token=secret")
    page.wait_for_selector(READY)
    assert page.url == address_with_token
    page.reload()
    page.wait_for_selector(READY)
    assert "secret" not in page.evaluate("document.cookie + JSON.stringify({...localStorage})")
    page.context.close()
