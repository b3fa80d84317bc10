"""Keyed pseudonyms: the same patient, study or series always gets the same one, and only the key's owner can link it.

HMAC-SHA256 (RFC 2104), cut to 128 bits. Patients, studies and series have separate domains: an identifier that two of
them share gives different pseudonyms.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

from spinemet.config import DatePolicy
from spinemet.errors import BadInput

KEY_VARIABLE = "SPINEMET_PSEUDONYM_KEY"
KEY_FILE_VARIABLE = "SPINEMET_PSEUDONYM_KEY_FILE"
MIN_KEY_BYTES = 16
OLDEST_AGE = 90
"""Ages over 89 are a category of their own (HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C))."""
MOST_SHIFT_DAYS = 364
PSEUDONYM_DIGITS = 32


def load_key(ephemeral: bool = False, key_file: str | Path | None = None) -> bytes:
    """The secret for pseudonyms: from `key_file`, else SPINEMET_PSEUDONYM_KEY, else SPINEMET_PSEUDONYM_KEY_FILE.

    ephemeral: a fresh random key instead, whose pseudonyms never match those of another run. Raises BadInput if there
    is no key, if it has fewer than 16 bytes, or if anyone but its owner may read its file.
    """
    if ephemeral:
        return secrets.token_bytes(32)
    place = key_file or (None if os.environ.get(KEY_VARIABLE) else os.environ.get(KEY_FILE_VARIABLE))
    if place:
        key = _read_key_file(Path(place))
    elif text := os.environ.get(KEY_VARIABLE):
        key = text.strip().encode()
    else:
        raise BadInput(
            f"there is no pseudonym key: set {KEY_VARIABLE}, or {KEY_FILE_VARIABLE} to a file with the key "
            "(openssl rand -hex 32 > FILE makes one)."
        )
    if len(key) < MIN_KEY_BYTES:
        raise BadInput(f"expected a pseudonym key of at least {MIN_KEY_BYTES} bytes, found {len(key)}.")
    return key


@contextmanager
def key_hidden() -> Iterator[None]:
    """A block without the key in this process's environment: what starts in it never gets the key.

    Ray's processes, and the children that decode the archive's bytes, keep the environment that they start in.
    """
    held = {name: os.environ.pop(name) for name in (KEY_VARIABLE, KEY_FILE_VARIABLE) if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


class Pseudonymizer:
    """Pseudonyms with one key and one policy for dates.

    An empty identifier gets an empty pseudonym, because patients without an ID are not the same patient. moved: new
    address of an archive -> its earlier one, under which its studies keep their keys.
    """

    def __init__(self, key: bytes, dates: DatePolicy, moved: Mapping[str, str] | None = None) -> None:
        self._key = key
        self._dates = dates
        self._moved = moved or {}

    @property
    def key_id(self) -> str:
        """Twelve digits that identify the key without revealing it: crops, models and results of one key share them."""
        return self.source_key("spinemet:key", "")[:12]

    def patient_key(self, patient_id: str) -> str:
        """32 hexadecimal digits for a PatientID."""
        return self._pseudonym("patient", patient_id.strip())

    def study_key(self, uid: str) -> str:
        """32 hexadecimal digits for a StudyInstanceUID."""
        return self._pseudonym("study", uid.strip())

    def series_key(self, uid: str) -> str:
        """32 hexadecimal digits for a SeriesInstanceUID."""
        return self._pseudonym("series", uid.strip())

    def source_key(self, archive: str, key: str) -> str:
        """32 hexadecimal digits for a study's place: the archive's URI and the study's key in it (may be empty)."""
        return self._pseudonym("source", f"{self._moved.get(archive, archive)}\0{key}")

    def study_date(self, patient_id: str, study_date: str) -> date | None:
        """StudyDate (YYYYMMDD) under the date policy; None if there is no date.

        `exact`: unchanged. `shifted`: 1 to 364 days earlier, by the same number for all studies of a patient, which
        keeps intervals; None without a PatientID, because nothing then connects a patient's studies. `year`: 1 January.
        """
        try:
            day = date(int(study_date[:4]), int(study_date[4:6]), int(study_date[6:8]))
        except ValueError:
            return None
        if self._dates == "exact":
            return day
        if self._dates == "year":
            return day.replace(month=1, day=1)
        if not patient_id.strip():
            return None
        digest = self._digest("shift", patient_id.strip())
        return day - timedelta(days=1 + int.from_bytes(digest[:8]) % MOST_SHIFT_DAYS)

    def age(self, years: float | None) -> float | None:
        """The age in whole years, 90 for all above 89; None stays None."""
        return None if years is None else float(min(int(years), OLDEST_AGE))

    def _pseudonym(self, domain: str, identifier: str) -> str:
        return self._digest(domain, identifier).hex()[:PSEUDONYM_DIGITS] if identifier else ""

    def _digest(self, domain: str, identifier: str) -> bytes:
        # File names may not be UTF-8; Python holds their raw bytes as surrogates.
        message = f"spinemet:{domain}\0{identifier}".encode("utf-8", "surrogateescape")
        return hmac.digest(self._key, message, "sha256")


def _read_key_file(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadInput(f"others can read the key file {path} (mode {mode & 0o777:o}): run chmod 600 on it.")
        return path.read_bytes().strip()
    except OSError as error:
        raise BadInput(f"expected a readable key file at {path}, found {error.strerror}.") from error
