"""A zip or a tar that is a study. Nothing is ever written to disk.

A zip is fetched once and unpacked member by member. A tar is unpacked once and its members are kept in memory, because
going back means unpacking again.
"""

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from typing import BinaryIO, cast

import pyarrow as pa

from spinemet.archive.layout import Layout
from spinemet.archive.objects import MEMBER_LIMIT, StudyObjects, is_ignored
from spinemet.archive.store import open_store
from spinemet.errors import Reason, StudyFailed
from spinemet.types import StudyRef

UNPACKED_LIMIT = 8 << 30
"""Bytes that one zip or tar may unpack to; the largest CT studies have about 4 GiB. More is taken for a zip bomb."""
MEMBERS_LIMIT = 50_000
"""Objects in one zip or tar; the largest studies have some 10,000."""
RATIO_LIMIT = 200
"""Unpacked by packed bytes; CT gives 2 to 4, a blank 16-bit slice about 1,000. Counts from RATIO_FROM bytes on."""
RATIO_FROM = 64 << 20
END_BYTES = (64 << 10) + 200
"""The end record of a zip with the longest comment, and zip64's two records before it."""
DIRECTORY_LIMIT = 32 << 20
"""Bytes of a zip's directory: MEMBERS_LIMIT entries with the longest usual names."""


class Unpacking:
    """Counts what a zip or tar unpacks to, member by member before it is unpacked.

    Raises StudyFailed: MEMORY_LIMIT (more than any CT study holds), UNSAFE_ARCHIVE (too many members, a ratio that no
    image has, names that lead out of the archive).
    """

    def __init__(self, ref: StudyRef) -> None:
        if ref.size > UNPACKED_LIMIT:
            raise StudyFailed(Reason.MEMORY_LIMIT, f"the file is larger than {UNPACKED_LIMIT >> 30} GiB.")
        self._packed = ref.size
        self._members = 0
        self._total = 0

    def add(self, name: str, size: int) -> None:
        """Count one member, by its name as the container stores it."""
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or name[:1] in {"/", "\\"} or name[1:2] == ":" or "\0" in name:
            raise StudyFailed(Reason.UNSAFE_ARCHIVE, "a member's name leads out of the archive.")
        self._members += 1
        if self._members > MEMBERS_LIMIT:
            raise StudyFailed(Reason.UNSAFE_ARCHIVE, f"the archive has more than {MEMBERS_LIMIT} members.")
        if size > MEMBER_LIMIT:
            raise StudyFailed(Reason.MEMORY_LIMIT, f"a member unpacks to more than {MEMBER_LIMIT >> 30} GiB.")
        self.grow(size)

    def grow(self, size: int) -> None:
        """Count `size` more unpacked bytes."""
        self._total += size
        if self._total > UNPACKED_LIMIT:
            raise StudyFailed(Reason.MEMORY_LIMIT, f"the archive unpacks to more than {UNPACKED_LIMIT >> 30} GiB.")
        if self._total > RATIO_FROM and self._total > RATIO_LIMIT * self._packed:
            raise StudyFailed(Reason.UNSAFE_ARCHIVE, f"the archive unpacks to more than {RATIO_LIMIT} times its size.")


def plain_name(name: str) -> str:
    """A member's name without `./`, double slashes and backslashes, so that every container names a member alike."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in {"", "."})


# ---- zip -----------------------------------------------------------------------------------------------------


class ZipObjects(StudyObjects):
    """The members of a zip."""

    def __init__(self, ref: StudyRef) -> None:
        unpacking = Unpacking(ref)
        packed = open_store(ref.archive).open(ref.key)
        _check_directory(packed)
        try:
            self._zip = zipfile.ZipFile(packed)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise StudyFailed(Reason.BROKEN_ARCHIVE, "the zip is damaged or cut off.") from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            # The name as stored: zipfile repairs NULs and backslashes, which hides that a name leads out.
            unpacking.add(info.orig_filename, info.file_size)
            name = plain_name(info.filename)
            if not info.is_dir() and not is_ignored(name):
                self._members[name] = info

    def names(self) -> list[str]:
        return sorted(self._members)

    def size(self, name: str) -> int:
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        return self.head(name, self.size(name))

    def head(self, name: str, size: int) -> bytes:
        # zipfile stops at the member's declared size, so a wrong size cannot unpack to more than was checked.
        try:
            with self._zip.open(self._members[name]) as member:
                return member.read(size)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
            raise StudyFailed(Reason.BROKEN_ARCHIVE, "a member of the zip is damaged.") from error
        except RuntimeError as error:  # NotImplementedError is one
            raise StudyFailed(
                Reason.BROKEN_ARCHIVE, "a member of the zip is encrypted or packed by an unknown method."
            ) from error

    def __exit__(self, *_: object) -> None:
        self._zip.close()


def _check_directory(packed: BinaryIO) -> None:
    """Refuse a zip whose directory is larger than DIRECTORY_LIMIT: zipfile would hold all of it as objects."""
    end = packed.seek(0, io.SEEK_END)
    packed.seek(max(0, end - END_BYTES))
    tail = packed.read()
    packed.seek(0)
    found = tail.rfind(b"PK\5\6")
    size = int.from_bytes(tail[found + 12 : found + 16], "little") if found >= 0 else 0
    wide = tail.rfind(b"PK\6\6")
    if size == 0xFFFFFFFF and wide >= 0:  # zip64
        size = int.from_bytes(tail[wide + 40 : wide + 48], "little")
    if size > DIRECTORY_LIMIT:
        raise StudyFailed(
            Reason.UNSAFE_ARCHIVE, f"the directory of the zip is larger than {MEMBERS_LIMIT} members need."
        )


# ---- tar -----------------------------------------------------------------------------------------------------


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


# ---- layouts -------------------------------------------------------------------------------------------------


class _Packed(Layout):
    """One file, known by its ending, wherever it lies."""

    is_one_file = True
    part_objects = 1
    endings: tuple[str, ...]

    def place(self, key: str) -> str | None:
        return key if key[-8:].lower().endswith(self.endings) else None


class ZipLayout(_Packed):
    """A `.zip` file."""

    name = "zip"
    objects = ZipObjects
    endings = (".zip",)


class TarLayout(_Packed):
    """A tar file, plain or compressed."""

    name = "tar"
    objects = TarObjects
    endings = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst")
