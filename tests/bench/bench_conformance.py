"""How the reader handles every real conformance case, and how close it comes to a phantom with a known formula.

Real cases go through header, selection and volume as a study does, under a selection that lets short series pass
(SHORT), so that only geometry and decoders decide.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from spinemet.archive.listing import open_study, study_at
from spinemet.config import SelectConfig
from spinemet.dicom.headers import read_series
from spinemet.dicom.segmentation import find_labels
from spinemet.dicom.select import explain, select_series
from spinemet.dicom.values import quiet_readers
from spinemet.dicom.volume import assemble, read_volume
from spinemet.errors import Reason, StudyExcluded, StudyProblem
from spinemet.types import Volume
from tests.bench.figures import Figures, Missing
from tests.conftest import REALCT
from tests.dicom.writer import COLUMN, ROW, formula_error, write_enhanced, write_series

SHORT = SelectConfig(min_slices=3, min_coverage_mm=1.0, max_spacing_mm=20.0, skip_body_parts=())
ANOTHER_SLICE_HU = 300
"""Pixels further than this from the reference slice are another slice's; lossy JPEG with 8 bits is 65 HU off."""
STEP_MM = 3.0
PIXEL_MM = (1.5, 1.25)
"""Of the analytic phantom: between slices; between rows, between columns."""

FOLDERS = (
    ("gantry-tilt/In/GE", "GE head, tilt 18.5 degrees, 4 then 7 mm"),
    ("gantry-tilt/In/Philips/S21570", "Philips localizer, exam summary, dose and patient screens"),
    ("gantry-tilt/In/Philips/S21610/S2010", "Philips head, tilt -18.5 degrees"),
    ("gantry-tilt/In/Philips/S21610/S3010", "Philips head, tilt 16.5 degrees"),
    ("not-a-volume/gantrytilting", "tilt 14 degrees without a tilt tag"),
    ("not-a-volume/notavolume", "tilt and irregular steps"),
    ("not-a-volume/slicecount", "two slices"),
    ("not-a-volume/sliceincrement/001", "missing slices"),
    ("not-a-volume/sliceincrement/002", "missing slices"),
    ("not-a-volume/sliceorientation", "orientations mixed"),
    ("oblique", "oblique, 3.5 x 2.5 mm pixels, slope 0.001"),
    ("segmentation/ct-3slice", "three slices"),
    ("segmentation/24x38x3/image", "three slices"),
    ("segmentation/24x38x3/multiframe", "Legacy Converted Enhanced CT"),
)


def run() -> Figures:
    """Three parts in one table: the analytic phantom, the folders, the transfer syntaxes."""
    if not REALCT.is_dir():
        raise Missing("real CT is not on this machine")
    figures = Figures(
        "Conformance of the reader",
        ("case", "what it is", "outcome"),
        "phantom: largest distance from its formula away from borders, and from its affine at the corners of the grid",
    )
    with tempfile.TemporaryDirectory() as folder, quiet_readers():
        for case, what, error_hu, error_mm, volume in phantoms(Path(folder)):
            found = f"{error_hu:.2f} HU, {error_mm:.4f} mm"
            figures.add(case, what, ", ".join([found, *(f"`{flag}`" for flag in volume.flags)]))
        for case, what in FOLDERS:
            figures.add(case, what, outcome(REALCT / "conformance" / case))
        for case, what, words in segmentations():
            figures.add(case, what, words)
        for case, what, words in syntaxes(Path(folder)):
            figures.add(case, what, words)
    return figures


# ---- the analytic phantom ------------------------------------------------------------------------------------


def phantoms(place: Path) -> list[tuple[str, str, float, float, Volume]]:
    """(case, what, largest HU error, largest affine error in mm, volume) of each form of the analytic phantom."""
    tilt = np.deg2rad(20)
    turned = np.array([[0.9, 0.3, 0.316228], [-0.3, 0.95, -0.05], [0.0, 0.0, 1.0]])
    axes = np.linalg.qr(turned.T)[0].T * np.array([[-1.0], [-1.0], [1.0]])
    axes[2] = np.cross(axes[0], axes[1])
    tilted = {sign: (0.0, float(np.cos(tilt)), sign * float(np.sin(tilt))) for sign in (1, -1)}
    large = {"shape": (40, 48)}  # holds the drift of 20 slices
    forms: list[tuple[str, str, dict[str, Any]]] = [
        ("phantom, axial", "3 x 1.5 x 1.25 mm", {}),
        ("phantom, tilted", "gantry 20 degrees", {"column": tilted[1], **large}),
        ("phantom, tilted", "gantry -20 degrees", {"column": tilted[-1], **large}),
        ("phantom, sheared", "drift along rows and columns", {"step": (0.7, -0.4, STEP_MM), **large}),
        ("phantom, oblique", "no axis along the patient's", {"row": axes[0], "column": axes[1], "step": axes[2] * 2}),
        ("phantom, one gap", "one of 20 slices missing", {"places": [n for n in range(20) if n != 7]}),
        ("phantom, large gap", "four of 24 slices missing", {"places": [*range(15), *range(19, 24)]}),
        ("phantom, fractional", "rescale slope 0.5", {"slope": 0.5}),
    ]
    results = []
    for number, (case, what, form) in enumerate(forms):
        files = write_series(place / str(number), **form)
        results.append((case, what, *_measured(place / str(number), form)))
        if case == "phantom, axial":
            write_enhanced(place / "enhanced", files)
            results.append(("phantom, Enhanced", "one multi-frame object", *_measured(place / "enhanced", form)))
    return results


def _measured(folder: Path, form: dict[str, Any]) -> tuple[float, float, Volume]:
    volume, _ = _volume(folder)
    return formula_error(volume.hu_DHW, volume.affine), _affine_error_mm(volume, form), volume


def _affine_error_mm(volume: Volume, form: dict[str, Any]) -> float:
    """Largest distance from the true affine at the grid's corners. The origin may be any voxel of the written grid."""
    row, column = np.asarray(form.get("row", ROW)), np.asarray(form.get("column", COLUMN))
    normal = np.cross(row, column)
    spacing = float(np.dot(form.get("step", (0.0, 0.0, STEP_MM)), normal))
    axes = np.stack([normal * spacing, column * PIXEL_MM[0], row * PIXEL_MM[1]], axis=1)
    written = np.array([-20.0, -30.0, -40.0])
    start = np.rint(np.linalg.solve(axes, volume.affine[:3, 3] - written))
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in volume.hu_DHW.shape])).reshape(3, -1).T
    return float(np.abs(volume.to_lps(corners) - (written + (corners + start) @ axes.T)).max())


# ---- real cases ----------------------------------------------------------------------------------------------


def _volume(place: Path) -> tuple[Volume, Reason | None]:
    """The volume of the case, and why a study would reject it: this benchmark reads its geometry all the same if it is
    derived, or if its pixels were replaced when it was published."""
    with open_study(study_at(place)) as objects:
        series = read_series(objects).series
        chosen = series[0]
        try:
            chosen = select_series(series, SHORT)
            return read_volume(objects, chosen), None
        except StudyExcluded as problem:
            if problem.reason not in {Reason.DERIVED, Reason.NOT_HU}:
                raise
            return assemble(objects, chosen), problem.reason


def outcome(place: Path) -> str:
    """The volume in words, or the reason for none. Then the reasons why further series were rejected."""
    words = []
    try:
        volume, reason = _volume(place)
        words += [f"`{reason}`, read for its geometry"] * (reason is not None) + [_in_words(volume)]
    except StudyProblem as problem:
        words.append(f"no volume: `{problem.reason.value}`")
    with open_study(study_at(place)) as objects:
        others = [str(reason) for _, reason in explain(read_series(objects).series, SHORT) if reason is not None]
    if len(others) > 1:
        words.append("other series: " + ", ".join(f"`{each}`" for each in sorted(set(others))))
    return "; ".join(words)


def _in_words(volume: Volume) -> str:
    shape = " x ".join(map(str, volume.hu_DHW.shape))
    spacing = " x ".join(f"{each:.3g}" for each in volume.spacing_mm)
    return ", ".join([f"{shape} at {spacing} mm", *(f"`{flag}`" for flag in volume.flags)])


def segmentations() -> list[tuple[str, str, str]]:
    """DICOM SEG objects beside the CT that they belong to. None of them names a vertebra."""
    place = REALCT / "conformance" / "segmentation"
    rows = []
    for name in ("liver.dcm", "partial_overlaps.dcm", "sparse-labelmap-ppv5.dcm"):
        with tempfile.TemporaryDirectory() as folder:
            for path in (*(place / "ct-3slice").iterdir(), place / name):
                (Path(folder) / path.name).write_bytes(path.read_bytes())
            with open_study(study_at(folder)) as objects:
                series = read_series(objects).series
                chosen = select_series(series, SHORT)
                try:
                    labels = find_labels(objects, series, chosen, read_volume(objects, chosen))
                    words = "read; no segment is a vertebra" if labels is None else "read"
                except StudyProblem as problem:
                    words = f"`{problem.reason.value}`"
        rows.append((f"segmentation/{name}", "DICOM SEG", words))
    return rows


def syntaxes(place: Path) -> list[tuple[str, str, str]]:
    """Every object of the folder as a series of slices that differ only in their position."""
    folder = REALCT / "conformance" / "transfer-syntaxes"
    reference = _pixels(place / "reference", folder / "CTImage.dcm")
    rows = []
    for number, path in enumerate(sorted(path for path in folder.iterdir() if path.name != "LICENSE")):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        syntax = dataset.file_meta.TransferSyntaxUID
        name = path.name.removeprefix("CTImage.dcm_").split("_1.2.840")[0]
        try:
            hu = _pixels(place / f"syntax-{number}", path)
            same = hu.shape == reference.shape
            off = np.abs(hu.astype(np.int64) - reference).max() if same else None
            is_other = off is None or off > ANOTHER_SLICE_HU
            words = (
                f"another slice, {hu.shape[1]} x {hu.shape[2]}, read" if is_other else f"lossy, at most {off} HU off"
            )
            words = "equal to the bit" if off == 0 else words
        except StudyProblem as problem:
            words = f"no volume: `{problem.reason.value}`"
        rows.append((f"transfer-syntaxes/{name}", str(syntax.name), words))
    return rows


def _pixels(place: Path, path: Path) -> npt.NDArray[np.generic]:
    """HU of three slices with the pixels of the object at `path`."""
    place.mkdir()
    for number in range(3):
        dataset = pydicom.dcmread(path)
        if "ImagePositionPatient" in dataset:
            dataset.ImagePositionPatient[2] += 5 * number
        dataset.save_as(place / str(number))
    return _volume(place)[0].hu_DHW
