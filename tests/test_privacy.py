"""No identifier leaves the archive: planted ones appear in no table, log line, error, report or log of Ray."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest

from jobs import prepare as prepare_job
from jobs import screen as screen_job
from spinemet.config import SliceConfig
from spinemet.dicom.pseudonym import KEY_VARIABLE
from spinemet.dicom.values import quiet_readers
from spinemet.model.checkpoint import ModelCard, save_model, untrained
from spinemet.model.spec import DenseNetSpec, ModelSpec
from spinemet.on_ray.cluster import connect
from spinemet.report.html import write_report
from spinemet.results import tables
from tests.dicom.test_segmentation import write_seg
from tests.dicom.writer import set_pixels, write_series

pytestmark = [pytest.mark.job, pytest.mark.timeout(900)]  # three jobs; minutes on a machine as busy as CI

UID = "1.2.826.0.1.3680043.8.498.7777"
PLANTED = re.compile(
    rb"zqx|1\.2\.826\.0\.1\.3680043\.8\.498\.7777|19870623|1987-06-23|19310817|1931-08-17", re.IGNORECASE
)
"""Every planted identifier contains ZQX, this UID root, or the date of study or birth."""
CONFIG = """
localizer = "masks"
[select]
min_slices = 3
min_coverage_mm = 3
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`archive` with identifiers wherever DICOM, keys and packed files can hold them, in sound and broken studies."""
    root = tmp_path_factory.mktemp("privacy")
    archive = root / "archive"
    sound = archive / "ZQXNAME^JANE" / f"{UID}.1" / "series"
    numbers_DHW = np.zeros((15, 48, 48), np.uint8)
    for number, first in ((1, 8), (2, 1)):
        numbers_DHW[first : first + 6, 14:30, 14:34] = number

    def edit(dataset: pydicom.Dataset, at: int) -> None:
        plant(dataset, at)
        set_pixels(dataset, np.where(numbers_DHW[at] > 0, 1244, 1064).astype(np.int16))

    with quiet_readers():
        files = write_series(sound, count=15, step=(0, 0, 4.0), shape=(48, 48), pixel_spacing=(2.0, 2.0), edit=edit)
        write_seg(sound / "ZQX-seg.dcm", files[::-1], numbers_DHW, names=("L1", "L2"))
        damage(sound, archive)
    (root / "study.toml").write_text(CONFIG)
    (root / "labels.csv").write_text(f"patient,study,level,bone_quality\nZQXPID,{UID}.1,L1,lytic\nZQXPID2,,L2,normal\n")
    spec = ModelSpec(
        backbone=DenseNetSpec(growth_rate=4, block_config=(1, 1, 1, 1), init_features=8),
        slices=SliceConfig(size_px=32, pixel_mm=3.5, step_mm=12.0),
    )
    save_model(str(root / "model"), untrained(spec, 0), ModelCard(spec=spec))
    return root


def plant(dataset: pydicom.Dataset, at: int) -> None:
    """Put identifiers into the attributes that hold them (PS3.15 annex E); some are malformed and cause warnings."""
    for keyword in (
        "PatientName", "PatientID", "OtherPatientNames", "PatientAddress", "PatientComments", "AccessionNumber",
        "InstitutionName", "ReferringPhysicianName", "OperatorsName", "StudyID", "StudyDescription",
        "SeriesDescription", "ProtocolName", "DeviceSerialNumber", "StationName", "RequestedProcedureDescription",
        "ImageComments", "IssuerOfPatientID", "PatientTelephoneNumbers", "BodyPartExamined", "ContrastBolusAgent",
    ):  # fmt: skip
        setattr(dataset, keyword, f"ZQX{keyword[:9]}")
    dataset.PatientID = "ZQXPID"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{UID}.1", f"{UID}.2"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{UID}.3.{at}"
    dataset.FrameOfReferenceUID = f"{UID}.4"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "19870623"
    dataset.PatientBirthDate, dataset.StudyTime = "19310817", "112233"
    dataset.add_new(0x00091001, "LO", "ZQXPRIVATE")


def damage(sound: Path, archive: Path) -> None:
    """Write copies of the sound study, each broken in another way, with identifiers in their paths."""
    files = sorted(sound.glob("9*.dcm"))
    for number, name in enumerate(("truncated", "colour", "no-geometry", "numbers", "deep", "flat")):
        folder = archive / f"ZQXNAME^{name}" / f"{UID}.{10 + number}" / "ZQXSERIES"
        folder = folder.parent if name == "flat" else folder
        shutil.copytree(sound, folder)
        for path in folder.glob("*.dcm"):
            break_object(path, name)
    zipped = archive / "ZQXNAME^ZIP.zip"
    with zipfile.ZipFile(zipped, "w") as packed:
        for path in files:
            packed.write(path, f"ZQX/{path.name}")
    zipped.write_bytes(zipped.read_bytes()[:-200])
    (archive / "ZQXNAME" / f"{UID}.30" / "s").mkdir(parents=True)
    (archive / "ZQXNAME" / f"{UID}.30" / "s" / "ZQX.dcm").write_bytes(b"ZQX is not DICOM " * 99)
    (archive / "ZQXNAME" / "ZQX_19870623.nii.gz").write_bytes(b"\x1f\x8bZQX")
    (archive / "ZQXNAME" / "ZQX_19870623_ct.nii").write_bytes(b"\x5c\x01\0\0" + b"ZQX1987-06-23 " * 99)
    shutil.copytree(sound, archive / "ZQXNAME^GONE" / f"{UID}.31" / "ZQXSERIES")
    for path in (archive / "ZQXNAME^GONE" / f"{UID}.31" / "ZQXSERIES").iterdir():
        path.unlink()
        path.symlink_to("/proc/self/mem")  # can be opened but not read


def break_object(path: Path, how: str) -> None:
    """Damage one object in place."""
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
        return
    if path.name == "ZQX-seg.dcm":
        return
    dataset = pydicom.dcmread(path)
    if how == "colour":
        dataset.SamplesPerPixel = 3
    elif how == "no-geometry":
        del dataset.ImagePositionPatient
    elif how == "numbers":
        dataset.add_new(0x00280030, "LO", "ZQX\\ZQX")
        dataset.add_new(0x00281053, "LO", "ZQX")
        dataset.SpecificCharacterSet = "ZQX_IR 998"
    elif how == "flat":  # planning reads its headers, and pydicom warns about them
        dataset.SpecificCharacterSet = "ZQX_IR 999"
    else:
        inner = dataset
        for _ in range(60):
            item = pydicom.Dataset()
            item.PatientName = "ZQXNAME^DEEP"
            inner.ReferencedStudySequence = [item]
            inner = item
    dataset.save_as(path)


@pytest.fixture(scope="module")
def session() -> Iterator[Path]:
    """Ray's session folder of the cluster that the jobs run on."""
    import ray

    connect()
    yield Path(ray._private.worker._global_node.get_session_dir_path())
    ray.shutdown()


def test_no_planted_identifier_leaves_the_archive(
    place: Path,
    session: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    monkeypatch.setenv(KEY_VARIABLE, "a key for the tests only")
    archive, results, crops, config = (str(place / n) for n in ("archive", "results", "crops", "study.toml"))
    linkage = str(place / "linkage")
    common = ["--archive", archive, "--config", config]
    assert (
        screen_job.main(
            [*common, "--results", results, "--model", str(place / "model"), "--slices", "--linkage", linkage]
        )
        == 0
    )
    # The same results with another key: an error message for the caller.
    monkeypatch.setenv(KEY_VARIABLE, "another key, as long as it")
    assert screen_job.main([*common, "--results", results, "--model", str(place / "model")]) == 2
    assert prepare_job.main([*common, "--labels", str(place / "labels.csv"), "--out", crops]) == 0
    write_report(results, str(place / "report.html"))
    rows = tables.connect(results).sql("SELECT state, reason FROM studies").fetchall()
    reasons = {reason for _, reason in rows}
    assert ("screened", None) in rows
    assert {"truncated", "unsupported_pixels", "no_geometry", "broken_archive", "not_dicom", "unreachable"} <= reasons
    assert "internal" not in reasons
    printed = capfd.readouterr()
    ray.shutdown()  # so that Ray's last lines are searched too
    assert not PLANTED.search((printed.out + printed.err).encode())
    assert not [each for each in recwarn if PLANTED.search(str(each.message).encode())]
    assert leaks(place / "results") == []
    assert leaks(place / "report.html") == []
    assert leaks(session) == []
    assert leaks(place / "crops") == []
    # The linkage table alone holds them, on request.
    named = pq.read_table(linkage).to_pylist()
    assert len(named) == len(rows)
    assert ("ZQXPID", f"{UID}.1") in {(row["PatientID"], row["StudyInstanceUID"]) for row in named}


def leaks(place: Path) -> list[str]:
    """Places of planted identifiers below `place`: in file names, bytes, and values inside Parquet."""
    found = []
    paths = [path for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file()]
    assert paths
    for path in paths:
        relative = str(path.relative_to(place.parent))
        content = path.read_bytes()
        texts = [relative.encode(), content]
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            texts += [repr(table.schema).encode(), repr(table.to_pylist()).encode()]
        for text in texts:
            if match := PLANTED.search(text):
                found.append(f"{relative}: {text[max(0, match.start() - 60) : match.end() + 60]!r}")
    return found


def test_the_search_finds_planted_identifiers(place: Path, tmp_path: Path) -> None:
    assert len(leaks(place / "archive" / "ZQXNAME^JANE")) >= 2 * 15  # in each name and each content
    table = tmp_path / "t" / "x.parquet"
    table.parent.mkdir()
    pq.write_table(pa.table({"name": ["ZQX"] * 100}), table, compression="zstd")
    assert leaks(tmp_path / "t")
