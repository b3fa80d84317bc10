"""Decodes the slices of a series in several threads and hands them over in order.

While headers are read the cores are idle: they wait for an object store, which then sends a small study's objects whole
(archive/objects.py), or for the one thread that parses. So a SliceDecoder may see each header as it comes and decode
the first series that looks like a CT volume ahead of the selection. If the selection chooses another series, the
slices decoded ahead are dropped. From a folder only JPEG 2000 is decoded ahead, which saves 5 % of the time. JPEG-LS
(5 ms a slice) gained nothing and took 5 % more CPU, because it competes with the parsing thread for Python's lock.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from spinemet.archive.objects import StudyObjects
from spinemet.dicom.headers import ENHANCED_CT
from spinemet.dicom.pixels import DECODERS, JPEG_2000, PixelArray, quick_hu, slice_hu
from spinemet.dicom.values import quiet_readers, transfer_syntax
from spinemet.errors import Reason, StudyFailed
from spinemet.machine import usable_cores
from spinemet.types import InstanceHeader, SeriesHeader

_BROKEN = {Reason.TRUNCATED, Reason.UNDECODABLE}
"""Of one object alone: a copy of it may be whole."""


class SliceDecoder(AbstractContextManager["SliceDecoder"]):
    """Decodes slices of the open study `objects` in decoding_threads() threads."""

    def __init__(self, objects: StudyObjects) -> None:
        self._objects = objects
        self._threads = decoding_threads()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="spinemet-decode")
        self._ahead: dict[str, Future[PixelArray | None]] = {}
        self._ahead_of: str | None = None
        self._parsed: dict[str, Dataset | StudyFailed] = {}

    def begin(self, instance: InstanceHeader, series: SeriesHeader) -> None:
        """Decode this slice ahead if that saves time, and its object was fetched already or is free to read."""
        may_be_ct_volume = (
            series.Modality == "CT"
            and instance.ImagePositionPatient is not None
            and instance.NumberOfFrames == 1
            and "LOCALIZER" not in instance.ImageType
        )
        # Decoding takes milliseconds only if the pixels are compressed.
        is_compressed = instance.TransferSyntaxUID in DECODERS
        if not (may_be_ct_volume and is_compressed) or self._ahead_of not in {None, series.SeriesInstanceUID}:
            return
        content = self._objects.take_fetched(instance.name)
        if content is not None or (self._objects.are_near and instance.TransferSyntaxUID in JPEG_2000):
            self._ahead_of = series.SeriesInstanceUID
            self._ahead[instance.name] = self._pool.submit(self._quick_hu, instance, content)

    def slices(self, instances: Sequence[InstanceHeader]) -> Iterator[PixelArray | StudyFailed]:
        """HU of each slice, in order; the failure (TRUNCATED, UNDECODABLE) of one of which no copy can be decoded.

        At most two slices per thread wait in memory, besides those decoded ahead. An Enhanced object is fetched once
        for all its frames. Raises what slice_hu and StudyObjects raise besides.
        """
        with quiet_readers():
            waiting: deque[tuple[InstanceHeader, Future[PixelArray | None]]] = deque()
            for submitted in self._submitted(instances):
                waiting.append(submitted)
                if len(waiting) > 2 * self._threads:
                    yield self._result(*waiting.popleft())
            while waiting:
                yield self._result(*waiting.popleft())

    def _submitted(
        self, instances: Sequence[InstanceHeader]
    ) -> Iterator[tuple[InstanceHeader, Future[PixelArray | None]]]:
        if instances[0].SOPClassUID in ENHANCED_CT:
            for item in instances:
                yield item, self._pool.submit(_frame_hu, self._enhanced(item.name), item.frame or 0)
            return
        self._drop_ahead({item.name for item in instances})
        # A list, because read_many takes the names one by one while the loop below empties self._ahead.
        contents = self._objects.read_many([item.name for item in instances if item.name not in self._ahead])
        for item in instances:
            if item.name in self._ahead:
                yield item, self._ahead.pop(item.name)
            else:
                name, content = next(contents)
                assert name == item.name
                yield item, self._pool.submit(_classic_hu, item, content)

    def _enhanced(self, name: str) -> Dataset | StudyFailed:
        if name not in self._parsed:
            try:
                self._parsed[name] = _dataset(self._objects.read(name))
            except StudyFailed as problem:
                if problem.reason not in _BROKEN:
                    raise
                self._parsed[name] = problem
        return self._parsed[name]

    def _drop_ahead(self, chosen: set[str]) -> None:
        """Forget the slices that were not chosen, and those not yet begun if their objects are free to read again.

        The latter are decoded later in order, which takes less memory.
        """
        for name, future in list(self._ahead.items()):
            # Cancelled even if not chosen: the threads would otherwise decode it first.
            is_cancelled = (name not in chosen or self._objects.are_near) and future.cancel()
            if is_cancelled or name not in chosen:
                del self._ahead[name]

    def _quick_hu(self, instance: InstanceHeader, content: bytes | None) -> PixelArray | None:
        return quick_hu(self._objects.read(instance.name) if content is None else content, instance)

    def _result(self, item: InstanceHeader, future: Future[PixelArray | None]) -> PixelArray | StudyFailed:
        try:
            hu_HW = future.result()
            # If decoding ahead failed the object is read and parsed whole, which also finds out what is wrong.
            return slice_hu(_dataset(self._objects.read(item.name)), None) if hu_HW is None else hu_HW
        except StudyFailed as problem:
            if problem.reason not in _BROKEN:
                raise
            for copy in item.copies:
                with suppress(StudyFailed):
                    return self._copied(copy)
            return problem

    def _copied(self, copy: InstanceHeader) -> PixelArray:
        if copy.frame is not None:
            return _frame_hu(self._enhanced(copy.name), copy.frame)
        return _classic_hu(copy, self._objects.read(copy.name))

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def decoding_threads() -> int:
    """OMP_NUM_THREADS, which Ray sets to its task's share of the CPUs; one per core if it is not set."""
    share = os.environ.get("OMP_NUM_THREADS", "")
    if share.isdigit() and int(share) > 0:
        return int(share)
    return usable_cores()


def _frame_hu(dataset: Dataset | StudyFailed, frame: int) -> PixelArray:
    if isinstance(dataset, StudyFailed):
        raise dataset
    return slice_hu(dataset, frame)


def _classic_hu(instance: InstanceHeader, content: bytes) -> PixelArray:
    quick = quick_hu(content, instance)
    return slice_hu(_dataset(content), None) if quick is None else quick


def _dataset(content: bytes) -> Dataset:
    try:
        dataset = pydicom.dcmread(io.BytesIO(content), force=True)
        dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax(dataset))  # old files have no meta information
        return dataset
    except MemoryError:
        raise
    except Exception as error:  # broken bytes make pydicom raise any kind of error
        raise StudyFailed(Reason.TRUNCATED, "expected a readable DICOM object, found a broken one.") from error
