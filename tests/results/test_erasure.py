"""An erased patient is in no file of the results any more, and no later night brings the patient back."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from spinemet.cli import main
from spinemet.config import StudyConfig
from spinemet.dicom.pseudonym import KEY_VARIABLE, Pseudonymizer
from spinemet.errors import BadInput
from spinemet.results.erasure import erase
from spinemet.results.maintenance import pin
from spinemet.results.suppression import SUPPRESSED, suppressed
from spinemet.results.tables import connect
from spinemet.screening.answers import Answer
from spinemet.screening.night import run_night
from spinemet.screening.plan import PlannedStudy, ScreenOptions, Selection
from tests.cohort.cases import Study, write_results
from tests.readings import CALLS, READING
from tests.screening.nights import KEY
from tests.screening.places import STUDIES, write_stub_place

NAMES = Pseudonymizer(KEY, "shifted")
PATIENT = "PH-0000"


def of_two_patients(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
    """study-0 and study-1 are of PATIENT, the others of another."""
    for study in studies:
        patient = PATIENT if study.ref.key in {"study-0.zip", "study-1.zip"} else "PH-0001"
        chosen = replace(READING.chosen, PatientID=patient)
        yield Answer(study, replace(READING, chosen=chosen), CALLS, 0.1)


@pytest.fixture
def night(tmp_path: Path) -> ScreenOptions:
    """Options of a night that was done, with linkage."""
    write_stub_place(str(tmp_path))
    place = {name: str(tmp_path / name) for name in ("archive", "results", "model", "linkage")}
    options = ScreenOptions(place["archive"], place["results"], place["model"], KEY, linkage=place["linkage"])
    run_night(options, of_two_patients)
    return options


def traces(folder: str, words: Sequence[str]) -> list[str]:
    """Files below `folder` whose bytes, or whose Parquet values, hold one of `words`."""
    found = []
    for path in Path(folder).rglob("*"):
        if path.is_file():
            text = path.read_bytes().decode(errors="replace")
            if path.suffix == ".parquet":
                text += json.dumps(pq.read_table(path).to_pylist(), default=str)
            if any(word in text for word in words):
                found.append(path.name)
    return found


def test_no_file_holds_the_patient_any_more(night: ScreenOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    key = NAMES.patient_key(PATIENT)
    sources = [NAMES.source_key(night.archive, f"study-{n}.zip") for n in (0, 1)]
    pin(night.results, "paper")
    assert traces(night.results, [key, *sources])
    assert traces(str(night.linkage), [PATIENT])
    given = ["tables", "erase", night.results, "--patient", PATIENT, "--linkage", str(night.linkage)]
    assert main(given) == 0
    assert traces(night.results, [key, *sources]) == [SUPPRESSED]
    assert traces(str(night.linkage), [PATIENT, key]) == []
    connection = connect(night.results)
    assert connection.sql("SELECT count(*) FROM studies").fetchall() == [(STUDIES - 2,)]
    assert connection.sql("SELECT count(*) FROM all_vertebrae").fetchall() == [((STUDIES - 2) * len(CALLS),)]
    assert main(given) == 0  # a second time changes nothing
    assert connect(night.results).sql("SELECT count(*) FROM studies").fetchall() == [(STUDIES - 2,)]


def test_no_later_night_brings_the_patient_back(night: ScreenOptions, tmp_path: Path) -> None:
    erase(night.results, NAMES.patient_key(PATIENT))
    again = run_night(replace(night, selection=Selection(rescreen="all")), of_two_patients)
    assert (again.plan.planned, again.studies) == (STUDIES - 2, STUDIES - 2)
    moved = tmp_path / "archive" / "new"
    moved.mkdir()
    (moved / "study-1.zip").write_bytes(b"a new study of the patient")

    def of_the_patient(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
        yield from (
            Answer(study, replace(READING, chosen=replace(READING.chosen, PatientID=PATIENT)), CALLS)
            for study in studies
        )

    run = run_night(night, of_the_patient)
    assert (run.plan.planned, run.studies, run.withheld, run.exit_code(None)) == (1, 0, 1, 0)
    assert "1 studies of patients who were erased: nothing of them is stored" in str(run)
    assert not traces(str(night.linkage), ["new/study-1.zip"])
    assert run_night(night, of_two_patients).plan.planned == 0  # it is known now


def test_a_patient_who_is_not_in_the_tables_is_kept_out(tmp_path: Path) -> None:
    place = write_results(str(tmp_path), [Study("p1", levels="L1")])
    assert erase(place, "p9").empty
    assert suppressed(place).patients == {"p9"}
    assert connect(place).sql("SELECT count(*) FROM studies").fetchall() == [(1,)]


def test_another_key_or_a_damaged_list_is_refused(night: ScreenOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "another key of enough bytes")
    assert main(["tables", "erase", night.results, "--patient", PATIENT]) == 2
    assert not Path(night.results, SUPPRESSED).exists()
    Path(night.results, SUPPRESSED).write_text("{")
    with pytest.raises(BadInput, match=r"suppressed\.json is damaged; put it back from a copy"):
        run_night(night, of_two_patients)
