"""A headless Chromium for tests of pages: what it complains of and what it asks for is kept.

No test skips where it is missing: a page that nobody opened is not tested.
"""

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium():
    """Yield a running browser; start one a module, since a start takes a second."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("these tests open pages in Chromium: install it (Debian: apt install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("these tests drive Chromium by playwright: install the dependency group `test`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, and what the browser said about it."""

    page: Any
    messages: list[str] = field(default_factory=list)
    """Of the console, and errors of scripts."""
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(browser, file, *, width=1280, height=900, **options):
    """Open a file in a fresh context; `options` are playwright's of a context."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    found = Opened(context.new_page())
    found.page.on("console", lambda message: found.messages.append(message.text))
    found.page.on("pageerror", lambda error: found.messages.append(str(error)))
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.goto(file.as_uri())
    yield found
    context.close()
