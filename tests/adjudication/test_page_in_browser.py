"""Simulated readers in a real browser: what they press is what the sheet says, and what `score` counts."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from spinemet.adjudication.drawing import Sample
from spinemet.adjudication.scoring import score
from spinemet.adjudication.sheets import read_sheet
from tests.adjudication.browser import Browser, browser, found

pytestmark = [
    pytest.mark.skipif(found() is None, reason="there is no Chromium here (Debian: apt-get install chromium)"),
    pytest.mark.xdist_group("browser"),
]
KEYS = {"normal": "n", "blastic": "b", "mixed": "m", "lytic": "l", "none": "0", "unilateral": "1", "bilateral": "2"}
Drawn = tuple[Sample, Path]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chromium: Browser, drawn: Drawn, tmp_path: Path) -> Browser:
    """The sample's page in a browser that has kept nothing; files are saved to tmp_path."""
    chromium.open(drawn[1])
    chromium.js("localStorage.clear()")
    chromium.open(drawn[1], tmp_path)
    return chromium


def begin(page: Browser, name: str) -> None:
    page.js("document.getElementById('reader').focus()")
    page.write(name)
    page.click("#begin button")


def saved(page: Browser, folder: Path) -> Path:
    """The sheet that the page saves."""
    page.press("s")
    page.wait(lambda: any(folder.glob("*.csv")))
    (path,) = folder.glob("*.csv")
    return path


def test_a_reader_answers_every_item_by_keys_and_the_sheet_can_be_scored(
    page: Browser, drawn: Drawn, tmp_path: Path
) -> None:
    key = drawn[0].key
    begin(page, "Ada B.")
    for row in key.itertuples():
        page.press(KEYS[str(row.bone_quality)], KEYS[str(row.posterolateral)], "Enter")
    assert page.is_shown("#done")
    page.click("#save-last")
    page.wait(lambda: any(tmp_path.glob("*.csv")))
    (path,) = tmp_path.glob("*.csv")
    assert path.name == f"sheet-{drawn[0].digest}-Ada-B-.csv"
    sheet = read_sheet(str(path), key)
    assert sheet.reader == "Ada B."
    assert sheet.answers["bone_quality"].tolist() == key["bone_quality"].tolist()
    table = score(key, [sheet]).table
    assert set(table[table["measure"] == "sensitivity"]["value"].dropna()) == {1.0}
    assert page.errors == []


def test_answers_stay_when_the_page_is_opened_again_and_those_of_two_readers_apart(page: Browser, drawn: Drawn) -> None:
    begin(page, "Ada")
    page.press("l", "2", "Enter", "n", "0", "Enter", "b")
    page.open(drawn[1])
    assert page.text("#earlier button") == "Go on as Ada (2 of 55)"
    page.click("#earlier button")
    assert page.text("#title") == "Vertebra 3 of 55"
    assert page.js("document.querySelector('[name=bone_quality]:checked').value") == "blastic"
    page.open(drawn[1])
    begin(page, "Bob")
    assert page.text("#title") == "Vertebra 1 of 55"
    assert page.text("#status") == "0 of 55 answered"


def test_undo_takes_back_the_last_answers_one_by_one_wherever_they_were(page: Browser) -> None:
    begin(page, "Ada")
    page.press("l", "n", "1", "Enter", "m", "u", "u")
    assert page.text("#title") == "Vertebra 1 of 55"
    checked = "[...document.querySelectorAll(':checked')].map((box) => box.value).join()"
    assert page.js(checked) == "normal"
    page.press("z", ctrl=True)
    assert page.js(checked) == "lytic"
    page.press("u")
    assert page.js(checked) == ""
    assert page.js("document.getElementById('undo').disabled")


def test_keys_write_into_a_comment_and_answer_nothing_there(page: Browser, drawn: Drawn, tmp_path: Path) -> None:
    begin(page, "Ada")
    page.press("/")
    page.press(*"nb, 2")
    assert page.js("document.querySelectorAll(':checked').length") == 0
    page.press("Escape", "c", "3")
    lines = saved(page, tmp_path).read_text().splitlines()
    assert lines[1] == f'{drawn[0].digest},Ada,{drawn[0].key["item"][0]},cannot judge,cannot judge,"nb, 2"'
    assert lines[2].endswith(",,,")
    assert page.text("#status") == "saved, 54 still open"


def test_next_open_finds_what_was_left_out(page: Browser) -> None:
    begin(page, "Ada")
    page.press("n", "0", "Enter", "Enter", "n", "0", "Enter", "ArrowLeft", "ArrowLeft", "ArrowLeft", "o")
    assert page.text("#title") == "Vertebra 2 of 55"
    page.press("n", "0", "o")
    assert page.text("#title") == "Vertebra 4 of 55"


def test_after_the_end_a_reader_can_go_through_all_answers_once_more(page: Browser) -> None:
    begin(page, "Ada")
    page.press(*["n", "0", "ArrowRight"] * 55)
    assert page.is_shown("#done")
    page.click("#again")
    page.press("Enter", "Enter")
    assert page.is_shown("#reading")
    assert page.text("#title") == "Vertebra 3 of 55"


def test_clicks_do_what_keys_do(page: Browser) -> None:
    begin(page, "Ada")
    page.click("[name=bone_quality][value=mixed]")
    page.click("[name=posterolateral][value=none]")
    page.click("#next")
    assert page.text("#title") == "Vertebra 2 of 55"
    assert page.text("#status") == "1 of 55 answered"
    page.click("#back")
    assert page.js("document.querySelector('[name=bone_quality]:checked').value") == "mixed"


def test_a_browser_that_keeps_nothing_is_said_and_the_sheet_can_be_saved_all_the_same(
    chromium: Browser, drawn: Drawn, tmp_path: Path
) -> None:
    # A page from a data URL has no storage, like one in a browser whose owner forbids it.
    url = "data:text/html;charset=utf-8," + urllib.parse.quote(drawn[1].read_text())
    chromium.open_url(url, tmp_path)
    assert "does not keep your answers" in chromium.text("#warning")
    begin(chromium, "Ada")
    chromium.press("n", "0")
    assert chromium.text("#status") == "1 of 55 answered"
    assert len(saved(chromium, tmp_path).read_text().splitlines()) == 56


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_the_page_fits_a_phone_a_tablet_and_a_desk(page: Browser, width: int) -> None:
    page.size(width, 844, phone=width < 500)
    begin(page, "Ada")
    assert page.js("document.documentElement.scrollWidth") <= width
    box = page.js(
        "(({width, height}) => ({width, height}))(document.getElementById('sagittal').getBoundingClientRect())"
    )
    assert box["width"] > 0.4 * min(width, 900)
    for selector in ("#next", "#back", "#comment", "#save"):
        edge = page.js(f"document.querySelector('{selector}').getBoundingClientRect().right")
        assert edge <= width
