import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from spinemet.cohort.prevalence import prevalence
from spinemet.cohort.views import open_cohort
from spinemet.display.terminal import render_prevalence, render_study, render_table
from spinemet.errors import Reason
from spinemet.reading import Doubt, NotScreened, State, VertebraCall
from tests.cohort.cases import Study, write_results
from tests.readings import SECRETS, SERIES, call, reading

WIDE, NARROW = 130, 80


def _text(renderable: object, width: int = WIDE) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(renderable)
    return stream.getvalue()


def _line(text: str, start: str) -> list[str]:
    return next(line for line in text.splitlines() if line.split()[:1] == [start]).split()


def test_a_study_has_one_line_per_vertebra_with_its_call() -> None:
    text = _text(
        render_study(
            reading(levels=["T12", "L1", "?3"], cut=["T12"]),
            [call("normal"), call("lytic", probability=0.8), call("mixed", probability=0.4)],
            width=WIDE,
        )
    )
    line = _line(text, "L1")
    assert line[1:7] == ["whole", "1.0", "2.0", "-30.0", "22", "150"]
    assert line[line.index("lytic") + 1] == "0.80"
    assert "cut" in _line(text, "T12")
    assert "mixed?" in _line(text, "?3"), "a call under 0.5 is marked"
    assert not any(word in text for word in SECRETS)


def test_bars_are_divided_by_probability() -> None:
    text = _text(render_study(reading(levels=["L1"]), [call("blastic", probability=0.85)], width=WIDE))
    line = next(line for line in text.splitlines() if line.split()[:1] == ["L1"])
    assert line.count("█") == 12
    assert sum(line.count(shade) for shade in "░█▓▒") == 14


def test_without_a_model_there_are_no_call_columns() -> None:
    text = _text(render_study(reading(levels=["T12", "L1"]), None, WIDE))
    assert "bone quality" not in text
    assert "150" in _line(text, "L1")


@pytest.mark.parametrize("state", [State.EXCLUDED, State.FAILED])
def test_a_study_that_was_not_screened_says_why(state: State) -> None:
    reading = NotScreened(state, Reason.NO_SERIES, "no series is left.", series_seen=((SERIES, Reason.LOCALIZER),))
    text = _text(render_study(reading, None))
    assert all(word in text for word in (state.value, "no usable series", "no series is left.", "localizer images"))


def test_prevalence_has_one_line_per_group(tmp_path: Path) -> None:
    studies = [Study("p1", levels="T12=cut L1=lytic"), Study("p2", levels="L1")]
    table = prevalence(open_cohort(write_results(str(tmp_path), studies)), ["level"])
    text = _text(render_prevalence(table, WIDE))
    assert _line(text, "L1")[:6] == ["L1", "2", "0", "2", "1", "50.0"]
    assert _line(text, "L1")[-3:] == ["0", "0", "1"]
    assert "–" in _line(text, "T12"), "no rate where nothing is evaluable"
    assert "50.0" in _text(render_prevalence(prevalence(open_cohort(str(tmp_path)), [], "patient")))


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_an_interval_of_one_patient_is_too_few(tmp_path: Path, width: int) -> None:
    table = prevalence(open_cohort(write_results(str(tmp_path), [Study("p1", levels="L1=lytic L2")])), ["region"])
    assert "50.0 (too few)" in _text(render_prevalence(table, width), width)


def test_nothing_is_cut_at_eighty_columns(tmp_path: Path) -> None:
    calls = [call("blastic", "unilateral", probability=0.4), call("lytic", "bilateral", probability=0.9)]
    study = _text(render_study(reading(levels=["?1", "L1"], cut=["?1"]), calls, width=NARROW), NARROW)
    found = _line(study, "L1")
    assert "disc_unclear (?1): A disc" in study
    assert found == ["L1", "whole", "1", "2", "-30", "150", "lytic", "0.90", "●", "bilateral", "0.80"]
    results = write_results(str(tmp_path), [Study("p1", levels="T12=cut L1=lytic"), Study("p2", levels="L1")])
    table = prevalence(open_cohort(results), ["region", "age_group"])
    text = _text(render_prevalence(table, NARROW), NARROW)
    assert _line(text, "lumbar") == ["lumbar", "60-69", "0", "2", "1", "50.0", "[1.3,", "98.7]", "0", "0", "1"]
    assert "…" not in study + text


def test_any_table_can_be_shown() -> None:
    table = pd.DataFrame({"n": [1, 2], "x": [0.123456, math.nan], "blob": [b"abc", None]})
    table["flags"] = [np.array(["lossy", "deskewed"], object), np.array([], object)]
    text = _text(render_table(table))
    assert _line(text, "1")[-2:] == ["lossy", "deskewed"]
    assert "0.1235" in text
    assert "3 bytes" in text
    assert "nan" not in text
    wide = pd.DataFrame([{f"c{n}": n for n in range(20)}])
    assert _line(_text(render_table(wide), 60), "c19") == ["c19", "19"]
    assert "200 of 300 rows" in _text(render_table(pd.DataFrame({"n": range(300)})))


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_flags_and_the_notice_on_the_model_are_shown_at_any_width(width: int) -> None:
    one, calls = reading(levels=["T12", "L1", "L2"], cut=["T12", "L2"]), [call("normal", "unilateral")] * 3
    text = " ".join(_text(render_study(one, calls, "Trained on dolls.", width=width), width).split())
    assert "lossy: The pixels went through lossy compression." in text
    assert "disc_unclear (T12, L2): A disc next to this vertebra" in text
    assert "Trained on dolls." in text
    assert "Trained on dolls." not in _text(render_study(one, None, "Trained on dolls.", width=width), width)


def test_a_posterolateral_call_under_a_half_is_marked() -> None:
    involved = {"posterolateral": {"none": 0.3, "unilateral": 0.45, "bilateral": 0.25}}
    text = _text(render_study(reading(levels=["L1"]), [VertebraCall(involved)], width=WIDE))
    assert "◐ unilateral? 0.45" in text


@pytest.mark.parametrize("columns", [8, 13, 40])
def test_a_table_of_any_width_is_whole_at_eighty_columns(columns: int) -> None:
    table = pd.DataFrame([{f"posterolateral_{n}": f"r{row}c{n}" for n in range(columns)} for row in range(5)])
    text = "".join(_text(render_table(table), NARROW).split())
    assert "…" not in text
    assert all(cell in text for cell in table.to_numpy().ravel())


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5])
def test_a_prevalence_by_many_columns_is_whole_at_eighty_columns(tmp_path: Path, groups: int) -> None:
    results = write_results(str(tmp_path), [Study("p1", levels="T12=cut L1=lytic"), Study("p2", levels="L1")])
    by = ["region", "age_group", "manufacturer", "kernel", "year"][:groups]
    text = _text(render_prevalence(prevalence(open_cohort(results), by), NARROW), NARROW)
    assert "…" not in text
    assert "[1.3, 98.7]" in text


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_an_unsure_call_says_so_and_why(width: int) -> None:
    calls = [replace(call("blastic"), doubt=Doubt.SMOOTH, is_judged=True), replace(call("normal"), is_judged=True)]
    text = _text(render_study(reading(levels=["L1", "L2"]), calls, width=width), width)
    assert "unsure (blastic)" in text
    assert "unsure, smooth (L1): The image is smoother" in text
    assert "…" not in text
    assert "unsure" not in _line(text, "L2")


def test_unsure_vertebrae_have_a_column_of_the_prevalence_if_there_are_any(tmp_path: Path) -> None:
    for n, (levels, shown) in enumerate({"L1=lytic! L2": True, "L1=lytic L2": False}.items()):
        cohort = open_cohort(write_results(str(tmp_path / str(n)), [Study("p1", levels=levels)]))
        header = _text(render_prevalence(prevalence(cohort, ["level"]), width=NARROW), NARROW).splitlines()[1]
        assert ("unsure" in header) == shown


def test_names_of_columns_break_at_their_underscores_only_if_they_must() -> None:
    names = ["level", "completeness", "bone_quality", "p_blastic", "p_lytic", "posterolateral", "sins_partial", "hu"]
    table = pd.DataFrame([["T12", "whole", "normal", 0.01, 0.23, "unilateral", 7, 143.0]], columns=names)
    narrow, wide = (_text(render_table(table, width), width) for width in (NARROW, WIDE))
    assert all(name in wide for name in names)
    assert _line(narrow, "level") == [
        "level",
        "completeness",
        "quality",
        "blastic",
        "lytic",
        "posterolateral",
        "partial",
        "hu",
    ]


def test_the_legend_explains_what_is_shown_and_nothing_else() -> None:
    certain, open_side = call("lytic", "bilateral"), call("lytic", probability=0.4)
    words = {
        (width, len(calls)): _text(render_study(reading(levels=["L1", "L2"][: len(calls)]), calls, width=width), width)
        for width in (WIDE, NARROW)
        for calls in ([certain], [certain, open_side])
    }
    assert ["▓▓ mixed" in text for text in words.values()] == [True, True, False, False]
    assert ["? not certain" in text for text in words.values()] == [False, True, False, True]
    assert "1 vertebra (" in words[NARROW, 1]
    assert "2 vertebrae (" in words[NARROW, 2]


# ---- text of headers is text --------------------------------------------------------------------------------

HOSTILE = ["[/nope]", "[bold red]x[/bold red]", "\x1b]0;owned\x07", "\x1b[2J", "a\rb"]


@pytest.mark.parametrize("cell", HOSTILE)
def test_a_cell_is_shown_as_it_is_without_control_characters(cell: str) -> None:
    shown = _text(render_table(pd.DataFrame({"manufacturer": [cell], cell: [1]})))
    visible = "".join(letter if letter.isprintable() else " " for letter in cell).strip()
    assert visible.split()[0] in shown
    assert not set(shown) & {"\x1b", "\x07", "\r"}


@pytest.mark.parametrize("cell", HOSTILE)
def test_a_group_of_a_prevalence_is_shown_as_it_is(tmp_path: Path, cell: str) -> None:
    studies = [Study("p1", levels="L1", more={"manufacturer": cell})]
    table = prevalence(open_cohort(write_results(str(tmp_path), studies)), ["manufacturer"])
    shown = _text(render_prevalence(table, width=WIDE))
    assert not set(shown) & {"\x1b", "\x07", "\r"}
    assert cell.strip("\x1b\x07")[:3].split("\r")[0] in shown
