"""The prepare job on a real local Ray cluster: crops of labelled studies, the same in every run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from jobs.prepare import main
from spinemet.archive.listing import study_at
from spinemet.config import SliceConfig, StudyConfig
from spinemet.dicom.pseudonym import KEY_VARIABLE
from spinemet.errors import BadInput
from spinemet.files import join
from spinemet.on_ray.cluster import connect
from spinemet.on_ray.prepare import run_prepare
from spinemet.reading import Screened
from spinemet.study import read_study
from spinemet.training.crops import MANIFEST, read_crops, read_info
from spinemet.training.labels import LABEL_CLASSES, consensus, read_labels
from tests.on_ray.archives import write_study
from tests.training.crops import NAMES, cropped

pytestmark = pytest.mark.job

CONFIG = StudyConfig(localizer="masks", slices=SliceConfig(size_px=32, pixel_mm=3.5, step_mm=6.0))
WORDS = {**LABEL_CLASSES, "fracture": ("no", "wedge", "crush")}
LABELS = """patient,level,bone_quality,posterolateral,fracture
sub-1,L1,normal,none,
sub-1,L2,lytic,,wedge
sub-1,L5,normal,,
sub-2,L3,mixed,bilateral,no
sub-3,L1,blastic,,
"""


@pytest.fixture(scope="module", autouse=True)
def _cluster(s3_server: str) -> Iterator[None]:
    """A cluster that knows the S3 server, because workers inherit the environment in which Ray started."""
    import ray

    connect()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`archive` with two sound studies, one without labels and a truncated one; `labels.csv`."""
    folder = tmp_path_factory.mktemp("prepare")
    for n in (1, 2, 4):
        write_study(folder / "archive" / f"sub-{n}", f"sub-{n}", n)
    broken = folder / "archive" / "sub-3" / "sub-3_ct.nii.gz"
    broken.parent.mkdir()
    broken.write_bytes((folder / "archive" / "sub-1" / "sub-1_ct.nii.gz").read_bytes()[:2000])
    (folder / "labels.csv").write_text(LABELS)
    return folder


@pytest.fixture(scope="module")
def crops(place: Path) -> str:
    uri = str(place / "crops")
    shown: list[tuple[int, int]] = []
    info = run_prepare(
        str(place / "archive"),
        str(place / "labels.csv"),
        uri,
        CONFIG,
        NAMES,
        lambda done, total, note="": shown.append((done, total)),
        WORDS,
    )
    assert shown == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert info == read_info(uri)
    return uri


def test_the_manifest_counts_labels_and_studies(crops: str) -> None:
    info = read_info(crops)
    assert (info.patients, info.studies, info.vertebrae) == (2, 2, 3)
    assert info.classes["bone_quality"] == {"normal": 1, "blastic": 0, "mixed": 1, "lytic": 1}
    assert info.classes["posterolateral"] == {"none": 1, "unilateral": 0, "bilateral": 1}
    assert info.classes["fracture"] == {"no": 1, "wedge": 1}
    assert info.labels_unmatched == 2  # L5 is not in view, and sub-3 is broken
    assert sum(info.problems.values()) == 1


def test_crops_equal_those_made_without_ray(crops: str, place: Path) -> None:
    labels = consensus(read_labels(str(place / "labels.csv"), WORDS))
    found = read_crops(crops)
    for patient in ("sub-1", "sub-2"):
        ref = study_at(str(place / "archive" / patient / f"{patient}_ct.nii.gz"))
        reading = read_study(ref, CONFIG)
        assert isinstance(reading, Screened)
        rows = cropped(reading, labels)
        own = (found.table["patient"] == NAMES.patient_key(patient)).to_numpy()
        assert found.hu_NHW[own].astype("<i2").tobytes() == b"".join(rows["hu"].to_pylist())
        assert found.table.loc[own, "level"].tolist() == rows["level"].to_pylist()


def test_another_run_from_s3_to_s3_gives_the_same_crops(
    crops: str, place: Path, s3_bucket: str, s3_server: str
) -> None:
    client = boto3.client("s3", endpoint_url=s3_server)
    for path in [*sorted(place.glob("archive/**/*.nii.gz")), place / "labels.csv"]:
        client.upload_file(str(path), s3_bucket.removeprefix("s3://"), str(path.relative_to(place)))
    archive, labels, out = (join(s3_bucket, name) for name in ("archive", "labels.csv", "crops"))
    assert run_prepare(archive, labels, out, CONFIG, NAMES, words=WORDS) == read_info(crops)
    assert read_crops(out).table.equals(read_crops(crops).table)


def test_bad_input_is_exit_code_2_and_writes_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "the key of all tests")
    labels, archive, out = str(place / "labels.csv"), str(place / "archive"), str(tmp_path / "out")
    file_in_the_way = tmp_path / "file"
    file_in_the_way.write_text("")
    for given, message in (
        ((str(tmp_path / "nowhere"), labels, out), "nowhere"),
        ((archive, str(tmp_path / "no.csv"), out), "no.csv"),
        ((archive, labels, str(file_in_the_way / "out")), "is a file"),
    ):
        assert main(["--archive", given[0], "--labels", given[1], "--out", given[2]]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
    monkeypatch.delenv(KEY_VARIABLE)
    assert main(["--archive", archive, "--labels", labels, "--out", out]) == 2
    assert "there is no pseudonym key" in capsys.readouterr().err
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_bad_input_found_by_a_worker_is_bad_input_for_the_caller(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check on the driver, the first worker that writes finds the mistake."""
    (place / "in-the-way").write_text("")
    monkeypatch.setattr("spinemet.training.preparing.check_writable", lambda uri: None)
    with pytest.raises(BadInput, match=r"^expected a folder at .*in-the-way is a file"):
        run_prepare(
            str(place / "archive"), str(place / "labels.csv"), str(place / "in-the-way" / "crops"), CONFIG, NAMES
        )
