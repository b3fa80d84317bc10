"""The objects of one open study: their names, their first bytes and their whole content; reads that overlap."""

import abc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import islice
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

from spinemet.types import StudyRef

MEMBER_LIMIT = 2 << 30
"""Bytes of one object; DICOM pixel data end at 4 GiB, CT objects stay far below 2."""


class StudyObjects(AbstractContextManager["StudyObjects"]):
    """The objects of one study, readable while the context is open.

    Raises StudyFailed(UNREACHABLE) if the store does not answer or an object has vanished since it was listed, and
    StudyFailed(BROKEN_ARCHIVE) if a zip or tar cannot be unpacked. are_near: rereading is free, in any thread.
    """

    are_near = False

    def __init__(self, ref: StudyRef) -> None:
        """Open the study at `ref`."""

    @abc.abstractmethod
    def names(self) -> list[str]:
        """The names of all objects, sorted; without hidden files and DICOMDIR."""

    @abc.abstractmethod
    def size(self, name: str) -> int:
        """Bytes of the whole object."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """The whole object."""

    @abc.abstractmethod
    def head(self, name: str, size: int) -> bytes:
        """The first `size` bytes of the object, or all of a shorter one."""

    def take_fetched(self, name: str) -> bytes | None:
        """The whole object if it was fetched together with its head; it is handed out once, then forgotten."""
        return None

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """(name, whole object) in the order of `names`."""
        return ((name, self.read(name)) for name in names)

    def heads(self, names: Iterable[str], size: int) -> Iterator[tuple[str, bytes]]:
        """(name, first `size` bytes), in the order in which they arrive."""
        return ((name, self.head(name, size)) for name in names)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release open files and threads."""


def is_ignored(name: str) -> bool:
    """True for names that never hold a study's object: hidden files and folders, DICOMDIR, litter of systems."""
    parts = name.split("/")
    return any(part == "__MACOSX" or (part[:1] == "." and part not in {".", ".."}) for part in parts) or parts[
        -1
    ].upper() in {"DICOMDIR", "THUMBS.DB", "DESKTOP.INI"}


# ---- reads that overlap -------------------------------------------------------------------------------------


K = TypeVar("K")
T = TypeVar("T")

READ_AHEAD = 32


def in_order(
    pool: ThreadPoolExecutor, read: Callable[[K], T], names: Iterable[K], ahead: int = READ_AHEAD
) -> Iterator[tuple[K, T]]:
    """(name, read(name)) in the order of `names`, with up to `ahead` reads running or waiting to be taken."""
    rest = iter(names)
    waiting: deque[tuple[K, Future[T]]] = deque((name, pool.submit(read, name)) for name in islice(rest, ahead))
    while waiting:
        name, future = waiting.popleft()
        yield name, future.result()
        for name in islice(rest, 1):
            waiting.append((name, pool.submit(read, name)))


def as_they_come(pool: ThreadPoolExecutor, read: Callable[[str], T], names: Iterable[str]) -> Iterator[tuple[str, T]]:
    """(name, read(name)) like `in_order`, but in the order in which the reads end."""

    def named(name: str) -> tuple[str, T]:
        return name, read(name)

    rest, done, left = iter(names), SimpleQueue[Future[tuple[str, T]]](), 0
    while True:
        for name in islice(rest, READ_AHEAD - left):
            pool.submit(named, name).add_done_callback(done.put)
            left += 1
        if not left:
            return
        left -= 1
        yield done.get().result()
