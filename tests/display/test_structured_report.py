from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from highdicom.sr import srread

from spinemet.archive.listing import open_study, study_at
from spinemet.cli import main
from spinemet.dicom.headers import read_series
from spinemet.display.structured_report import SCHEME, structured_report
from spinemet.errors import BadInput
from spinemet.reading import Screened
from spinemet.types import StudyRef
from tests.dicom.writer import write_series
from tests.readings import CALLS, LEVELS, READING, vertebra

MODEL = "0123456789ab"


def study(folder: Path) -> tuple[StudyRef, Screened]:
    """A series with slices at -130 to 17 mm, and the hand-made reading of it: bodies at 0, -30, -60 and -90 mm."""
    write_series(folder, count=50, origin=(-20.0, -30.0, -130.0), series_uid="1.2.3.9")
    ref = study_at(folder)
    with open_study(ref) as objects:
        (series,) = read_series(objects).series
    return ref, replace(READING, chosen=series)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyRef, Screened]:
    return study(tmp_path_factory.mktemp("sr") / "study")


@pytest.fixture(scope="module")
def report(source: tuple[StudyRef, Screened]) -> pydicom.Dataset:
    return srread(io.BytesIO(structured_report(*source, CALLS, MODEL)))


def test_the_report_belongs_to_the_patient_and_study_of_its_source(report: pydicom.Dataset) -> None:
    assert report.SOPClassUID.name == "Comprehensive 3D SR Storage"
    assert (report.PatientID, str(report.PatientName), report.PatientBirthDate) == ("P1", "Doe^Jane", "19500101")
    assert (report.StudyInstanceUID, report.StudyDate) == ("1.2.3.4", "20200131")
    assert report.SeriesInstanceUID != "1.2.3.9"
    assert (report.VerificationFlag, report.Manufacturer) == ("UNVERIFIED", "SpineMet")
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "ContentDate", "ContentTime", "SeriesNumber"):
        assert report.get(keyword)
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_each_vertebra_has_its_level_calls_probabilities_and_density(report: pydicom.Dataset) -> None:
    groups = report.content.get_image_measurement_groups()
    assert [group.tracking_identifier for group in groups] == list(LEVELS)
    sites = [group.finding_sites[0].value for group in groups]
    assert [(site.scheme_designator, site.meaning) for site in sites] == [
        ("SCT", f"{level} vertebra") for level in LEVELS[:3]
    ] + [("SCT", "Vertebra")]
    said = {one.name.meaning: one.value.meaning for one in groups[1].get_qualitative_evaluations()}
    assert said == {"Bone quality": "lytic", "Posterolateral involvement": "bilateral"}
    numbers = {one.name.meaning: (one.value, one.unit.value) for one in groups[1].get_measurements()}
    assert numbers["Attenuation Coefficient"] == (150.0, "[hnsf'U]")
    assert numbers["Probability of bone quality lytic"] == (pytest.approx(0.7), "1")
    assert sum(value for name, (value, _) in numbers.items() if "of bone quality" in name) == pytest.approx(1)
    assert "Attenuation Coefficient" not in {one.name.meaning for one in groups[0].get_measurements()}  # cut: no HU
    codes = [one.name.value for group in groups for one in group.get_measurements()]
    assert len(set(codes)) == 4 + 3 + 1 + 1
    assert {one.name.scheme_designator for one in groups[1].get_qualitative_evaluations()} == {SCHEME}


def test_each_group_names_the_algorithm_and_the_slices_through_the_body(
    report: pydicom.Dataset, source: tuple[StudyRef, Screened]
) -> None:
    heights = {one.SOPInstanceUID: one.ImagePositionPatient[2] for one in source[1].chosen.instances}  # type: ignore[index]
    listed = {
        item.ReferencedSOPInstanceUID
        for one in report.CurrentRequestedProcedureEvidenceSequence
        for series in one.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    for number, group in enumerate(report.content.get_image_measurement_groups()):
        body = vertebra(LEVELS[number], number)
        images = {
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for item in group[0].ContentSequence
            if item.ValueType == "IMAGE"
        }
        near = {uid for uid, z in heights.items() if abs(z - body.center_mm[2]) <= body.height_mm / 2}
        assert images == near <= listed
        texts = [item.TextValue for item in group[0].ContentSequence if item.ValueType == "TEXT"]
        assert {"SpineMet", f"model {MODEL}"} <= set(texts)


def test_a_series_without_uids_or_without_dicom_is_refused(tmp_path: Path) -> None:
    ref, reading = study(tmp_path / "study")
    with pytest.raises(BadInput, match=r"found none \(is it a NIfTI volume\?\)"):
        structured_report(ref, replace(reading, chosen=replace(reading.chosen, instances=())), CALLS, MODEL)
    for path in (tmp_path / "study").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = ""
        dataset.save_as(path)
    with pytest.raises(BadInput, match="refers to its images by UID, but an image has no StudyInstanceUID"):
        structured_report(ref, reading, CALLS, MODEL)


def test_without_a_model_there_is_nothing_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", str(tmp_path), "--sr", str(tmp_path / "out.dcm")]) == 2
    assert "--sr needs --model" in capsys.readouterr().err
    assert not (tmp_path / "out.dcm").exists()
