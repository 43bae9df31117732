"""What tests of reports share."""

from collections.abc import Iterator

import pytest

from tests.support.browser import ALONE, CHROMIUM
from tests.support.processes import NEVER_S


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """A headless Chromium, for all tests of a file."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ALONE, timeout=0)
        yield running
        running.close()


@pytest.fixture
def browser(chromium):
    """A page of it; what it says on its console is kept."""
    view = chromium.new_page(viewport={"width": 1280, "height": 900})
    view.set_default_timeout(NEVER_S * 1000)
    view.said = []
    view.on("console", lambda message: view.said.append(message.text))
    view.on("pageerror", lambda error: view.said.append(str(error)))
    yield view
    view.close()
