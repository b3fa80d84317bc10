"""The store below an archive, local or S3: every object listed in the order of the keys, any object read.

An object or folder that cannot be listed or read stops nothing: it is counted, and the study it belongs to fails alone.
"""

import abc
import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from spinemet import files
from spinemet.archive.objects import is_ignored
from spinemet.errors import BadInput, Reason, StudyFailed, plain_cause
from spinemet.types import ObjectRef

STUDY_DEPTH = 2
"""Folders below the archive's root that name a study: patient and study, as TCIA and most exports lay them."""
_OF_ONE_OBJECT = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EIO}
"""Errors of a file system that concern one file; others (a network drive that went away) concern all of them."""


class Unlisted(StrEnum):
    """What a listing had to leave out, in the words that a run prints before their number."""

    FOLDER = "folders without access"
    VANISHED = "folders that vanished during the listing"
    FILE = "files without access"
    NAME = "files and folders whose names are not UTF-8"
    TWIN = "NIfTI files beside another of the same volume"


class ObjectLost(StudyFailed):
    """One object cannot be read (no permission, deleted, damaged); the store itself answers."""


def unreachable(error: Exception, *, is_lost: bool) -> StudyFailed:
    """The error of an object that cannot be read; its own text is left out, because it may hold a patient's name."""
    kind = ObjectLost if is_lost else StudyFailed
    return kind(Reason.UNREACHABLE, f"an object could not be read from the store ({plain_cause(error)}).")


class Store(abc.ABC):
    """The objects of one archive.

    archive: its normalised URI. unlisted: counts what the listing had to leave out. is_near: rereading is free.
    """

    is_near: bool

    def __init__(self, archive: str) -> None:
        self.archive = archive
        self.unlisted: Counter[Unlisted] = Counter()

    def objects(self, below: str = "") -> Iterator[ObjectRef]:
        """Every object that may belong to a study and whose key starts with `below`, in key order, page by page.

        Raises BadInput if the archive is missing or its root cannot be listed.
        """
        return _without_markers(item for item in self._listed(below) if not is_ignored(item.key))

    @abc.abstractmethod
    def _listed(self, below: str) -> Iterator[ObjectRef]:
        """All objects whose key starts with `below` ("" or a folder with its slash), sorted by key."""

    @abc.abstractmethod
    def folder(self, key: str) -> list[ObjectRef]:
        """The objects directly in the folder `key`; empty if there is no such folder."""

    @abc.abstractmethod
    def stat(self, key: str) -> ObjectRef:
        """The object at `key`. Raises BadInput if it does not exist."""

    @abc.abstractmethod
    def read(self, key: str, size: int | None = None) -> bytes:
        """The first `size` bytes of an object, or all. Raises StudyFailed, as ObjectLost if it alone cannot be read."""

    @abc.abstractmethod
    def open(self, key: str) -> BinaryIO:
        """A whole object as a seekable stream. Raises as `read`."""


def open_store(archive: str) -> Store:
    """The store of an archive: a local folder or an `s3://` prefix."""
    if files.is_s3(archive):
        from spinemet.archive.s3 import S3Store

        return S3Store(archive)
    return LocalStore(archive)


class LocalStore(Store):
    """A folder. Plain files: obstore's local store forbids names that file systems allow, and is no faster here."""

    is_near = True

    def _listed(self, below: str) -> Iterator[ObjectRef]:
        root = Path(self.archive, below)
        if not root.is_dir():
            raise BadInput(f"expected a folder at {root}, found none.")
        yield from self._walk(root, below, (os.path.realpath(root),), is_root=True)

    def _walk(self, folder: Path, prefix: str, above: tuple[str, ...], *, is_root: bool = False) -> Iterator[ObjectRef]:
        """The files below `folder` in the order S3 would list them; links are followed, but never in a circle."""
        try:
            with os.scandir(folder) as entries:
                found = [(entry.name + "/" * _is_folder(entry), entry) for entry in entries]
        except OSError as error:
            if is_root:
                raise BadInput(f"the folder {folder} cannot be listed: {error.strerror}.") from error
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                self.unlisted[Unlisted.VANISHED] += 1
            else:
                self.unlisted[Unlisted.FOLDER] += 1
                if prefix.count("/") >= STUDY_DEPTH:
                    yield ObjectRef(prefix, 0)  # an object that nobody can read: its study fails as unreachable
            return
        for name, entry in sorted(found, key=lambda pair: os.fsencode(pair[0])):
            if not (name.isascii() or _is_unicode(name)):
                self.unlisted[Unlisted.NAME] += 1
            elif not name.endswith("/"):
                yield from self._file(entry, prefix + name)
            elif not is_ignored(name[:-1]):
                real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
                if real not in above:
                    yield from self._walk(Path(entry.path), prefix + name, (*above, real))

    def _file(self, entry: os.DirEntry[str], key: str) -> Iterator[ObjectRef]:
        try:
            if entry.is_file():
                status = entry.stat()
                yield ObjectRef(key, status.st_size, status.st_mtime)
        except OSError as error:
            # Deleted since the folder was read, or a link that leads nowhere.
            if error.errno not in {errno.ENOENT, errno.ELOOP} and not is_ignored(key):
                self.unlisted[Unlisted.FILE] += 1
                yield ObjectRef(key, 0)  # reading it fails, and its study with it

    def folder(self, key: str) -> list[ObjectRef]:
        prefix = f"{key}/" if key else ""
        try:
            with os.scandir(Path(self.archive, key)) as entries:
                found = [item for entry in entries for item in self._file(entry, prefix + entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError:
            self.unlisted[Unlisted.FOLDER] += 1
            return []
        return sorted((item for item in found if _is_unicode(item.key)), key=lambda item: item.key)

    def stat(self, key: str) -> ObjectRef:
        path = Path(self.archive, key)
        try:
            status = path.stat()
        except OSError as error:
            raise BadInput(f"no study can be read at {path}: {error.strerror}.") from error
        return ObjectRef(key, status.st_size, status.st_mtime)

    def read(self, key: str, size: int | None = None) -> bytes:
        with self.open(key) as stream:
            try:
                return stream.read(-1 if size is None else size)
            except OSError as error:
                raise unreachable(error, is_lost=error.errno in _OF_ONE_OBJECT) from error

    def open(self, key: str) -> BinaryIO:
        try:
            return Path(self.archive, key).open("rb")
        except OSError as error:
            raise unreachable(error, is_lost=error.errno in _OF_ONE_OBJECT) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder without permission
        return False


def _is_unicode(name: str) -> bool:
    try:
        return bool(name.encode()) or True
    except UnicodeEncodeError:
        return False


def _without_markers(listed: Iterable[ObjectRef]) -> Iterator[ObjectRef]:
    """`listed` without the empty objects that S3 consoles write to stand for a folder: others lie "below" them.

    Keys may lie between a marker and what lies below it: `s`, `s-old/1`, `s/1`.
    """
    empty: list[ObjectRef] = []
    for item in listed:
        if empty:
            waiting, empty = empty, []
            for one in waiting:
                if item.key > f"{one.key}/":
                    if not item.key.startswith(f"{one.key}/"):
                        yield one
                else:
                    empty.append(one)
        if item.size:
            yield item
        else:
            empty.append(item)
    yield from empty
