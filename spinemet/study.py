"""One study's objects -> selected series -> volume -> vertebrae -> slice stacks.

Training, screening and the single-study command all read studies here, and nowhere else. Knows no Ray, no torch and
no model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from spinemet.archive.listing import open_study
from spinemet.archive.objects import StudyObjects
from spinemet.config import StudyConfig
from spinemet.dicom.decoding import SliceDecoder
from spinemet.dicom.headers import read_series
from spinemet.dicom.segmentation import find_labels
from spinemet.dicom.select import explain, select_series
from spinemet.dicom.volume import read_nifti, read_volume
from spinemet.errors import BadInput, Reason, StudyExcluded, StudyFailed, StudyProblem
from spinemet.spine.canal import straighten
from spinemet.spine.localize import localize
from spinemet.spine.slices import cut_slices
from spinemet.types import Flag, LabelMap, Layout, SeriesChoice, SeriesHeader, State, StudyReading, StudyRef, Volume


class StageClock:
    """Seconds spent in each named stage, in the order in which the stages ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the `with` block to `name`, also when it raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass
class _Found:
    """What is known of a study so far; kept apart from the control flow so that a failure loses none of it."""

    choice: SeriesChoice | None = None
    series_seen: tuple[tuple[SeriesHeader, Reason | None], ...] = ()
    volume: Volume | None = None
    labels: LabelMap | None = None
    flags: tuple[Flag, ...] = ()


def read_study(ref: StudyRef, config: StudyConfig, *, keep_volume: bool = False, views: bool = False) -> StudyReading:
    """The reading of the study at `ref`: its vertebrae with their slice stacks, or why there are none.

    Never raises for what a study holds: a StudyProblem becomes the state `excluded` or `failed` with its reason, and
    an unexpected error becomes `failed: internal` with the error's type (its text could hold an identifier). Raises
    BadInput where the configuration asks for what this installation lacks.

    keep_volume: keep the whole volume in the reading (hundreds of MB). views: also cut the straightened pictures.
    """
    clock, found = StageClock(), _Found()
    try:
        reading = _read(ref, config, found, clock, views=views)
    except StudyProblem as problem:
        state = State.EXCLUDED if isinstance(problem, StudyExcluded) else State.FAILED
        reading = StudyReading(state, problem.reason, problem.detail)
    except BadInput:
        raise
    except MemoryError:
        reading = StudyReading(State.FAILED, Reason.MEMORY_LIMIT, "the study did not fit into the memory allowed.")
    except Exception as error:
        reading = StudyReading(State.FAILED, Reason.INTERNAL, f"unexpected {_where(error)}.")
    volume = found.volume
    return replace(
        reading,
        choice=found.choice,
        series_seen=found.series_seen,
        spacing_mm=volume.spacing_mm if volume else None,
        slice_count=volume.hu_DHW.shape[0] if volume else 0,
        volume=volume if keep_volume else None,
        flags=(*(volume.flags if volume else ()), *found.flags),
        seconds=clock.seconds,
    )


def read_volume_of(ref: StudyRef, config: StudyConfig) -> Volume:
    """The volume that `read_study` would find vertebrae in, alone. Raises StudyProblem where there is none."""
    found = _Found()
    with open_study(ref) as objects:
        _read_volume(ref, objects, config, found, StageClock())
    assert found.volume is not None
    return found.volume


def _read(ref: StudyRef, config: StudyConfig, found: _Found, clock: StageClock, *, views: bool) -> StudyReading:
    with open_study(ref) as objects:
        series = _read_volume(ref, objects, config, found, clock)
        with clock.stage("segmentation"):
            _take_labels(objects, series, config, found)
    volume = found.volume
    assert volume is not None
    with clock.stage("localize"):
        spine = localize(volume, found.labels, config.localizer)
    found.flags = (*found.flags, *spine.flags)
    with clock.stage("slices"):
        stacks = cut_slices(volume, spine, config.slices)
    with clock.stage("views"):
        pictures = straighten(volume, spine.curve) if views else None
    return StudyReading(State.SCREENED, spine=spine, stacks=stacks, views=pictures)


def _read_volume(
    ref: StudyRef, objects: StudyObjects, config: StudyConfig, found: _Found, clock: StageClock
) -> tuple[SeriesHeader, ...]:
    """Fill in the chosen series and its volume; returns every series of the study."""
    if ref.layout is Layout.NIFTI:
        name = PurePosixPath(ref.key).name.split(".")[0]
        header = SeriesHeader("CT", PatientID=name.split("_")[0], StudyInstanceUID=name, SeriesInstanceUID=name)
        found.choice = SeriesChoice(header)
        with clock.stage("volume"):
            found.volume = read_nifti(objects)
        return ()
    with SliceDecoder(objects) as decoder:
        with clock.stage("headers"):
            scan = read_series(objects, decoder.begin)
        found.series_seen = explain(scan.series, config.select)
        if not scan.series:
            raise _nothing_readable(scan.skipped)
        found.choice = select_series(scan.series, config.select)
        with clock.stage("volume"):
            found.volume = read_volume(objects, found.choice.chosen, decoder)
    return scan.series


def _take_labels(objects: StudyObjects, series: tuple[SeriesHeader, ...], config: StudyConfig, found: _Found) -> None:
    """Fill in the study's own label map; under `auto`, an unusable one is flagged and the localizer takes over."""
    if config.localizer not in ("auto", "masks"):
        return
    assert found.choice is not None
    assert found.volume is not None
    try:
        # A NIfTI study has no series; its label map lies beside it and refers to none.
        chosen = found.choice.chosen if series else None
        found.labels = find_labels(objects, series, chosen, found.volume)
    except StudyProblem as problem:
        if config.localizer == "masks":
            raise
        found.flags = (*found.flags, Flag(problem.reason))


def _nothing_readable(skipped: Mapping[Reason, int]) -> StudyProblem:
    if not skipped:
        return StudyExcluded(Reason.EMPTY, "expected DICOM objects, found none.")
    reason = max(skipped, key=lambda key: skipped[key])
    return StudyFailed(reason, f"expected DICOM objects, found {sum(skipped.values())} that could not be used.")


def _where(error: BaseException) -> str:
    """Type, file and line of an error, without its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {PurePosixPath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"
