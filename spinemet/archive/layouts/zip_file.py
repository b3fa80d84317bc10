"""A zip that is a study: fetched once and unpacked member by member."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from typing import BinaryIO

from spinemet.archive.layout import Layout
from spinemet.archive.layouts.unpacking import MEMBERS_LIMIT, Unpacking, plain_name
from spinemet.archive.objects import StudyObjects, is_ignored
from spinemet.archive.store import open_store
from spinemet.errors import Reason, StudyFailed
from spinemet.types import StudyRef

END_BYTES = (64 << 10) + 200
"""The end record of a zip with the longest comment, and zip64's two records before it."""
DIRECTORY_LIMIT = 32 << 20
"""Bytes of a zip's directory: MEMBERS_LIMIT entries with the longest usual names."""


class ZipLayout(Layout):
    """A `.zip` file, wherever it lies."""

    name = "zip"
    is_one_file = True
    part_objects = 1

    def place(self, key: str) -> str | None:
        return key if key[-4:].lower() == ".zip" else None

    def open(self, ref: StudyRef) -> StudyObjects:
        return ZipObjects(ref)


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
