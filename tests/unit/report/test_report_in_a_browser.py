"""The report as a browser shows and prints it; Chromium without a window, started once."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on PATH")


class Shown:
    """The page, and what went wrong or out while it was opened."""

    def __init__(self, browser, address):
        self.page = browser.new_page(viewport={"width": 1280, "height": 800})
        self.said, self.failed, self.asked = [], [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.on("requestfailed", lambda request: self.failed.append(request.url))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def find(self, script):
        return self.page.evaluate(script)


def ink(screenshot):
    """Share of a PNG's pixels that are dark."""
    return float((np.asarray(Image.open(io.BytesIO(screenshot)).convert("L")) < 128).mean())


@pytest.fixture(scope="module")
def shown(reported):
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Shown(browser, reported.file.as_uri())
        browser.close()


def test_it_opens_without_an_error_and_asks_for_nothing_but_itself(shown, reported):
    assert shown.said == [] and shown.failed == []
    assert [url for url in shown.asked if not url.startswith("data:")] == [reported.file.as_uri()]


def test_every_image_is_decoded_and_has_words(shown):
    found = shown.find("[...document.images].map(image => [image.naturalWidth, image.complete, image.alt.length])")
    assert len(found) == 2 and all(width > 0 and complete and words > 40 for width, complete, words in found)


def test_an_image_that_is_drawn_again_is_there_again(shown):
    drawings = shown.page.locator("figure svg").all()
    inks = [ink(drawing.screenshot()) for drawing in drawings]
    assert len(inks) == 3 and inks[0] > 0.01 and inks[1:] == pytest.approx([inks[0]] * 2, rel=0.1)
    assert all(len(drawing.get_attribute("aria-label")) > 40 for drawing in drawings)


def test_every_link_in_the_page_has_its_target(shown):
    inner = "[...document.querySelectorAll('a[href^=\"#\"]')]"
    assert shown.find(f"{inner}.length") > 10
    assert shown.find(f"{inner}.filter(a => !document.getElementById(decodeURIComponent(a.hash.slice(1)))).length") == 0


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_nothing_is_wider_than_the_window_at(shown, width):
    shown.page.set_viewport_size({"width": width, "height": 800})
    shown.find("document.querySelectorAll('details').forEach(d => d.open = true)")
    wide = shown.find("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    shown.page.reload()
    assert wide[0] <= wide[1] == width


def test_it_follows_the_readers_choice_of_dark_or_light_and_figures_stay_on_white(shown):
    backs = []
    for scheme in ("light", "dark"):
        shown.page.emulate_media(color_scheme=scheme)
        backs.append(shown.find("getComputedStyle(document.body).backgroundColor"))
        white = shown.find("getComputedStyle(document.querySelector('figure img')).backgroundColor")
        assert white == "rgb(255, 255, 255)"
    shown.page.emulate_media(color_scheme="light")
    assert backs == ["rgb(255, 255, 255)", "rgb(21, 24, 28)"]


def test_it_prints_with_everything_open_and_nothing_cut_off(shown):
    heights = "[...document.querySelectorAll('details:not([open]) > :not(summary)')].map(e => e.checkVisibility())"
    assert not any(shown.find(heights))
    shown.page.set_viewport_size({"width": 690, "height": 1000})  # A4 without its margins
    shown.page.emulate_media(media="print")
    printed = shown.find(heights)
    wide = shown.find("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    shown.page.emulate_media(media="screen")
    assert printed and all(printed) and wide[0] <= wide[1]
    assert shown.page.pdf(format="A4").startswith(b"%PDF")


def test_the_keyboard_can_skip_to_the_report_and_scroll_wide_tables(shown):
    shown.page.reload()
    shown.page.keyboard.press("Tab")
    assert shown.find("document.activeElement.textContent") == "Skip to the report"
    shown.page.keyboard.press("Enter")
    assert shown.find("location.hash") == "#main"
    assert shown.find("[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0 && e.ariaLabel)")
