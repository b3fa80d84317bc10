"""The objects of one study: their names, their first bytes, and their whole content.

Reads of a prefix go out up to READ_THREADS at a time, so that the round trips to an object store overlap (overlap.py);
few objects wait in memory, and those of a small remote study until they are read. A zip is fetched once and unpacked
member by member. A tar is decompressed once and its members stay in memory for the study, because going back means
decompressing again.
"""

from __future__ import annotations

import abc
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import obstore
import pyarrow as pa
from obstore.exceptions import BaseError

from spinemet import files
from spinemet.archive.read_ahead import as_they_come, in_order
from spinemet.errors import Reason, StudyFailed
from spinemet.types import Layout, StudyRef

READ_THREADS = 16
KEPT_LIMIT = 256 << 20
"""Bytes of a remote study, about that of one series, whose objects are fetched whole at once and kept until they are
read: a second request for each costs more than the bytes of what is not chosen."""
UNPACKED_LIMIT = 8 << 30
"""Bytes that one zip or tar may unpack to; the largest CT studies have about 4 GiB. More is taken for a zip bomb."""
MEMBER_LIMIT = 2 << 30
"""Bytes that one member may unpack to; DICOM pixel data end at 4 GiB, CT objects far below 2."""
MEMBERS_LIMIT = 50_000
"""Objects in one zip or tar; the largest studies have some 10,000."""
RATIO_LIMIT = 200
"""Unpacked by packed bytes; CT gives 2 to 4, a blank 16-bit slice about 1,000. Counts from RATIO_FROM bytes on."""
RATIO_FROM = 64 << 20
ZIP_END_BYTES = (64 << 10) + 200
"""The end record of a zip with the longest comment, and zip64's two records before it."""
DIRECTORY_LIMIT = 32 << 20
"""Bytes of a zip's directory: MEMBERS_LIMIT entries with the longest usual names."""


class StudyObjects(AbstractContextManager["StudyObjects"]):
    """The objects of one study, readable while the context is open.

    Raises StudyFailed(UNREACHABLE) where the store does not answer or an object has vanished since it was listed, and
    StudyFailed(BROKEN_ARCHIVE) where a zip or tar cannot be unpacked. are_near: whether to read an object again, in
    whatever thread, takes neither a request nor unpacking.
    """

    are_near = False

    @abc.abstractmethod
    def names(self) -> list[str]:
        """The names of all objects, sorted; hidden files and DICOMDIR are left out."""

    @abc.abstractmethod
    def size(self, name: str) -> int:
        """Bytes of the whole object."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """The whole object."""

    @abc.abstractmethod
    def head(self, name: str, size: int) -> bytes:
        """The first `size` bytes of the object, or all of it where it is shorter."""

    def take_fetched(self, name: str) -> bytes | None:
        """The whole object where it was fetched with its head and waits to be read, which it then no longer does."""
        return None

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """(name, whole object) in the order of `names`."""
        return ((name, self.read(name)) for name in names)

    def heads(self, names: Iterable[str], size: int) -> Iterator[tuple[str, bytes]]:
        """(name, first `size` bytes) as they come."""
        return ((name, self.head(name, size)) for name in names)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release what is held open."""


def open_objects(ref: StudyRef) -> StudyObjects:
    """The objects of the study at `ref`; use it as a context manager. Raises StudyFailed as StudyObjects does."""
    if ref.layout is Layout.ZIP:
        return _ZipObjects(ref)
    if ref.layout is Layout.TAR:
        return _TarObjects(ref)
    return _PrefixObjects(ref)


def is_ignored(name: str) -> bool:
    """True for what is never a study's object: hidden files and folders, DICOMDIR, what operating systems leave."""
    parts = name.split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1].upper() in {
        "DICOMDIR",
        "THUMBS.DB",
        "DESKTOP.INI",
    }


class _PrefixObjects(StudyObjects):
    def __init__(self, ref: StudyRef) -> None:
        self._sizes = {item.key: item.size for item in ref.objects}
        self._read_range = _reader(ref.archive)
        self.are_near = not files.is_s3(ref.archive)
        self._keeps = not self.are_near and ref.size <= KEPT_LIMIT
        self._kept: dict[str, bytes] = {}
        self._pool = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="spinemet-read")

    def names(self) -> list[str]:
        return sorted(self._sizes)

    def size(self, name: str) -> int:
        return self._sizes[name]

    def read(self, name: str) -> bytes:
        if self._sizes[name] > MEMBER_LIMIT:
            raise StudyFailed(Reason.MEMORY_LIMIT, f"expected objects of at most {MEMBER_LIMIT >> 30} GiB, found more.")
        kept = self.take_fetched(name)
        return self._read_range(name, None) if kept is None else kept

    def take_fetched(self, name: str) -> bytes | None:
        return self._kept.pop(name, None)

    def head(self, name: str, size: int) -> bytes:
        if size >= self._sizes[name]:
            return self.read(name)
        if not self._keeps:
            return self._read_range(name, size)
        content = self._kept[name] = self.read(name)
        return content[:size]

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        return in_order(self._pool, self.read, names)

    def heads(self, names: Iterable[str], size: int) -> Iterator[tuple[str, bytes]]:
        return as_they_come(self._pool, lambda name: self.head(name, size), names)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class _ZipObjects(StudyObjects):
    def __init__(self, ref: StudyRef) -> None:
        packed = _open_whole(ref)
        _check_directory(packed)
        try:
            self._zip = zipfile.ZipFile(packed)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise StudyFailed(Reason.BROKEN_ARCHIVE, "expected a readable zip, found a broken one.") from error
        unpacked = _Unpacked(ref.size)
        self._sizes: dict[str, int] = {}
        for info in self._zip.infolist():
            # As it is written: zipfile mends a name with a NUL or a backslash, and then it is no longer suspect.
            unpacked.add(info.orig_filename, info.file_size)
            if not info.is_dir() and not is_ignored(info.filename):
                self._sizes[info.filename] = info.file_size

    def names(self) -> list[str]:
        return sorted(self._sizes)

    def size(self, name: str) -> int:
        return self._sizes[name]

    def read(self, name: str) -> bytes:
        return self.head(name, self._sizes[name])

    def head(self, name: str, size: int) -> bytes:
        # zipfile stops at the member's declared size, so a lying size cannot unpack to more than was checked.
        try:
            with self._zip.open(name) as member:
                return member.read(size)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
            raise StudyFailed(Reason.BROKEN_ARCHIVE, "expected a readable zip member, found a broken one.") from error
        except RuntimeError as error:  # NotImplementedError is one
            raise StudyFailed(
                Reason.BROKEN_ARCHIVE, "expected a plain zip member, found an encrypted or unknown one."
            ) from error

    def __exit__(self, *_: object) -> None:
        self._zip.close()


class _TarObjects(StudyObjects):
    are_near = True

    def __init__(self, ref: StudyRef) -> None:
        self._contents: dict[str, bytes] = {}
        unpacked = _Unpacked(ref.size)
        try:
            with _open_whole(ref) as packed:
                stream = _TarStream(_decompressed(packed, ref.key), ref.size)
                with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
                    for member in archive:
                        unpacked.add(member.name, member.size if member.isfile() else 0)
                        if not member.isfile() or is_ignored(member.name.removeprefix("./")):
                            continue
                        content = archive.extractfile(member)
                        self._contents[member.name] = content.read() if content else b""
                stream.check_end()
        except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as error:
            raise StudyFailed(Reason.BROKEN_ARCHIVE, "expected a readable tar, found a broken one.") from error

    def names(self) -> list[str]:
        return sorted(self._contents)

    def size(self, name: str) -> int:
        return len(self._contents[name])

    def read(self, name: str) -> bytes:
        return self._contents[name]

    def head(self, name: str, size: int) -> bytes:
        return self._contents[name][:size]


def head_reader(archive: str) -> Callable[[str, int], bytes]:
    """A function (key, size) -> the first bytes of an object below `archive`; it raises StudyFailed(UNREACHABLE)."""
    return _reader(archive)


def _reader(archive: str) -> Callable[[str, int | None], bytes]:
    """A function (key, bytes or None for all) -> content, for objects below `archive`."""
    if not files.is_s3(archive):
        # Plain files: obstore's local store forbids names that file systems allow, and is no faster here.
        root = Path(archive)

        def read_file(key: str, size: int | None) -> bytes:
            try:
                with (root / key).open("rb") as stream:
                    return stream.read(-1 if size is None else size)
            except OSError as error:
                raise StudyFailed(Reason.UNREACHABLE, f"expected a readable object, found {_what(error)}.") from error

        return read_file
    store = files.open_store(archive)

    def read_object(key: str, size: int | None) -> bytes:
        try:
            if size is None:
                return bytes(obstore.get(store, key).bytes())
            return bytes(obstore.get_range(store, key, start=0, length=size))
        except (BaseError, OSError) as error:
            raise StudyFailed(Reason.UNREACHABLE, f"expected a readable object, found {_what(error)}.") from error

    return read_object


def _what(error: Exception) -> str:
    # The error's own text names the object key, which may hold a patient's name.
    return type(error).__name__


def _open_whole(ref: StudyRef) -> BinaryIO:
    """The study's single file: opened where it is local, fetched where it is not."""
    if ref.size > UNPACKED_LIMIT:
        raise StudyFailed(Reason.MEMORY_LIMIT, f"expected at most {UNPACKED_LIMIT >> 30} GiB in a file, found more.")
    if files.is_s3(ref.archive):
        return io.BytesIO(_reader(ref.archive)(ref.key, None))
    try:
        return (Path(ref.archive) / ref.key).open("rb")
    except OSError as error:
        raise StudyFailed(Reason.UNREACHABLE, f"expected a readable object, found {_what(error)}.") from error


class _TarStream:
    """A stream that remembers its last block: tarfile takes a tar that is cut off between members for a whole one.

    It also counts what is read of it, because tarfile unpacks extended headers of any size before it names a member.
    """

    def __init__(self, stream: BinaryIO, packed: int) -> None:
        self._stream = stream
        self._tail = b""
        self._unpacked = _Unpacked(packed)

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._unpacked.grow(len(content))
        self._tail = (self._tail + content[-tarfile.BLOCKSIZE :])[-tarfile.BLOCKSIZE :]
        return content

    def check_end(self) -> None:
        """Raise tarfile.ReadError unless the stream, read to its end, ends in the block of zeros that closes a tar."""
        while self.read(1 << 20):
            pass
        if self._tail != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end-of-archive block")


def _decompressed(stream: BinaryIO, key: str) -> BinaryIO:
    # tarfile's own decompressors end in silence where their input is cut off; these raise.
    name = key.lower()
    if name.endswith(".tar.zst"):
        return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd"))
    if name.endswith((".tar.gz", ".tgz")):
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    if name.endswith(".tar.xz"):
        return cast(BinaryIO, lzma.LZMAFile(stream))
    return stream


class _Unpacked:
    """What a zip or tar says it unpacks to, member by member, before anything is unpacked.

    Raises StudyFailed: MEMORY_LIMIT (more than any CT study holds), UNSAFE_ARCHIVE (too many members, a ratio that no
    image has, names that lead out of the archive). Nothing is ever written to disk; such names are no scanner's.
    """

    def __init__(self, packed: int) -> None:
        self._packed = packed
        self._members = 0
        self._total = 0

    def add(self, name: str, size: int) -> None:
        """Take one member into account."""
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or name[:1] in {"/", "\\"} or name[1:2] == ":" or "\0" in name:
            raise StudyFailed(
                Reason.UNSAFE_ARCHIVE, "expected members inside the archive, found a name that leads out."
            )
        self._members += 1
        if self._members > MEMBERS_LIMIT:
            raise StudyFailed(Reason.UNSAFE_ARCHIVE, f"expected at most {MEMBERS_LIMIT} members, found more.")
        if size > MEMBER_LIMIT:
            raise StudyFailed(Reason.MEMORY_LIMIT, f"expected members of at most {MEMBER_LIMIT >> 30} GiB, found more.")
        self.grow(size)

    def grow(self, size: int) -> None:
        """Take `size` more unpacked bytes into account."""
        self._total += size
        if self._total > UNPACKED_LIMIT:
            raise StudyFailed(
                Reason.MEMORY_LIMIT, f"expected at most {UNPACKED_LIMIT >> 30} GiB in an archive, found more."
            )
        if self._total > RATIO_FROM and self._total > RATIO_LIMIT * self._packed:
            raise StudyFailed(
                Reason.UNSAFE_ARCHIVE, f"expected to unpack at most {RATIO_LIMIT} times the archive, found more."
            )


def _check_directory(packed: BinaryIO) -> None:
    """Refuse a zip whose directory is larger than DIRECTORY_LIMIT: zipfile would hold all of it as objects."""
    end = packed.seek(0, io.SEEK_END)
    packed.seek(max(0, end - ZIP_END_BYTES))
    tail = packed.read()
    packed.seek(0)
    found = tail.rfind(b"PK\5\6")
    size = int.from_bytes(tail[found + 12 : found + 16], "little") if found >= 0 else 0
    wide = tail.rfind(b"PK\6\6")
    if size == 0xFFFFFFFF and wide >= 0:  # zip64
        size = int.from_bytes(tail[wide + 40 : wide + 48], "little")
    if size > DIRECTORY_LIMIT:
        raise StudyFailed(Reason.UNSAFE_ARCHIVE, f"expected at most {MEMBERS_LIMIT} members, found a larger directory.")
