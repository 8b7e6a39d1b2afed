"""What the tests of the playground's page do on it."""

import base64
import shutil

import pytest
import requests

from tests.scenes import image_png

SCENE = 1
CHROMIUM = shutil.which("chromium")
HOSTILE = '<img src=x onerror="window.hacked = 1"><b>bold</b>'
READY = ".samples button"
DONE = "#run:not(:disabled)"

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no `chromium` on the PATH: apt-get install chromium"
)


def scene_file(number=SCENE, name="scene.png"):
    return {"name": name, "mimeType": "image/png", "buffer": image_png(number)}


def add_class(page, *prompts):
    for prompt in prompts:
        page.fill("#new-class", prompt)
        page.press("#new-class", "Enter")


def detect(page):
    page.click("#run")
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_selector(DONE)


def settle(page):
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def run_definition(server, definition, number=SCENE):
    image = {"type": "base64", "value": base64.b64encode(image_png(number)).decode()}
    answer = requests.post(
        f"{server}/workflows/run",
        json={"specification": definition, "inputs": {"image": image}},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]
