"""Values of DICOM attributes as plain Python."""

from __future__ import annotations

import pytest

from spinemet.dicom.values import names_contrast, printable


@pytest.mark.parametrize(
    ("agent", "contrast"),
    [
        ("", None), (" ", None), ("NONE", False), ("No", False), ("W/O", False), ("without contrast", False),
        ("non-contrast", False), ("ohne KM", False), ("sans injection", False), ("-", None), ("0", False),
        ("contrast free", False), ("Iodine", True), ("OMNIPAQUE 350", True), ("Novolac", True),
        ("IV", True), ("Non-ionic Iohexol", True),
        ("Contrast: none", False), ("IV: NO", False), ("KM: nein", False), ("NC", False), ("C-", False),
        ("unknown", None), ("N/A", None), ("unbekannt", None), ("NULL", None),
        ("Na-Amidotrizoat", True), ("W/O & W", True), ("no oral, IV Omnipaque 350", True), ("100 ml Ultravist", True),
    ],
)  # fmt: skip
def test_words_for_no_are_no_contrast_and_none_are_unknown(agent: str, contrast: bool | None) -> None:
    assert names_contrast(agent) is contrast


def test_control_characters_of_a_header_become_blanks() -> None:
    assert printable("a\x1b[2J\x07b\r\nc\x9bd") == "a [2J b  c d"
    assert printable("Größe 5 µm") == "Größe 5 µm"
