"""The playground's page in a real Chromium, for the tests of its tabs."""

import pytest

from tests.running.page import CHROMIUM, READY


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        # Chromium's sandbox does not start for root, as which containers run.
        browser = started.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server):
    """Opens the page, by default without its sample images and prompts. No script of it may fail."""
    contexts = []
    problems = []

    def open_it(empty=True, **options):
        context = browser.new_context(viewport={"width": 1400, "height": 900}, **options)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if is_problem(said) else None)
        page.on("request", lambda sent: problems.append(sent.url) if leaves(sent.url, server) else None)
        page.goto(f"{server}/playground")
        page.wait_for_selector(READY)
        page.wait_for_selector(".card")
        if empty:
            page.evaluate(
                "document.querySelectorAll('#clear, .classes .row > .quiet').forEach((one) => one.click())"
            )
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert problems == []


def is_problem(message):
    # Chromium logs answers that are errors; the page shows them.
    return message.type == "error" and "the server responded with a status of" not in message.text


def leaves(url, server):
    return not url.startswith((server, "blob:", "data:"))
