from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import duckdb
import pytest
from PIL import Image

from spinemet.adjudication.drawing import Sample
from spinemet.adjudication.page import CANNOT_JUDGE, QUESTIONS, page
from spinemet.adjudication.pictures import pictures
from spinemet.cohort.views import records
from spinemet.types import BONE_QUALITY, POSTEROLATERAL

Drawn = tuple[Sample, Path]


def content(html: str) -> dict[str, object]:
    """What the page knows of its items."""
    found = re.search(r'<script type="application/json" id="items">(.*?)</script>', html, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def test_the_page_tells_a_reader_nothing_that_the_key_knows(drawn: Drawn) -> None:
    sample, out = drawn
    html, key = out.read_text(), sample.key
    found = content(html)
    assert [item["id"] for item in found["items"]] == key["item"].tolist()  # type: ignore[attr-defined]
    assert all(item.keys() == {"id", "sagittal", "coronal", "rows", "half_mm"} for item in found["items"])  # type: ignore[attr-defined]
    words = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", html)
    names = ("study", "source_key", "model", "configuration", "population", "stratum")
    secret = {str(word) for name in names for word in key[name]}
    secret |= {f"{weight}"[:6] for weight in key["weight"] if weight % 1} | {"p_normal", "weight", "stratum", "repeats"}
    assert not [word for word in secret if word in words.replace("font-weight", "")]


def test_a_picture_has_no_text_in_it(drawn: Drawn) -> None:
    for item in content(drawn[1].read_text())["items"][:5]:  # type: ignore[index]
        picture = Image.open(io.BytesIO(base64.b64decode(item["sagittal"].partition(",")[2])))
        assert (picture.format, picture.mode, picture.info) == ("PNG", "L", {})


def test_a_browser_may_run_the_pages_own_script_and_fetch_nothing(drawn: Drawn) -> None:
    html = drawn[1].read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#39;", "'").split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for element, rule in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]*"|https?://(?!www\.w3\.org/2000/svg)|\son\w+="|style="', html)


def test_a_name_cannot_end_the_script(tmp_path: Path) -> None:
    html = page("s00000000000", ["</script><b>"], [{"sagittal": "", "coronal": "", "rows": 91, "half_mm": 10.0}])
    assert content(html)["items"][0]["id"] == "</script><b>"  # type: ignore[index]
    assert html.count("<b>") == 0


def test_the_answers_are_the_classes_of_the_model_and_cannot_judge() -> None:
    assert {
        "bone_quality": (*BONE_QUALITY, CANNOT_JUDGE),
        "posterolateral": (*POSTEROLATERAL, CANNOT_JUDGE),
    } == QUESTIONS


@pytest.mark.parametrize("vertebra", [0, 3, 5])
def test_the_vertebra_lies_in_the_middle_of_both_pictures(connection: duckdb.DuckDBPyConnection, vertebra: int) -> None:
    source = records(connection, "select min(source_key) as key from evaluable")[0]["key"]
    (shown,) = pictures(connection, [(source, vertebra)])
    sagittal, coronal = (
        Image.open(io.BytesIO(base64.b64decode(shown[name].partition(",")[2]))) for name in ("sagittal", "coronal")
    )
    assert sagittal.height == coronal.height == shown["rows"]
    assert shown["half_mm"] == 12.5  # the phantom's bodies are 25 mm high, bright, and 32 mm apart
    column = [sagittal.getpixel((sagittal.width // 2, row)) for row in range(sagittal.height)]
    middle = shown["rows"] // 2
    assert column[middle - 9 : middle + 10] == [140] * 19
    assert column[middle - 14] == column[middle + 14] == 70
    if vertebra == 0:
        assert column[0] == 0  # above the scan
