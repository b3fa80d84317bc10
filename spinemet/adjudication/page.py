"""The page on which a reader answers: one HTML file that fetches nothing and hides the model's calls."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from spinemet.adjudication.pictures import BEHIND_MM, FRONT_MM, SIDE_MM
from spinemet.results.schemas import Row
from spinemet.types import BONE_QUALITY, POSTEROLATERAL

CANNOT_JUDGE = "cannot judge"

QUESTIONS: dict[str, tuple[str, ...]] = {
    "bone_quality": (*BONE_QUALITY, CANNOT_JUDGE),
    "posterolateral": (*POSTEROLATERAL, CANNOT_JUDGE),
}
"""Question, which is a task of the model and a column of a sheet -> its answers."""

_TITLES = {"bone_quality": "Bone quality", "posterolateral": "Posterolateral involvement"}
_KEYS = {"bone_quality": "NBMLC", "posterolateral": "0123"}
"""Keys of the answers: initials; the number of sides."""


def page(sample: str, items: Sequence[str], pictures: Sequence[Row]) -> str:
    """The HTML of a sample. items: their names in the order of showing; pictures: theirs, from `pictures`.

    A strict content security policy allows the page's own script and style (by their digests) and pictures within the
    file; any other source, also one that a picture or a name could smuggle in, is blocked by the browser.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    style, script = (Path(__file__).with_name(name).read_text() for name in ("page.css", "page.js"))
    questions = [
        {
            "name": name,
            "title": _TITLES[name],
            "answers": [{"word": word, "key": key} for word, key in zip(words, _KEYS[name], strict=True)],
        }
        for name, words in QUESTIONS.items()
    ]
    content = {
        "sample": sample,
        "questions": questions,
        "widths": [FRONT_MM + BEHIND_MM, 2 * SIDE_MM + 1],
        "items": [{"id": item} | picture for item, picture in zip(items, pictures, strict=True)],
    }
    return environment.get_template("page.html.j2").render(
        sample=sample,
        count=len(items),
        questions=questions,
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        items=json.dumps(content).replace("<", "\\u003c"),  # no text of it can end the script element
    )


def _hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
