"""Reads the studies that tests write."""

from __future__ import annotations

from pathlib import Path

from spinemet.archive.listing import open_study, study_at
from spinemet.dicom.headers import SeriesScan, read_series
from spinemet.dicom.volume import read_volume
from spinemet.types import Volume


def scan(place: Path) -> SeriesScan:
    with open_study(study_at(place)) as objects:
        return read_series(objects)


def read(place: Path, index: int = 0) -> Volume:
    with open_study(study_at(place)) as objects:
        return read_volume(objects, read_series(objects).series[index])
