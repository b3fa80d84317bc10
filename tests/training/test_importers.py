"""Importers, on small data sets with the layout of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage
from typer.testing import CliRunner

from spinemet.cli import app
from spinemet.errors import BadInput
from spinemet.training.importers import COLUMNS, import_spine_mets, import_verse, levels_in
from spinemet.training.labels import read_labels

HEADER = [
    "Case",
    "Age (Y)",
    "Sex",
    "Height (m)",
    "Weight (kg)",
    "BMI",
    "Primary cancer",
    "Vertebrae with Lesions",
    "Blastic",
    "Lytic",
    "Mixed",
    "Comments/Fractures",
]


def case_row(case: object, lesions: str = "", blastic: str = "", lytic: str = "", mixed: str = "") -> list[object]:
    return [case, 60, "M", 1.8, 80, 24.7, "Prostate", lesions, blastic, lytic, mixed, "fracture of T9"]


def write_object(path: Path, patient: str, study: str, series: str, frame: str, segments: list[str] | None) -> None:
    """A header like those of the data set: a segmentation if `segments` are given, else a CT image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = CTImageStorage if segments is None else SegmentationStorage
    made.SOPInstanceUID, made.PatientID = f"{series}.1", patient
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = study, series, frame
    made.Modality = "CT" if segments is None else "SEG"
    if segments is not None:
        made.SegmentSequence = []
        for number, label in enumerate(segments, start=1):
            segment = Dataset()
            segment.SegmentNumber, segment.SegmentLabel = number, label
            made.SegmentSequence.append(segment)
    pydicom.dcmwrite(path, made, enforce_file_format=True)


def write_case(root: Path, patient: str, levels: list[str]) -> None:
    """Two CT series and a segmentation of the second one."""
    study, n = root / "Spine-Mets-CT-SEG" / patient / "01-01-2000-NA-CT SPINE-12345", int(patient)
    for series in ("1", "2"):
        for image in (1, 2):
            place = study / f"{series}.000000-AXIAL {series}-0000{series}" / f"1-{image}.dcm"
            write_object(place, patient, f"1.2.{n}", f"1.2.{n}.{series}", f"1.2.{n}.9{series}", None)
    labels = [f"{level} vertebra" for level in levels]
    place = study / "300.000000-Spine Segmentation-12.34" / "1-1.dcm"
    write_object(place, patient, f"1.2.{n}", f"1.2.{n}.3", f"1.2.{n}.92", labels)


def write_sheet(root: Path, rows: list[list[object]]) -> None:
    with pd.ExcelWriter(root / "Spine-Mets-CT-SEG_Clinical.xlsx") as writer:
        pd.DataFrame({"Data dictionary": ["Case: …"]}).to_excel(writer, sheet_name="Dictionary", index=False)
        pd.DataFrame(rows, columns=HEADER).to_excel(writer, sheet_name="Clinical", index=False)


@pytest.fixture
def spine_mets(tmp_path: Path) -> Path:
    write_sheet(
        tmp_path,
        [
            case_row(10250, "T1, T2 T3, T4", "T1, T2", "T2 T3", "T4"),
            case_row(10352, "L1 (pathological)", "L1 (pathological)"),
            case_row(10353, "T10-T12, L2", lytic="T10-T12"),
            case_row(13627, "T1", "T1"),
            case_row(99999, "T1", "T1"),
        ],
    )
    write_case(tmp_path, "10250", ["T1", "T2", "T3", "T4", "T5"])
    write_case(tmp_path, "10352", ["L1", "L2"])
    write_case(tmp_path, "10353", ["T9", "Th10", "T11", "T12", "L1", "L2", "T19"])
    write_case(tmp_path, "13627", ["T1"])
    write_case(tmp_path, "77777", ["T1"])
    return tmp_path


def test_lesion_lists_become_a_label_per_segmented_vertebra(spine_mets: Path) -> None:
    found = import_spine_mets(spine_mets)
    assert found.table.columns.tolist() == COLUMNS
    said = {
        patient: dict(zip(rows["level"], rows["bone_quality"], strict=True))
        for patient, rows in found.table.groupby("patient")
    }
    assert said == {
        "10250": {"T1": "blastic", "T2": "mixed", "T3": "lytic", "T4": "mixed", "T5": "normal"},
        "10352": {"L1": "blastic"},
        "10353": {"T9": "normal", "T10": "lytic", "T11": "lytic", "T12": "lytic", "L1": "normal"},
    }
    assert found.table.iloc[0].tolist() == ["10250", "1.2.10250", "1.2.10250.2", "T1", "blastic", ""]
    assert found.left_out == {
        "segmented studies of invalid cases": 1,
        "segmented studies without a row in the spreadsheet": 1,
        "segments that look like vertebrae of no known level": 1,
        "vertebrae whose lesion is of no stated kind": 2,
        "cases of the spreadsheet without a segmentation": 1,
    }


def test_the_command_writes_a_table_that_training_reads(spine_mets: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    done = CliRunner().invoke(app, ["import", "spine-mets-ct-seg", str(spine_mets), str(out)])
    assert done.exit_code == 0
    assert "11 vertebrae of 3 patients" in done.output
    labels = read_labels(str(out))
    assert labels["bone_quality"].value_counts().to_dict() == {"lytic": 4, "normal": 3, "blastic": 2, "mixed": 2}
    assert labels["posterolateral"].isna().all()


@pytest.mark.parametrize(
    ("text", "levels", "plain"),
    [
        ("T1, T2 T3, T4", "T1 T2 T3 T4", True),
        ("t1;L 2 and S1.", "T1 L2 S1", True),
        ("T11-L2", "T11 T12 L1 L2", True),
        ("T4 to 6", "T4 T5 T6", True),
        ("None", "", True),
        ("", "", True),
        ("diffuse", "", False),
        ("T3 (small)", "T3", False),
        ("T6-T4", "T4 T5 T6", True),
        ("T11-T14", "T11 T14", False),
    ],
)
def test_free_text_gives_levels_and_tells_if_there_is_more(text: str, levels: str, plain: bool) -> None:
    found, says_no_more = levels_in(text)
    assert found == set(levels.split())
    assert says_no_more is plain


def test_a_data_set_with_another_form_is_bad_input(spine_mets: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput, match="expected one spreadsheet"):
        import_spine_mets(empty)
    (empty / "a.xlsx").write_bytes(b"no spreadsheet")
    with pytest.raises(BadInput, match="expected an Excel workbook with two sheets"):
        import_spine_mets(empty)
    write_sheet(empty, [case_row(1)])
    (empty / "a.xlsx").unlink()
    with pytest.raises(BadInput, match="expected vertebra segmentations"):
        import_spine_mets(empty)
    with pd.ExcelWriter(empty / "Spine-Mets-CT-SEG_Clinical.xlsx") as writer:
        pd.DataFrame().to_excel(writer, sheet_name="one")
        pd.DataFrame({"Case": [1]}).to_excel(writer, sheet_name="two", index=False)
    with pytest.raises(BadInput, match="expected a column Vertebrae with Lesions in the second sheet, found Case"):
        import_spine_mets(empty)
    with pytest.raises(BadInput, match="expected VerSe"):
        import_verse(empty)


def test_verse_gives_a_table_to_fill_in(tmp_path: Path) -> None:
    root = tmp_path / "dataset-verse20test"
    for part, names in (
        ("rawdata/sub-verse004", ["sub-verse004_split-verse123_ct.nii.gz", "sub-verse004_split-verse124_ct.nii.gz"]),
        ("rawdata/sub-verse005", ["sub-verse005_ct.nii.gz"]),
        ("derivatives/sub-verse005", []),
    ):
        (root / part).mkdir(parents=True)
        for name in names:
            (root / part / name).write_bytes(b"")
    centroids = [{"direction": ["P", "I", "R"]}, *({"X": 1.0, "Y": 2.0, "Z": 3.0, "label": n} for n in (20, 19, 28))]
    (root / "derivatives/sub-verse004").mkdir()
    place = root / "derivatives/sub-verse004/sub-verse004_split-verse123_seg-subreg_ctd.json"
    place.write_text(json.dumps(centroids))
    out = tmp_path / "verse.csv"
    done = CliRunner().invoke(app, ["import", "verse", str(tmp_path), str(out)])
    assert done.exit_code == 0
    assert "left out: 2 volumes without centroids" in done.output
    labels = read_labels(str(out))
    assert labels["level"].tolist() == ["T12", "T13", "L1"]
    assert set(labels["patient"]) == {"sub-verse004"}
    assert set(labels["study"]) == {"sub-verse004_split-verse123_ct"}  # the study's name for a NIfTI file
    assert labels["bone_quality"].isna().all()
    place.write_text(json.dumps([{"label": "T12"}]))
    with pytest.raises(BadInput, match="expected VerSe's centroids"):
        import_verse(tmp_path)
