"""The slices of a series from a study's objects, decoded in several threads and taken in order.

While headers are read the cores wait: for an object store, from which a small study's objects are fetched whole then
(storage/objects.py), or for the one thread that parses. A SliceDecoder that is told of each header as it comes begins
meanwhile to decode the first series that looks like a CT volume; where another series is chosen in the end, what was
decoded is dropped and the rest of it left. From a folder it does so for JPEG 2000 alone, which gains a twentieth:
JPEG-LS, at 5 ms a slice, gained nothing and took a twentieth more CPU: it shares a lock with the thread that parses.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType

import pydicom
from pydicom.dataset import Dataset

from spinemet.archive.objects import StudyObjects
from spinemet.dicom.headers import ENHANCED_CT
from spinemet.dicom.pixels import PixelArray, is_compressed, is_slow, quick_hu, slice_hu
from spinemet.dicom.values import quiet_dicom
from spinemet.errors import Reason, StudyFailed
from spinemet.types import InstanceHeader, SeriesHeader


class SliceDecoder(AbstractContextManager["SliceDecoder"]):
    """Decodes slices of the open study `objects` in decoding_threads() threads."""

    def __init__(self, objects: StudyObjects) -> None:
        self._objects = objects
        self._threads = decoding_threads()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="spinemet-decode")
        self._ahead: dict[str, Future[PixelArray | None]] = {}
        self._ahead_of: str | None = None

    def begin(self, instance: InstanceHeader, series: SeriesHeader) -> None:
        """Decode this slice ahead where it is worth it and its object has been fetched or can be read at no cost."""
        if self._ahead_of not in {None, series.SeriesInstanceUID} or not _is_worth_it(instance, series):
            return
        content = self._objects.take_fetched(instance.name)
        if content is not None or (self._objects.are_near and is_slow(instance)):
            self._ahead_of = series.SeriesInstanceUID
            self._ahead[instance.name] = self._pool.submit(self._quick_hu, instance, content)

    def slices(self, instances: Sequence[InstanceHeader]) -> Iterator[PixelArray]:
        """HU of each slice, in order; no more than two slices per thread wait besides those begun already.

        An Enhanced object is fetched once for all its frames. Raises what slice_hu and StudyObjects raise.
        """
        with quiet_dicom():
            waiting: deque[tuple[str, Future[PixelArray | None]]] = deque()
            for begun in self._begun(instances):
                waiting.append(begun)
                if len(waiting) > 2 * self._threads:
                    yield self._result(*waiting.popleft())
            while waiting:
                yield self._result(*waiting.popleft())

    def _begun(self, instances: Sequence[InstanceHeader]) -> Iterator[tuple[str, Future[PixelArray | None]]]:
        if instances[0].SOPClassUID in ENHANCED_CT:
            datasets = {name: _dataset(self._objects.read(name)) for name in {item.name for item in instances}}
            for item in instances:
                yield item.name, self._pool.submit(slice_hu, datasets[item.name], item.frame or 0)
            return
        self._drop_ahead({item.name for item in instances})
        # A list: read_many asks for names later, when those that were begun have been taken away.
        contents = self._objects.read_many([item.name for item in instances if item.name not in self._ahead])
        for item in instances:
            if item.name in self._ahead:
                yield item.name, self._ahead.pop(item.name)
            else:
                name, content = next(contents)
                if name != item.name:
                    raise AssertionError("expected the objects in the order of the slices")
                yield name, self._pool.submit(_classic_hu, item, content)

    def _drop_ahead(self, wanted: set[str]) -> None:
        """Forget what is not wanted, and what has not begun where that costs nothing: in order it takes less memory."""
        for name, future in list(self._ahead.items()):
            # What is not wanted is cancelled too, or it would be decoded first.
            is_cancelled = (name not in wanted or self._objects.are_near) and future.cancel()
            if is_cancelled or name not in wanted:
                del self._ahead[name]

    def _quick_hu(self, instance: InstanceHeader, content: bytes | None) -> PixelArray | None:
        return quick_hu(self._objects.read(instance.name) if content is None else content, instance)

    def _result(self, name: str, future: Future[PixelArray | None]) -> PixelArray:
        hu_HW = future.result()
        # What does not decode ahead takes a whole parse, which says why; its bytes were not kept for that.
        return slice_hu(_dataset(self._objects.read(name)), None) if hu_HW is None else hu_HW

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def decoding_threads() -> int:
    """As many as OMP_NUM_THREADS says, which Ray sets to its task's share of the CPUs; without it one per core."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_worth_it(instance: InstanceHeader, series: SeriesHeader) -> bool:
    """Whether a slice may belong to a CT volume and takes milliseconds to decode."""
    return (
        series.Modality == "CT"
        and instance.ImagePositionPatient is not None
        and instance.NumberOfFrames == 1
        and "LOCALIZER" not in instance.ImageType
        and is_compressed(instance)
    )


def _classic_hu(instance: InstanceHeader, content: bytes) -> PixelArray:
    quick = quick_hu(content, instance)
    return slice_hu(_dataset(content), None) if quick is None else quick


def _dataset(content: bytes) -> Dataset:
    try:
        return pydicom.dcmread(io.BytesIO(content), force=True)
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises whatever the bytes provoke
        raise StudyFailed(Reason.TRUNCATED, "expected a readable DICOM object, found a broken one.") from error
