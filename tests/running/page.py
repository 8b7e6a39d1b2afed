"""What the tests of the playground's page do on it."""

from __future__ import annotations

import base64
import shutil
from typing import TYPE_CHECKING

import pytest
import requests

from tests.scenes import image_png

if TYPE_CHECKING:
    from playwright.sync_api import FilePayload, Page

SCENE = 1
CHROMIUM = shutil.which("chromium")
HOSTILE = '<img src=x onerror="window.hacked = 1"><b>bold</b>'
READY = ".samples button"
DONE = "#run:not(:disabled)"

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no `chromium` on the PATH: apt-get install chromium"
)


def scene_file(number: int = SCENE, name: str = "scene.png") -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": image_png(number)}


def add_class(page: Page, *prompts: str) -> None:
    for prompt in prompts:
        page.fill("#new-class", prompt)
        page.press("#new-class", "Enter")


def detect(page: Page) -> None:
    page.click("#run")
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_selector(DONE)


def settle(page: Page) -> None:
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def set_slider(page: Page, value: float, row: int = 0) -> None:
    slider = page.locator(".classes li input[type=range]").nth(row)
    slider.evaluate(
        "(node, value) => { node.value = value; node.dispatchEvent(new Event('input', {bubbles: true})) }",
        value,
    )
    settle(page)


def durations(page: Page, name: str) -> list[float]:
    """Milliseconds of each of the page's measurements of that name."""
    found: list[float] = page.evaluate(
        "(name) => performance.getEntriesByName(name).map((one) => one.duration)", name
    )
    assert found
    return found


def run_definition(server, definition, number=SCENE):
    image = {"type": "base64", "value": base64.b64encode(image_png(number)).decode()}
    answer = requests.post(
        f"{server}/workflows/run",
        json={"specification": definition, "inputs": {"image": image}},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]
