"""The forms in which DICOMweb stores one study as files, and the volume that a study gives."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset

from spinemet.archive.listing import open_study
from spinemet.dicom.headers import read_series
from spinemet.dicom.volume import read_volume
from spinemet.types import StudyRef, Volume

STUDY, SERIES = "1.2.3.4", "1.2.3.5"
ROOT = f"studies/{STUDY}"
BELOW = f"{ROOT}/series/{SERIES}"
Json = dict[str, Any]


def metadata(dataset: Dataset, **more: Any) -> Json:
    """The metadata of an object as static-wado writes it, its pixels by reference."""
    found = json.loads(dataset.to_json(bulk_data_threshold=64, bulk_data_element_handler=lambda _: "left out"))
    found["7FE00010"] = {"vr": "OW", "BulkDataURI": f"instances/{dataset.SOPInstanceUID}/frames"}
    found["00083002"] = {"vr": "UI", "Value": [dataset.file_meta.TransferSyntaxUID]}
    return {**found, **more}


def multipart(frame: bytes, kind: str = "application/octet-stream;transfer-syntax=1.2.840.10008.1.2.1") -> bytes:
    mark = b"--BOUNDARY_0af3"
    return mark + b"\r\nContent-Type: " + kind.encode() + b"\r\n\r\n" + frame + b"\r\n" + mark + b"--"


def packed(value: Any) -> bytes:
    return gzip.compress(json.dumps(value).encode())


def instance(dataset: Dataset) -> str:
    return f"{BELOW}/instances/{dataset.SOPInstanceUID}"


def frames(datasets: list[Dataset], form: Callable[[bytes], bytes] = multipart, end: str = "") -> dict[str, bytes]:
    return {f"{instance(dataset)}/frames/1{end}": form(dataset.PixelData) for dataset in datasets}


def by_series(datasets: list[Dataset]) -> dict[str, bytes]:
    """As Static-DICOMweb stores a study, with its indexes and thumbnails."""
    found = {
        "studies/index.json.gz": packed([]),
        f"deduplicated/{STUDY}/f00d.gz": packed([]),
        f"instances/{STUDY}/beef.gz": packed([]),
        f"{ROOT}/index.json.gz": packed([]),
        f"{ROOT}/series/index.json.gz": packed([]),
        f"{ROOT}/thumbnail": b"\xff\xd8",
        f"{BELOW}/index.json.gz": packed([]),
        f"{BELOW}/instances/index.json.gz": packed([]),
        f"{BELOW}/metadata.gz": packed([metadata(dataset) for dataset in datasets]),
    }
    found |= {f"{instance(dataset)}/thumbnail": b"\xff\xd8" for dataset in datasets}
    return found | frames(datasets, lambda frame: gzip.compress(multipart(frame)), ".gz")


def by_instance(datasets: list[Dataset]) -> dict[str, bytes]:
    """As the paths of WADO-RS read: plain metadata and a raw frame for each instance."""
    found = {f"{instance(dataset)}/metadata": json.dumps([metadata(dataset)]).encode() for dataset in datasets}
    return found | frames(datasets, lambda frame: frame)


def in_folders(datasets: list[Dataset]) -> dict[str, bytes]:
    """As one writer does that makes a folder of every path, and leaves multipart answers open."""
    found = {f"{instance(one)}/metadata/index.json": json.dumps(metadata(one)).encode() for one in datasets}
    cut = {key: content.rpartition(b"--")[0] for key, content in frames(datasets).items()}
    return found | {f"{key}/index.bin": content for key, content in cut.items()}


def deduplicated(datasets: list[Dataset]) -> dict[str, bytes]:
    """What instances share stands once, one part of it in the list and one in `bulkdata`."""
    shared, moved = ("00100020", "00100040"), ("0020000D", "00080060")
    found = [metadata(dataset) for dataset in datasets]
    patient = {tag: found[0][tag] for tag in shared} | text("00091011", "aa11")
    study = {tag: found[0][tag] for tag in moved} | text("00091011", "bb22cc33")
    rest = [{tag: value for tag, value in one.items() if tag not in (*shared, *moved)} for one in found]
    items = [{**one, **text("00091010", "aa11", "bb22cc33"), **text("00091012", "instance")} for one in rest]
    items.append({**items[0], **text("00080018", "1.9"), **text("00091012", "deleted")})
    listed = [text("00091012", "info"), patient, *items]
    return {
        f"{ROOT}/deduplicated.gz": packed(listed),
        f"{ROOT}/bulkdata/bb2/2c/c33.json.gz": packed(study),
        **frames(datasets),
    }


def text(tag: str, *values: str) -> Json:
    return {tag: {"vr": "LO", "Value": list(values)}}


def bulk(datasets: list[Dataset]) -> dict[str, bytes]:
    """Pixels in `bulkdata`, by an address that no longer leads anywhere but by its path."""
    place = f"https://old.example/dicomweb/{ROOT}/bulkdata/abc/de"
    found = [
        metadata(one, **{"7FE00010": {"vr": "OW", "BulkDataURI": f"{place}/{n}"}}) for n, one in enumerate(datasets)
    ]
    return {f"{ROOT}/metadata": json.dumps(found).encode()} | {
        f"{ROOT}/bulkdata/abc/de/{n}.gz": gzip.compress(one.PixelData) for n, one in enumerate(datasets)
    }


def relative(datasets: list[Dataset]) -> dict[str, bytes]:
    found = bulk(datasets)
    return {
        key: content.replace(f"https://old.example/dicomweb/{ROOT}".encode(), b"../..")
        for key, content in found.items()
    }


FORMS = [by_series, by_instance, in_folders, deduplicated, bulk, relative]


def volume_of(ref: StudyRef) -> Volume:
    with open_study(ref) as objects:
        (series,) = read_series(objects).series
        return read_volume(objects, series)
