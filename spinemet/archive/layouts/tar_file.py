"""A tar that is a study: unpacked once, its members kept in memory, because going back means unpacking again."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zlib
from typing import BinaryIO, cast

import pyarrow as pa

from spinemet.archive.layout import Layout
from spinemet.archive.layouts.unpacking import Unpacking, plain_name
from spinemet.archive.objects import StudyObjects, is_ignored
from spinemet.archive.store import open_store
from spinemet.errors import Reason, StudyFailed
from spinemet.types import StudyRef

_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst")


class TarLayout(Layout):
    """A tar file, plain or compressed, wherever it lies."""

    name = "tar"
    is_one_file = True
    part_objects = 1

    def place(self, key: str) -> str | None:
        return key if key[-8:].lower().endswith(_SUFFIXES) else None

    def open(self, ref: StudyRef) -> StudyObjects:
        return TarObjects(ref)


class TarObjects(StudyObjects):
    """The members of a tar."""

    are_near = True

    def __init__(self, ref: StudyRef) -> None:
        self._contents: dict[str, bytes] = {}
        unpacking = Unpacking(ref)
        try:
            with open_store(ref.archive).open(ref.key) as packed:
                stream = _TarStream(_decompressed(packed, ref.key), Unpacking(ref))
                with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
                    for member in archive:
                        unpacking.add(member.name, member.size if member.isfile() else 0)
                        name = plain_name(member.name)
                        if not member.isfile() or is_ignored(name):
                            continue
                        content = archive.extractfile(member)
                        self._contents[name] = content.read() if content else b""
                stream.check_end()
        except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as error:
            raise StudyFailed(Reason.BROKEN_ARCHIVE, "the tar is damaged or cut off.") from error

    def names(self) -> list[str]:
        return sorted(self._contents)

    def size(self, name: str) -> int:
        return len(self._contents[name])

    def read(self, name: str) -> bytes:
        return self._contents[name]

    def head(self, name: str, size: int) -> bytes:
        return self._contents[name][:size]


class _TarStream:
    """A stream that remembers its last block: tarfile accepts a tar that is cut off between two members.

    It also counts the bytes read, because tarfile unpacks extended headers of any size before it names a member.
    """

    def __init__(self, stream: BinaryIO, unpacking: Unpacking) -> None:
        self._stream = stream
        self._tail = b""
        self._unpacking = unpacking

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._unpacking.grow(len(content))
        self._tail = (self._tail + content[-tarfile.BLOCKSIZE :])[-tarfile.BLOCKSIZE :]
        return content

    def check_end(self) -> None:
        """Raise tarfile.ReadError unless the stream, read to its end, ends in the block of zeros that closes a tar."""
        while self.read(1 << 20):
            pass
        if self._tail != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end-of-archive block")


def _decompressed(stream: BinaryIO, key: str) -> BinaryIO:
    # tarfile's own decompressors end without an error if their input is cut off; these raise.
    name = key.lower()
    if name.endswith(".tar.zst"):
        return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd"))
    if name.endswith((".tar.gz", ".tgz")):
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    if name.endswith(".tar.xz"):
        return cast(BinaryIO, lzma.LZMAFile(stream))
    return stream
