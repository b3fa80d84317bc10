"""What a zip or tar may hold, checked member by member before it is unpacked. Nothing is ever written to disk."""

from __future__ import annotations

from spinemet.archive.objects import MEMBER_LIMIT
from spinemet.errors import Reason, StudyFailed
from spinemet.types import StudyRef

UNPACKED_LIMIT = 8 << 30
"""Bytes that one zip or tar may unpack to; the largest CT studies have about 4 GiB. More is taken for a zip bomb."""
MEMBERS_LIMIT = 50_000
"""Objects in one zip or tar; the largest studies have some 10,000."""
RATIO_LIMIT = 200
"""Unpacked by packed bytes; CT gives 2 to 4, a blank 16-bit slice about 1,000. Counts from RATIO_FROM bytes on."""
RATIO_FROM = 64 << 20


class Unpacking:
    """Counts what a zip or tar unpacks to.

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
