from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spinemet.display.figures import _Row, study_figure
from spinemet.display.palette import DARK, UNCALLED, WARNING
from spinemet.errors import BadInput
from spinemet.reading import Doubt
from spinemet.types import Flag
from tests.readings import call, reading


def _has(path: Path, colour: str) -> int:
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = [int(colour[n : n + 2], 16) for n in (1, 3, 5)]
    return int((np.abs(pixels - wanted).max(axis=-1) < 6).sum())


def test_each_call_has_its_colour(tmp_path: Path) -> None:
    one = reading(levels=["T12", "L1", "L2"])
    study_figure(
        one,
        [call("normal", probability=0.97), call("lytic", probability=0.97), call("normal", probability=0.97)],
        tmp_path / "a.png",
    )
    study_figure(one, None, tmp_path / "b.png")
    assert _has(tmp_path / "a.png", DARK["lytic"]) > 500
    assert _has(tmp_path / "b.png", DARK["lytic"]) == 0


@pytest.mark.parametrize("count", [1, 24])
def test_any_number_of_vertebrae_fits_on_one_page(tmp_path: Path, count: int) -> None:
    study_figure(
        reading(levels=[f"?{n}" for n in range(1, count + 1)], pitch_mm=24.0),
        [call("blastic")] * count,
        tmp_path / "a.png",
    )
    width, height = Image.open(tmp_path / "a.png").size
    assert 900 < width < 3200
    assert 900 < height < 2000


def test_the_picture_shows_the_slice_nearest_to_the_middle(tmp_path: Path) -> None:
    one = reading(levels=["L1"])
    one.stacks[0].hu_NHW[:] = -1000
    one.stacks[0].hu_NHW[1] = 2000
    study_figure(one, None, tmp_path / "a.png")
    assert _has(tmp_path / "a.png", "#ffffff") > 20000


def test_a_reading_without_views_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="views"):
        study_figure(replace(reading(levels=["L1"]), views=None), None, tmp_path / "a.png")


def test_a_place_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot write"):
        study_figure(reading(levels=["L1"]), None, tmp_path / "missing" / "a.png")
    with pytest.raises(BadInput, match="cannot write"):
        study_figure(reading(levels=["L1"]), None, tmp_path / "a.docx")


def test_flags_and_the_notice_on_the_model_stand_above_the_picture(tmp_path: Path) -> None:
    plain, calls = replace(reading(levels=["L1"]), flags=()), [call("lytic")]
    study_figure(plain, calls, tmp_path / "plain.png")
    study_figure(plain, calls, tmp_path / "notice.png", "Trained on dolls.")
    study_figure(replace(plain, flags=(Flag.LOSSY,)), calls, tmp_path / "flag.png")
    assert _has(tmp_path / "plain.png", WARNING) == 0
    assert _has(tmp_path / "notice.png", WARNING) > 100
    assert _has(tmp_path / "flag.png", WARNING) > 100


def test_an_unsure_vertebra_has_a_frame_no_colour_of_a_class_and_its_reason(tmp_path: Path) -> None:
    one = replace(reading(levels=["L1"]), flags=())
    sure = replace(call("lytic", probability=0.97), is_judged=True)
    study_figure(one, [sure], tmp_path / "sure.png")
    study_figure(one, [replace(sure, doubt=Doubt.NOISY)], tmp_path / "unsure.png")
    assert _has(tmp_path / "unsure.png", UNCALLED["dark"]) > 1000, "frame, ring, bars and words"
    assert _has(tmp_path / "sure.png", UNCALLED["dark"]) < 100
    assert _has(tmp_path / "unsure.png", WARNING) > 100
    assert _has(tmp_path / "sure.png", WARNING) == 0
    assert 0 < _has(tmp_path / "unsure.png", DARK["lytic"]) < _has(tmp_path / "sure.png", DARK["lytic"])


def test_the_words_of_a_row_say_what_is_not_certain() -> None:
    vertebra = reading(levels=["L1"]).spine.vertebrae[0]
    plain = replace(call("lytic", "bilateral"), is_judged=True)
    open_side = replace(plain, plausible={"bone_quality": ("lytic",), "posterolateral": ()})
    unsure = replace(plain, doubt=Doubt.SMOOTH)
    words = [(row.words, row.side) for row in (_Row(vertebra, one) for one in (plain, open_side, unsure, None))]
    assert words == [
        ("lytic 0.70", "● bilateral"),
        ("lytic 0.70", "● bilateral?"),
        ("unsure (lytic)", "● bilateral?"),
        ("", ""),
    ]
    assert _Row(vertebra, call("normal")).side == "none"
