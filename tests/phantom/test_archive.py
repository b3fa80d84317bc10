"""The archive on disk and on S3: readable DICOM, labels that match it, equal bytes for equal seeds."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import obstore
import pydicom
import pytest
from pydicom.dataset import Dataset

from spinemet.anatomy import LEVEL_INDEX
from spinemet.errors import BadInput
from spinemet.files import open_store
from spinemet.phantom.archive import LABEL_COLUMNS, ArchiveSummary, write_archive
from spinemet.types import BONE_QUALITY, POSTEROLATERAL

PATIENTS, SEED, MATRIX = 2, 222, 64
"""Three short studies, one of them a zip, in three transfer syntaxes."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ArchiveSummary]:
    root = tmp_path_factory.mktemp("phantom")
    calls: list[tuple[int, int]] = []
    summary = write_archive(
        str(root), PATIENTS, SEED, matrix=MATRIX, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(n, summary.studies + 1) for n in range(1, summary.studies + 2)]
    return root, summary


def objects_of(root: Path) -> dict[str, bytes]:
    """Every object below `root`, the members of zips by themselves."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as bundle:
                found |= {f"{name}/{member}": bundle.read(member) for member in bundle.namelist()}
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def images(archive: tuple[Path, ArchiveSummary]) -> list[Dataset]:
    """All readable objects of the usable studies."""
    contents = objects_of(archive[0] / "archive")
    return [pydicom.dcmread(io.BytesIO(data)) for key, data in contents.items() if not key.startswith("PH-9")]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as lines:
        return list(csv.DictReader(lines))


def test_series_are_complete_ct_volumes_with_one_geometry(images: list[Dataset]) -> None:
    series = defaultdict(list)
    for image in images:
        if image.Modality == "CT" and "AXIAL" in image.ImageType:
            series[image.SeriesInstanceUID].append(image)
    assert len(series) >= PATIENTS
    for members in series.values():
        heights = sorted(float(image.ImagePositionPatient[2]) for image in members)
        assert len(heights) >= 16
        assert np.allclose(np.diff(heights), np.diff(heights)[0], atol=1e-3)
        first = members[0]
        assert len({(i.Rows, i.Columns, tuple(i.PixelSpacing), i.ConvolutionKernel) for i in members}) == 1
        assert sorted(int(image.InstanceNumber) for image in members) == list(range(1, len(members) + 1))
        hu = first.pixel_array * float(first.RescaleSlope) + float(first.RescaleIntercept)
        assert -1024 <= hu.min() < -900
        assert hu.max() > 150
        for keyword in ("KVP", "Manufacturer", "PatientAge", "PatientSex", "WindowCenter", "BodyPartExamined"):
            assert first[keyword].value != ""


def test_the_archive_varies_as_real_ones_do(archive: tuple[Path, ArchiveSummary], images: list[Dataset]) -> None:
    assert len({image.file_meta.TransferSyntaxUID for image in images}) >= 3
    assert any("LOCALIZER" in image.ImageType for image in images)
    assert archive[1].studies == len({image.StudyInstanceUID for image in images})
    assert len({image.SOPInstanceUID for image in images}) == len(images)


def test_identifiers_are_there_to_be_found(images: list[Dataset]) -> None:
    for image in images:
        assert str(image.PatientName).startswith("PHANTOM^")
        assert image.PatientID.startswith("PH-")


def test_labels_name_studies_of_the_archive_and_agree_with_the_truth(
    archive: tuple[Path, ArchiveSummary], images: list[Dataset]
) -> None:
    labels, truth = rows_of(archive[0] / "labels.csv"), rows_of(archive[0] / "truth.csv")
    known = {(i.PatientID, i.StudyInstanceUID, i.SeriesInstanceUID) for i in images if i.Modality == "CT"}
    assert tuple(labels[0]) == LABEL_COLUMNS
    assert {(row["patient"], row["study"], row["series"]) for row in labels} <= known
    assert [{name: row[name] for name in LABEL_COLUMNS} for row in truth if row["labelled"] == "1"] == labels
    for row in labels:
        assert row["level"] in LEVEL_INDEX
        assert row["bone_quality"] in BONE_QUALITY
        assert row["posterolateral"] in POSTEROLATERAL
        assert row["bone_quality"] != "normal" or row["posterolateral"] == "none"
    assert archive[1].vertebrae == len(truth)


def test_the_segmentation_holds_each_vertebra_around_its_true_centre(
    archive: tuple[Path, ArchiveSummary], images: list[Dataset]
) -> None:
    segmentations = {image.StudyInstanceUID: image for image in images if image.Modality == "SEG"}
    assert segmentations
    checked = 0
    for row in rows_of(archive[0] / "truth.csv"):
        seg = segmentations.get(row["study"])
        if seg is None or row["completeness"] != "whole":
            continue
        number = next(s.SegmentNumber for s in seg.SegmentSequence if s.SegmentLabel == f"{row['level']} vertebra")
        center = np.array([float(row[f"center_{axis}_mm"]) for axis in "xyz"])
        checked += _covers(seg, int(number), center)
    assert checked > 15


def _covers(seg: Dataset, number: int, point: np.ndarray) -> bool:
    """Asserts that segment `number` is set in the voxel nearest to `point` (LPS mm)."""
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    frames = [
        (abs(float(group.PlanePositionSequence[0].ImagePositionPatient[2]) - point[2]), n, group)
        for n, group in enumerate(seg.PerFrameFunctionalGroupsSequence)
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
    ]
    _, n, group = min(frames, key=lambda frame: frame[0])
    corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
    column, row = (point[:2] - corner[:2]) / float(measures.PixelSpacing[0])
    assert seg.pixel_array[n][round(row), round(column)] == 1
    return True


def test_three_studies_cannot_be_used(archive: tuple[Path, ArchiveSummary]) -> None:
    assert archive[1].unusable == 3
    contents = objects_of(archive[0] / "archive")
    views = [pydicom.dcmread(io.BytesIO(data)) for key, data in contents.items() if key.startswith("PH-9002")]
    assert views
    assert not any("AXIAL" in view.ImageType for view in views)
    letters = {key: data for key, data in contents.items() if key.startswith("PH-9003")}
    assert sorted(len(data) for data in letters.values())[0] == 0
    assert not any(data[128:132] == b"DICM" for data in letters.values())
    broken = [data for key, data in contents.items() if key.startswith("PH-9001")]
    with pytest.raises((ValueError, AttributeError, EOFError)):
        _ = pydicom.dcmread(io.BytesIO(broken[0])).pixel_array


def test_equal_seeds_give_equal_bytes_with_more_workers_and_on_s3(
    archive: tuple[Path, ArchiveSummary], s3_bucket: str
) -> None:
    write_archive(f"{s3_bucket}/phantom", PATIENTS, SEED, matrix=MATRIX, workers=2)
    store = open_store(f"{s3_bucket}/phantom")
    # The server's entity tag of an object is the MD5 of its bytes.
    remote = {meta["path"]: str(meta["e_tag"]).strip('"') for page in obstore.list(store) for meta in page}
    local = {
        path.relative_to(archive[0]).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in archive[0].rglob("*")
        if path.is_file()
    }
    assert remote == local


def test_a_place_that_cannot_be_written_is_the_callers_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="is a file"):
        write_archive(str(tmp_path / "file" / "out"), 1, 1, matrix=MATRIX)


@pytest.mark.parametrize(("patients", "matrix"), [(0, 64), (2, 8)])
def test_nonsense_is_refused_before_anything_is_written(tmp_path: Path, patients: int, matrix: int) -> None:
    with pytest.raises(BadInput, match="expected at least 1 patient"):
        write_archive(str(tmp_path / "out"), patients, 1, matrix=matrix)
    assert not (tmp_path / "out").exists()
