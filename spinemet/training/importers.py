"""Label tables out of public data sets, with those labels only that a set states."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd
import pydicom
from pydicom.errors import InvalidDicomError

from spinemet.anatomy import LEVEL_INDEX, LEVELS, VERSE_LEVELS, level_in, may_be_vertebra
from spinemet.archive.layouts.nifti import identity
from spinemet.errors import BadInput
from spinemet.files import write_bytes
from spinemet.types import BONE_QUALITY

COLUMNS = ["patient", "study", "series", "level", "bone_quality", "posterolateral"]

INVALID_CASES = frozenset({"13627", "13977"})
"""Cases of Spine-Mets-CT-SEG whose segmentation does not belong to their CT; other users of the set drop them too."""

LESION_COLUMNS = ("Blastic", "Lytic", "Mixed")
_ALL_LESIONS = "Vertebrae with Lesions"
_LEVEL = r"([CTLS])\s?(\d{1,2})"
_RANGE = re.compile(rf"{_LEVEL}\s*(?:-|–|to)\s*([CTLS])?\s?(\d{{1,2}})", re.IGNORECASE)
_ONE = re.compile(_LEVEL, re.IGNORECASE)
_FILLER = re.compile(r"[\s,;.&/+()\-–]|\b(?:and|none|no|nan|n/a|vertebrae?)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Import:
    """A label table for `labels.read_labels`, and counts of what could not be used: what -> how often."""

    table: pd.DataFrame
    left_out: dict[str, int]

    def write(self, uri: str) -> None:
        """Write the table as CSV to `uri`, local or s3://."""
        write_bytes(uri, self.table.to_csv(index=False).encode())

    def __str__(self) -> str:
        words = self.table["bone_quality"].replace("", "no label yet").value_counts()
        counts = ", ".join(f"{count} {word}" for word, count in words.items())
        lines = [f"{len(self.table)} vertebrae of {self.table['patient'].nunique()} patients: {counts}"]
        return "\n".join(lines + [f"left out: {count} {what}" for what, count in sorted(self.left_out.items())])


# ---- Spine-Mets-CT-SEG ----------------------------------------------------------------------------------------


def import_spine_mets(folder: Path) -> Import:
    """The bone quality of every vertebra that a segmentation of TCIA's Spine-Mets-CT-SEG in `folder` names.

    The lesions are listed in the second sheet of the set's spreadsheet (.xlsx, in `folder` or one folder below). A
    vertebra in no list is normal; one in both the blastic and the lytic list is mixed. A lesion without a stated kind
    gives no row. If a list holds words that are not levels, they may mean any vertebra: then vertebrae in no list give
    no row either. A segmentation belongs to the CT series with its FrameOfReferenceUID. The set does not label
    posterolateral involvement. Raises BadInput if spreadsheet or segmentations are missing or have another form.
    """
    cases = _read_cases(_spreadsheet(folder))
    left_out: Counter[str] = Counter()
    rows = []
    for one in _segmented_studies(folder):
        case = cases.get(one.patient)
        if one.patient in INVALID_CASES or case is None:
            left_out["segmented studies " + ("of invalid cases" if case else "without a row in the spreadsheet")] += 1
            continue
        if one.unknown:
            left_out["segments that look like vertebrae of no known level"] += one.unknown
        for level in sorted(one.levels, key=LEVELS.index):
            word = case.bone_quality(level)
            if word:
                rows.append([one.patient, one.study, one.series, level, word, ""])
            else:
                left_out["vertebrae whose lesion is of no stated kind"] += 1
    if not rows:
        raise BadInput(f"expected vertebra segmentations of the spreadsheet's cases in {folder}, found none.")
    seen = {row[0] for row in rows} | INVALID_CASES
    if missing := sum(case not in seen for case in cases):
        left_out["cases of the spreadsheet without a segmentation"] = missing
    table = pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(COLUMNS[:4])
    return Import(table.sort_values(COLUMNS[:3], kind="stable", ignore_index=True), dict(left_out))


@dataclass(frozen=True)
class _Case:
    """A row of the spreadsheet: the levels listed in each column; plain if the columns hold nothing but levels."""

    listed: dict[str, frozenset[str]]
    plain: bool

    def bone_quality(self, level: str) -> str:
        """One of BONE_QUALITY, "" if the row does not decide it."""
        blastic, lytic, mixed, any_kind = (level in self.listed[name] for name in (*LESION_COLUMNS, _ALL_LESIONS))
        if mixed or (blastic and lytic):
            return "mixed"
        if blastic or lytic:
            return "blastic" if blastic else "lytic"
        return "" if any_kind or not self.plain else BONE_QUALITY[0]


def levels_in(text: str) -> tuple[frozenset[str], bool]:
    """The levels listed in free text (`T1, T2 T3`, `T10-L1`), and whether it contains nothing else."""
    found: set[str] = set()

    def take_range(match: re.Match[str]) -> str:
        first = f"{match[1].upper()}{int(match[2])}"
        last = f"{(match[3] or match[1]).upper()}{int(match[4])}"
        if first not in LEVEL_INDEX or last not in LEVEL_INDEX:
            return f"{match[0]} ?"
        cranial, caudal = sorted((LEVEL_INDEX[first], LEVEL_INDEX[last]))
        usual = LEVELS[cranial : caudal + 1]
        found.update(level for level in usual if level not in {"T13", "L6"} - {first, last})
        return " "

    def take_one(match: re.Match[str]) -> str:
        found.add(f"{match[1].upper()}{int(match[2])}")
        return " "

    rest = _ONE.sub(take_one, _RANGE.sub(take_range, text))
    return frozenset(found), not _FILLER.sub("", rest)


def _spreadsheet(folder: Path) -> Path:
    found = sorted(path for pattern in ("*.xlsx", "*/*.xlsx") for path in folder.glob(pattern))
    if len(found) != 1:
        raise BadInput(f"expected one spreadsheet (.xlsx) in {folder} or one folder below, found {len(found)}.")
    return found[0]


def _read_cases(path: Path) -> dict[str, _Case]:
    """Case (the PatientID) -> its row of the second sheet."""
    try:
        sheet = pd.read_excel(path, sheet_name=1, dtype=str, keep_default_na=False, engine="openpyxl")
    except (ValueError, OSError, KeyError, IndexError, BadZipFile) as error:
        raise BadInput(f"expected an Excel workbook with two sheets at {path}, found another file.") from error
    sheet.columns = [" ".join(str(name).split()) for name in sheet.columns]
    for name in ("Case", _ALL_LESIONS, *LESION_COLUMNS):
        if name not in sheet.columns:
            raise BadInput(f"{path}: expected a column {name} in the second sheet, found {', '.join(sheet.columns)}.")
    cases = {}
    for _, row in sheet[sheet["Case"].str.strip() != ""].iterrows():
        listed = {name: levels_in(str(row[name])) for name in (*LESION_COLUMNS, _ALL_LESIONS)}
        plain = all(is_plain for _, is_plain in listed.values())
        levels = {name: levels for name, (levels, _) in listed.items()}
        cases[str(row["Case"]).strip().removesuffix(".0")] = _Case(levels, plain)
    return cases


@dataclass
class _SegmentedStudy:
    """A study and the levels that its segmentations name; `series` is the CT that they were drawn on, "" if unknown."""

    patient: str
    study: str
    series: str = ""
    frames: set[str] = field(default_factory=set)
    levels: set[str] = field(default_factory=set)
    unknown: int = 0
    """Segments that look like vertebrae, but whose names are no known level."""


def _segmented_studies(folder: Path) -> Iterator[_SegmentedStudy]:
    """The studies below `folder` that hold a vertebra segmentation, in the order of their names."""
    studies: dict[tuple[str, str], _SegmentedStudy] = {}
    ct_series: list[tuple[str, str, str]] = []
    for header in _one_header_per_series(folder):
        key = (str(header.get("PatientID", "")).strip(), str(header.get("StudyInstanceUID", "")))
        frame = str(header.get("FrameOfReferenceUID", ""))
        if header.get("Modality") == "CT":
            ct_series.append((key[1], frame, str(header.get("SeriesInstanceUID", ""))))
        elif header.get("Modality") == "SEG":
            one = studies.setdefault(key, _SegmentedStudy(*key))
            one.frames.add(frame)
            for segment in header.get("SegmentSequence") or ():
                name = str(segment.get("SegmentLabel", ""))
                one.levels.update(filter(None, [level_in(name)]))
                one.unknown += may_be_vertebra(name)
    for _, one in sorted(studies.items()):
        drawn_on = {series for study, frame, series in ct_series if study == one.study and frame in one.frames}
        one.series = drawn_on.pop() if len(drawn_on) == 1 else ""
        yield one


def _one_header_per_series(folder: Path) -> Iterable[pydicom.Dataset]:
    """The header of the first DICOM object of every folder; in this set, a folder is a series."""
    for place in sorted({path.parent for path in folder.rglob("*.dcm")}):
        try:
            yield pydicom.dcmread(min(place.glob("*.dcm")), stop_before_pixels=True)
        except (InvalidDicomError, EOFError, ValueError, OSError) as error:
            raise BadInput(f"expected DICOM objects in {folder}, found a file that is none or is broken.") from error


# ---- VerSe ----------------------------------------------------------------------------------------------------


def import_verse(folder: Path) -> Import:
    """A row without labels for every vertebra that VerSe in `folder` names; VerSe does not label metastases.

    Levels come from the centroid files (`derivatives/…_ctd.json`) beside each `rawdata/…_ct.nii.gz`. Raises BadInput
    if there is no such pair, or a centroid file has another form.
    """
    rows: list[list[str]] = []
    left_out: Counter[str] = Counter()
    for volume in sorted(path for path in folder.rglob("*_ct.nii.gz") if "rawdata" in path.relative_to(folder).parts):
        levels = [level for path in _centroid_files(volume) for level in _centroid_levels(path)]
        if not levels:
            left_out["volumes without centroids"] += 1
        patient, study = identity(str(folder), volume.relative_to(folder).as_posix())
        rows += [[patient, study, study, level, "", ""] for level in sorted(set(levels), key=LEVELS.index)]
    if not rows:
        raise BadInput(f"expected VerSe (rawdata/…_ct.nii.gz, derivatives/…_ctd.json) in {folder}, found none.")
    return Import(pd.DataFrame(rows, columns=COLUMNS), dict(left_out))


def _centroid_files(volume: Path) -> list[Path]:
    """The centroid files in `derivatives` with the same entities as the volume in `rawdata`, apart from `seg-…`."""
    parts = list(volume.parent.parts)
    place = len(parts) - 1 - parts[::-1].index("rawdata")
    derivatives = Path(*parts[:place], "derivatives", *parts[place + 1 :])
    expected = volume.name.removesuffix("_ct.nii.gz").split("_")

    def entities(path: Path) -> list[str]:
        return [part for part in path.name.removesuffix("_ctd.json").split("_") if not part.startswith("seg-")]

    return sorted(path for path in derivatives.glob("*_ctd.json") if entities(path) == expected)


def _centroid_levels(path: Path) -> list[str]:
    try:
        entries = [entry for entry in json.loads(path.read_text()) if "label" in entry]
        return [VERSE_LEVELS[int(entry["label"])] for entry in entries if int(entry["label"]) in VERSE_LEVELS]
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"expected VerSe's centroids (a list with labels) in {path.name}, found another.") from error
