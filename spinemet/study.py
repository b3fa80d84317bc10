"""Reads one study: its objects -> selected series -> volume -> vertebrae -> slice stacks.

Training, screening and `spinemet study` all read studies through this module. It does not use Ray, torch or a model.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from spinemet.archive.layouts.nifti import NiftiObjects
from spinemet.archive.listing import open_study
from spinemet.archive.objects import StudyObjects
from spinemet.config import StudyConfig
from spinemet.dicom.decoding import SliceDecoder
from spinemet.dicom.headers import CT_CLASSES, SeriesScan, read_series
from spinemet.dicom.segmentation import find_labels
from spinemet.dicom.select import explain, select_series
from spinemet.dicom.volume import read_nifti, read_volume
from spinemet.errors import BadInput, BrokenSlices, Reason, StudyExcluded, StudyFailed, StudyProblem, fault_in
from spinemet.reading import NotScreened, Screened, State, StudyReading
from spinemet.spine.canal import straighten
from spinemet.spine.localize import localize
from spinemet.spine.slices import cut_slices
from spinemet.types import Flag, LabelMap, SeriesHeader, StudyRef, Volume


class _Facts:
    """The facts known so far, kept apart from the control flow so that a failure loses none of them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.known = NotScreened(State.FAILED, Reason.INTERNAL, seconds=self.seconds)

    def note(self, **more: Any) -> None:
        """Add facts, by the fields of a NotScreened."""
        self.known = replace(self.known, **more)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the `with` block to the seconds of the stage `name`, also if the block raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def read_study(ref: StudyRef, config: StudyConfig, *, views: bool = False) -> StudyReading:
    """The reading of the study at `ref`: its vertebrae with their slice stacks, or the reason why it has none.

    A problem with the study is part of the result: a StudyProblem becomes the state `excluded` or `failed` with its
    reason, an unexpected error becomes `failed: internal` with its place (its text could hold an identifier).
    Raises BadInput if the configuration needs something that is not installed.

    views: also cut the straightened pictures.
    """
    facts = _Facts()
    try:
        return _read(ref, config, facts, views=views)
    except StudyProblem as problem:
        facts.note(
            state=State.EXCLUDED if isinstance(problem, StudyExcluded) else State.FAILED,
            reason=problem.reason,
            detail=problem.detail,
        )
    except BadInput:
        raise
    except MemoryError:
        facts.note(reason=Reason.MEMORY_LIMIT, detail="the study needs more memory than the limit.")
    except Exception as error:
        facts.note(detail=fault_in(error))
    return facts.known


def read_volume_of(ref: StudyRef, config: StudyConfig) -> Volume:
    """The volume in which `read_study` would look for vertebrae. Raises StudyProblem if the study has none."""
    with open_study(ref) as objects:
        return _read_series(objects, config, _Facts()).volume


def _read(ref: StudyRef, config: StudyConfig, facts: _Facts, *, views: bool) -> Screened:
    with open_study(ref) as objects:
        series = _read_series(objects, config, facts)
        with facts.stage("segmentation"):
            labels = _find_labels(objects, series, config, facts)
    volume = series.volume
    with facts.stage("localize"):
        spine = localize(volume, labels, config.localizer)
    facts.note(flags=facts.known.flags + spine.flags)
    with facts.stage("slices"):
        stacks = cut_slices(volume, spine, config.slices)
    with facts.stage("views"):
        pictures = straighten(volume, spine.curve) if views else None
    return Screened(
        chosen=series.chosen,
        spacing_mm=volume.spacing_mm,
        slice_count=volume.hu_DHW.shape[0],
        spine=spine,
        stacks=stacks,
        views=pictures,
        series_seen=facts.known.series_seen,
        flags=facts.known.flags,
        seconds=facts.seconds,
    )


@dataclass(frozen=True)
class _Series:
    """The series that is read. all: every series of the study; empty for a NIfTI volume, which has none."""

    chosen: SeriesHeader
    volume: Volume
    all: tuple[SeriesHeader, ...] = ()


def _read_series(objects: StudyObjects, config: StudyConfig, facts: _Facts) -> _Series:
    """The chosen series with its volume; also noted in `facts`."""
    if isinstance(objects, NiftiObjects):
        study = objects.study
        chosen = SeriesHeader("CT", PatientID=objects.patient, StudyInstanceUID=study, SeriesInstanceUID=study)
        facts.note(chosen=chosen)
        with facts.stage("volume"):
            volume = read_nifti(objects)
        series: tuple[SeriesHeader, ...] = ()
    else:
        with SliceDecoder(objects) as decoder:
            with facts.stage("headers"):
                scan = read_series(objects, decoder.begin)
            series = scan.series
            if not series:
                raise _nothing_readable(scan.skipped)
            chosen, volume = _first_readable(objects, series, config, decoder, facts)
            if _has_broken(scan) and Flag.BROKEN_OBJECTS not in volume.flags:
                volume = replace(volume, flags=(*volume.flags, Flag.BROKEN_OBJECTS))
    facts.note(spacing_mm=volume.spacing_mm, slice_count=volume.hu_DHW.shape[0], flags=volume.flags)
    return _Series(chosen, volume, series)


def _first_readable(
    objects: StudyObjects, series: Sequence[SeriesHeader], config: StudyConfig, decoder: SliceDecoder, facts: _Facts
) -> tuple[SeriesHeader, Volume]:
    """The best series whose pixels are a CT volume, without its broken slices.

    Raises the problem of the best one if none is.
    """
    series = list(series)
    refused: dict[int, StudyProblem] = {}
    first: tuple[int, StudyProblem] | None = None
    flags: set[Flag] = set()
    while True:
        reasons = {number: problem.reason for number, problem in refused.items()}
        verdicts = explain(series, config.select, reasons)
        facts.note(series_seen=verdicts)
        best = next((number for number, (_, reason) in enumerate(verdicts) if reason is None), None)
        try:
            chosen = select_series(series, config.select, reasons)
        except StudyExcluded as problem:
            if first is None or problem.reason is Reason.SEVERAL_STUDIES:
                raise
            facts.note(chosen=verdicts[first[0]][0])
            raise first[1] from None
        assert best is not None
        facts.note(chosen=chosen)
        try:
            with facts.stage("volume"):
                volume = read_volume(objects, chosen, decoder)
        except BrokenSlices as problem:
            first = first or (best, problem)
            whole = _without_broken(series[best], chosen, problem)
            if whole.instances:
                series[best] = whole
                flags.add(Flag.BROKEN_OBJECTS)
            else:
                refused[best] = problem
        except StudyExcluded as problem:
            first = first or (best, problem)
            refused[best] = problem
        else:
            chosen = replace(chosen, left_out=volume.left_out)  # also objects found equal by their pixels
            facts.note(chosen=chosen)
            if refused:
                flags.add(Flag.SERIES_REFUSED)
            return chosen, replace(volume, flags=(*volume.flags, *sorted(flags)))


def _has_broken(scan: SeriesScan) -> bool:
    """Whether an object is broken off in its header, and may be a slice of the chosen series."""
    cut_off = (item for one in scan.series for item in one.instances if not item.has_pixels)
    skipped = scan.skipped.keys() & {Reason.TRUNCATED, Reason.UNDECODABLE}
    # Also if the SOPClassUID itself is broken off.
    return bool(skipped) or any(known.startswith(item.SOPClassUID) for item in cut_off for known in CT_CLASSES)


def _without_broken(series: SeriesHeader, chosen: SeriesHeader, problem: BrokenSlices) -> SeriesHeader:
    """`series` without the broken slices of `chosen`, which is the series or a stretch of it."""
    broken = {(chosen.instances[n].name, chosen.instances[n].frame) for n in problem.broken}
    whole = tuple(item for item in series.instances if (item.name, item.frame) not in broken)
    return replace(series, instances=whole, left_out=series.left_out + len(series.instances) - len(whole))


def _find_labels(objects: StudyObjects, series: _Series, config: StudyConfig, facts: _Facts) -> LabelMap | None:
    """The study's own label map; under `auto`, an unusable one is flagged and the localizer takes over."""
    if config.localizer not in ("auto", "masks"):
        return None
    try:
        return find_labels(objects, series.all, series.chosen, series.volume)
    except StudyProblem as problem:
        if config.localizer == "masks":
            raise
        facts.note(flags=(*facts.known.flags, Flag(problem.reason)))
        return None


def _nothing_readable(skipped: Mapping[Reason, int]) -> StudyProblem:
    if not skipped:
        return StudyExcluded(Reason.EMPTY, "expected DICOM objects, found none.")
    reason = max(skipped, key=lambda key: skipped[key])
    return StudyFailed(reason, f"expected DICOM objects, found {sum(skipped.values())} that could not be used.")
