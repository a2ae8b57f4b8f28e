"""The pictures of README.md and docs/: none is older than what it shows.

KEEP_PICTURES=1 python -m pytest tests/test_pictures.py     makes those of the pages anew
"""

import json
import os
import re

import pytest
from conftest import PROJECT, run_script
from test_app import REVIEWS, serving

from docs import pictures

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", sorted(pictures.DRAWN))
def test_no_picture_is_older_than_its_figures(name):
    """`python -m docs.pictures` draws them anew."""
    made_of = json.loads((pictures.PICTURES / "made-of.json").read_text(encoding="utf-8"))
    figures, _ = pictures.DRAWN[name]()
    assert made_of[name] == pictures.fingerprint(figures), "python -m docs.pictures"
    altered = json.loads(json.dumps(figures).replace("1", "2"))
    assert made_of[name] != pictures.fingerprint(altered), "it would not notice other figures"


@pytest.mark.parametrize("name", sorted(pictures.SCREENS))
def test_no_screenshot_is_older_than_its_page(name):
    """The picture in the README should look like what you get."""
    made_of = json.loads((pictures.PICTURES / "made-of.json").read_text(encoding="utf-8"))
    again = "KEEP_PICTURES=1 python -m pytest tests/test_pictures.py"
    assert made_of[name] == pictures.fingerprint(pictures.code_behind(name)), again


@pytest.mark.parametrize("name", sorted(pictures.DRAWN))
def test_a_picture_is_drawn_for_light_and_for_dark_pages(name):
    """On a dark page black letters are not seen. Nothing else differs, and nothing is fetched."""
    texts = [
        (pictures.PICTURES / f"{name}{theme}.svg").read_text(encoding="utf-8")
        for theme in pictures.THEMES
    ]
    for text, colors in zip(texts, pictures.THEMES.values()):
        assert "var(--" not in text and colors["ink"] in text and colors["line"] in text
        assert "<script" not in text and set(re.findall(r"https?://[^\"\s]+", text)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
    assert re.sub(r"#[0-9a-f]{6}", "", texts[0]) == re.sub(r"#[0-9a-f]{6}", "", texts[1])


def test_every_picture_stands_on_a_page_and_says_what_it_shows():
    """Who cannot see it hears its alt text."""
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    shown = {os.path.basename(name) for name in re.findall(r'(?:src|srcset)="([^"]+)"', text)}
    drawn = {path.name for path in pictures.PICTURES.iterdir()} - {"made-of.json"}
    assert shown == drawn
    for tag in re.findall(r"<img.*?>", text, re.S):
        assert len(re.search(r'alt="([^"]*)"', tag)[1]) > 40, tag


def take(browser, name, scheme, address, act=lambda tab: None):
    """Take a picture of a page's beginning; keep it where KEEP_PICTURES is set. Returns bytes."""
    size = {"width": 760, "height": 800}
    tab = browser.new_page(viewport=size, color_scheme=scheme, device_scale_factor=1)
    tab.goto(address)
    act(tab)
    taken = tab.screenshot()
    tab.close()
    if os.environ.get("KEEP_PICTURES"):
        theme = "-dark" if scheme == "dark" else ""
        (pictures.PICTURES / f"{name}{theme}.png").write_bytes(taken)
        pictures.write_down({name: pictures.fingerprint(pictures.code_behind(name))})
    return taken


def test_the_pages_have_their_picture_taken(rehearsed, browser, tmp_path):
    """Each page of SCREENS, light and dark: two pictures that are not one and the same."""
    folder = rehearsed[0]  # named as the README names it, not with all its path
    words = (folder.name, "--out", tmp_path / "page.html")
    report = run_script("extras.report", *words, cwd=folder.parent)
    assert report.returncode == 0, report.stderr

    def ask(tab):
        tab.fill("#review textarea", REVIEWS[0])
        tab.click("#ask button, button#ask")
        tab.wait_for_selector("#why .words")

    taken = [
        take(browser, "report", scheme, (tmp_path / "page.html").as_uri())
        for scheme in ("light", "dark")
    ]
    with serving(rehearsed[0], tmp_path) as address:
        taken += [take(browser, "app", s, address, ask) for s in ("light", "dark")]
    assert len(set(taken)) == 4 and min(map(len, taken)) > 10_000
