from __future__ import annotations

import pytest

from spinemet.display import palette
from spinemet.reading import Doubt, VertebraCall
from spinemet.types import BONE_QUALITY

BLACK, WHITE = "#000000", "#ffffff"


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2, from 1 to 21."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_contrast_is_that_of_wcag() -> None:
    assert contrast(BLACK, WHITE) == pytest.approx(21)
    assert contrast("#777777", WHITE) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("colour", [*palette.TERMINAL.values(), *palette.STATES.values()])
def test_terminal_colours_can_be_read_on_black_and_on_white(colour: str) -> None:
    assert min(contrast(colour, BLACK), contrast(colour, WHITE)) >= 3


@pytest.mark.parametrize(("colours", "page"), [(palette.LIGHT, WHITE), (palette.DARK, BLACK)])
def test_page_colours_can_be_read_on_their_page(colours: dict[str, str], page: str) -> None:
    assert all(contrast(colour, page) >= 3 for colour in colours.values())


@pytest.mark.parametrize("marks", [palette.LETTERS, palette.SHADES, palette.LIGHT, palette.DARK, palette.TERMINAL])
def test_every_class_has_a_mark_of_its_own(marks: dict[str, str]) -> None:
    assert tuple(marks) == BONE_QUALITY
    assert len(set(marks.values())) == len(BONE_QUALITY)


def _call(probability: float, plausible: tuple[str, ...] | None = None, doubt: Doubt | None = None) -> VertebraCall:
    rest = (1 - probability) / 2
    sets = {} if plausible is None else {"posterolateral": plausible}
    sides = {"none": rest, "unilateral": probability, "bilateral": rest}
    return VertebraCall({"posterolateral": sides}, doubt=doubt, is_judged=True, plausible=sets)


@pytest.mark.parametrize(
    ("call", "mark"),
    [
        (_call(0.8), ""),
        (_call(0.4), "?"),
        (_call(0.8, ("unilateral",)), ""),
        (_call(0.8, ("unilateral", "bilateral")), "?"),
        (_call(0.8, ()), "?"),
        (_call(0.8, ("none",)), "?"),
        (_call(0.8, ("unilateral",), Doubt.NOISY), "?"),
    ],
)
def test_a_call_that_is_not_certain_gets_a_question_mark(call: VertebraCall, mark: str) -> None:
    assert palette.question(call, "posterolateral") == mark
    assert palette.question(call, "bone_quality") == "", "a task that the model does not have"
