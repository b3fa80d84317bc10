"""Chooses the series of a study to read: the axial CT series that shows the spine best. Each other one gets a reason.

A series must pass these rules; the first that it breaks is its reason:
 1. it has pixels, is CT, and shows the patient in HU: it is no localizer, screen capture, reformat or map;
 2. its geometry is known, and its slices are nearly axial (gantry tilt) and evenly spaced;
 3. SpineMet can decode its pixels, and they are lossless if the configuration requires that;
 4. it has enough slices, thin enough, over enough of the patient, and its body part contains a spine.
A series with gaps or several spacings is divided there, and its best stretch must pass the same rules. If the pixels of
the best series turn out to be no CT volume (study.py), the next one is chosen.
Among the series that pass, one without a doubt about its values (not made for attenuation correction, not cone-beam CT)
comes first. Among those, the best has the longest coverage (in steps of COVERAGE_STEP_MM, so that a few more slices
do not decide), then a usual slice thickness, then lossless pixels, then HU of the usual beam (not of one energy), then
ORIGINAL rather than DERIVED pixels, then a soft-tissue kernel, then smaller pixels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from spinemet.config import SelectConfig
from spinemet.dicom.geometry import SliceGrid, arrange, even_runs, normal_of
from spinemet.dicom.headers import CT_CLASSES
from spinemet.dicom.image_kind import DERIVED_TYPES, LOCALIZER_TYPES, SCREEN_TYPES, is_map, is_monoenergetic
from spinemet.errors import Reason, StudyExcluded
from spinemet.types import SeriesHeader

COVERAGE_STEP_MM = 30.0
"""About one vertebra with its disc."""
BODY_PART_COVERAGE_MM = 300.0
"""A longer series shows more than the body part in its header: a trauma or a run-off scan."""
MAX_SIDE = 4096
"""Rows or columns; CT matrices end at 2048."""

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_UNDECODABLE_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (52, 54, 56, 100, 101, 102, 103))
"""Retired arithmetic and hierarchical JPEG, and video: no decoder without the GPL reads them."""


def select_series(
    series: Sequence[SeriesHeader], config: SelectConfig, refused: Mapping[int, Reason] | None = None
) -> SeriesHeader:
    """The series to read, which may be a stretch of one of `series`; refused: as in `explain`.

    Raises StudyExcluded: NO_SERIES if `series` is empty, SEVERAL_STUDIES if the usable ones belong to several studies,
    and with the reason of the series that came closest if none is usable.
    """
    verdicts = explain(series, config, refused)
    if several := _studies(item for item, reason in verdicts if reason is Reason.SEVERAL_STUDIES):
        raise StudyExcluded(
            Reason.SEVERAL_STUDIES, f"expected one study with usable CT, found {several}: give the path of one."
        )
    for item, reason in verdicts:
        if reason is None:
            return item
    reasons = [reason for _, reason in verdicts if reason is not None]
    if not reasons:
        raise StudyExcluded(Reason.NO_SERIES, "expected at least one series, found none.")
    reason = max(reasons, key=list(Reason).index)
    raise StudyExcluded(reason, f"expected one usable axial CT series, found {len(reasons)} series, none usable.")


def explain(
    series: Sequence[SeriesHeader], config: SelectConfig, refused: Mapping[int, Reason] | None = None
) -> tuple[tuple[SeriesHeader, Reason | None], ...]:
    """Every series with the reason against it; None for the chosen one, which may be a stretch of a series.

    None is chosen if the usable ones belong to several studies.
    refused: place in `series` -> reason, for those of which the pixels turned out to be no CT volume.
    """
    judged: list[tuple[SeriesHeader, Reason | None]] = []
    ranks: dict[int, tuple[float, ...]] = {}
    for index, item in enumerate(series):
        if refused and index in refused:
            judged.append((item, refused[index]))
            continue
        verdict, grid = _judge(item, config)
        if verdict is Reason.GAPS:
            parts = [replace(item, instances=run, divided=True) for run in even_runs(item.instances)]
            stretches = [(part, *_judge(part, config)) for part in parts]
            usable = [(_rank(part, grid, config), n) for n, (part, _, grid) in enumerate(stretches) if grid is not None]
            if usable:
                item, verdict, grid = stretches[min(usable)[1]]  # noqa: PLW2901
        judged.append((item, verdict))
        if grid is not None:
            ranks[index] = _rank(item, grid, config)
    # Of equal ranks the first in the order of names, so that the choice is always the same.
    best = min(ranks, key=lambda index: (ranks[index], index), default=None)
    others = Reason.NOT_PREFERRED
    if _studies(judged[index][0] for index in ranks) > 1:
        best, others = None, Reason.SEVERAL_STUDIES
    return tuple(
        (item, others if index in ranks and index != best else reason) for index, (item, reason) in enumerate(judged)
    )


def _studies(series: Iterable[SeriesHeader]) -> int:
    """The number of studies that `series` name."""
    return len({(item.PatientID, item.StudyInstanceUID) for item in series if item.StudyInstanceUID})


def _judge(series: SeriesHeader, config: SelectConfig) -> tuple[Reason | None, SliceGrid | None]:
    """(the reason against a series, None) or (None, its grid)."""
    reason = _reason_in_headers(series, config)
    if reason is not None:
        return reason, None
    try:
        grid = arrange(series.instances)
    except StudyExcluded as problem:
        # A few slices are hardly ever even; that they are few is the better reason.
        few = len(series.instances) < config.min_slices
        return (Reason.TOO_FEW_SLICES if few and problem.reason is Reason.GAPS else problem.reason), None
    if grid.count < config.min_slices:
        return Reason.TOO_FEW_SLICES, None
    if grid.spacing_mm > config.max_spacing_mm * 1.01:
        return Reason.TOO_THICK, None
    if grid.coverage_mm < config.min_coverage_mm:
        return Reason.FIELD_OF_VIEW, None
    if series.BodyPartExamined.upper() in config.skip_body_parts and grid.coverage_mm < BODY_PART_COVERAGE_MM:
        return Reason.BODY_PART, None
    return None, grid


def _reason_in_headers(series: SeriesHeader, config: SelectConfig) -> Reason | None:
    """The reason against a series from its headers alone. Modality, SOP class and ImageType may each be wrong."""
    first = series.instances[0]
    sop_class, image_type = first.SOPClassUID, set(first.ImageType)
    if sop_class.startswith(_SECONDARY_CAPTURE):
        return Reason.SECONDARY_CAPTURE
    if series.Modality != "CT" or (sop_class and sop_class not in CT_CLASSES):
        return Reason.NOT_CT
    if not any(item.has_pixels for item in series.instances):
        return Reason.NO_PIXELS
    if image_type & LOCALIZER_TYPES:
        return Reason.LOCALIZER
    if image_type & SCREEN_TYPES:
        return Reason.SECONDARY_CAPTURE
    if is_map(first):
        return Reason.NOT_HU
    if image_type & DERIVED_TYPES or ({"DERIVED", "SECONDARY"} <= image_type and "AXIAL" not in image_type):
        return Reason.DERIVED
    normal = normal_of(first.ImageOrientationPatient) if first.ImageOrientationPatient else None
    if normal is None or first.PixelSpacing is None:
        return Reason.NO_GEOMETRY
    if math.degrees(math.acos(min(1.0, abs(float(normal[2]))))) > config.max_tilt_degrees:
        return Reason.NOT_AXIAL
    if not (0 < first.Rows <= MAX_SIDE and 0 < first.Columns <= MAX_SIDE):
        return Reason.UNSUPPORTED_PIXELS
    if first.TransferSyntaxUID in _UNDECODABLE_SYNTAXES or (first.NumberOfFrames > 1 and first.frame is None):
        return Reason.UNSUPPORTED_PIXELS
    return Reason.LOSSY if series.lossy and not config.allow_lossy else None


def _rank(series: SeriesHeader, grid: SliceGrid, config: SelectConfig) -> tuple[float, ...]:
    """A sort key: the better series first, by the module's rules."""
    thinnest, thickest = config.usual_spacing_mm
    off_usual = max(0.0, math.log(thinnest / grid.spacing_mm), math.log(grid.spacing_mm / thickest))
    return (
        float(bool(series.doubts)),
        -round(grid.coverage_mm / COVERAGE_STEP_MM),
        round(off_usual, 2),
        float(series.lossy),
        float(is_monoenergetic(series.instances[0])),
        float(series.instances[0].ImageType[:1] == ("DERIVED",)),
        kernel_sharpness(series.ConvolutionKernel),
        grid.pixel_spacing[0],
        -grid.count,
    )


def kernel_sharpness(kernel: str) -> int:
    """0 for a soft-tissue kernel, 1 for an unknown one, 2 for a sharp one (bone, lung, edge).

    Soft kernels keep trabecular HU; sharp ones overshoot at the cortex, which looks like a blastic lesion there.
    Siemens: the number (B30f, Br40, I70f) grows with sharpness. Canon: FC01 to FC29 are soft. GE: words. Philips:
    letters.
    """
    name = kernel.strip().upper()
    if siemens := re.match(r"[A-Z]{1,2}(\d{2})[A-Z]?\b", name):
        return 0 if int(siemens[1]) < (30 if name.startswith("FC") else 50) else 2
    if re.search(r"BONE|LUNG|EDGE|SHARP|ULTRA|DETAIL\+", name) or re.fullmatch(r"(Y?D|YE|E|L|YB)", name):
        return 2
    if re.search(r"SOFT|STANDARD|STND|DETAIL|CHEST|BODY", name) or re.fullmatch(r"[ABC]|UA|UB|YA", name):
        return 0
    return 1
