"""A folder of DICOM objects.

Keys suggest `patient/study`; headers have the last word (spinemet/archive/grouping.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from spinemet.archive.grouping import PREFIX
from spinemet.archive.layout import Layout
from spinemet.archive.objects import MEMBER_LIMIT, StudyObjects, as_they_come, in_order
from spinemet.archive.store import STUDY_DEPTH, Store, open_store
from spinemet.errors import Reason, StudyFailed
from spinemet.types import ObjectRef, StudyRef

READ_THREADS = 16
KEPT_LIMIT = 256 << 20
"""Bytes of a remote study, about those of one series, whose objects are fetched whole at once and kept until they are
read: a second request for each costs more than the bytes of the series that are not chosen."""
_DOCUMENTS = (".csv", ".tsv", ".json", ".txt", ".md", ".xlsx", ".xls", ".pdf", ".html", ".xml", ".toml", ".png", ".jpg")


def are_documents(objects: Iterable[ObjectRef]) -> bool:
    """True if all are documents by their names (`labels.csv`, `README.md`)."""
    return all(item.key.lower().endswith(_DOCUMENTS) for item in objects)


class PooledObjects(StudyObjects):
    """Up to READ_THREADS reads at a time, so that the round trips to a store overlap; few objects wait in memory."""

    def __init__(self, ref: StudyRef) -> None:
        self._pool = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="spinemet-read")

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        return in_order(self._pool, self.read, names)

    def heads(self, names: Iterable[str], size: int) -> Iterator[tuple[str, bytes]]:
        return as_they_come(self._pool, lambda name: self.head(name, size), names)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class FolderObjects(PooledObjects):
    """Objects that lie in the store one by one; those of a small remote study wait in memory until they are read."""

    def __init__(self, ref: StudyRef) -> None:
        super().__init__(ref)
        self._sizes = {item.key: item.size for item in ref.objects}
        self._store = open_store(ref.archive)
        self.are_near = self._store.is_near
        self._keeps = not self.are_near and ref.size <= KEPT_LIMIT
        self._kept: dict[str, bytes] = {}

    def names(self) -> list[str]:
        return sorted(self._sizes)

    def size(self, name: str) -> int:
        return self._sizes[name]

    def read(self, name: str) -> bytes:
        if self._sizes[name] > MEMBER_LIMIT:
            raise StudyFailed(Reason.MEMORY_LIMIT, f"an object is larger than {MEMBER_LIMIT >> 30} GiB.")
        kept = self.take_fetched(name)
        return self._store.read(name) if kept is None else kept

    def take_fetched(self, name: str) -> bytes | None:
        return self._kept.pop(name, None)

    def head(self, name: str, size: int) -> bytes:
        if size >= self._sizes[name]:
            return self.read(name)
        if not self._keeps:
            return self._store.read(name, size)
        content = self._kept[name] = self.read(name)
        return content[:size]


class FolderLayout(Layout):
    """Objects below `patient/study`, or wherever else they lie."""

    name = PREFIX
    objects = FolderObjects

    def place(self, key: str) -> str:
        return "/".join(key.split("/")[:-1][:STUDY_DEPTH])

    def studies(self, store: Store, place: str, objects: Sequence[ObjectRef]) -> Iterator[StudyRef]:
        yield StudyRef(store.archive, place, self.name, tuple(objects))
