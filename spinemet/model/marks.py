"""Which patients a model has met: keyed marks in a file beside the model, `patients.json`.

A mark is an HMAC-SHA256 (RFC 2104) of the model's weights, keyed with a patient's pseudonym. Whoever holds the crops,
the pseudonym key or result tables of that key can tell if one of their patients took part. Nobody else learns anything
from the file: a pseudonym has 128 bits that no list of patient numbers contains, and the marks of two models differ.
The file may be left out when a model is given away.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import ValidationError

from spinemet.config import FrozenModel
from spinemet.errors import BadInput
from spinemet.files import exists, join, read_bytes, write_bytes
from spinemet.model.card import ModelCard, place_of

MARKS = "patients.json"
MARK_DIGITS = 32
Part = Literal["train", "validation", "test"]


class Matching(StrEnum):
    """Whether a model's marks can be compared with pseudonyms of a key."""

    MATCHED = "matched"
    OTHER_KEY = "other_key"
    NO_MARKS = "no_marks"

    @property
    def problem(self) -> str:
        """Why nobody can say which patients the model has met, as a clause; "" if somebody can."""
        return {
            Matching.MATCHED: "",
            Matching.OTHER_KEY: "the model's patients are marked with another pseudonym key",
            Matching.NO_MARKS: f"the model has no marks of its patients ({MARKS})",
        }[self]


class MarkedPatients(FrozenModel):
    """The content of the file: the marks of each part's patients, for the weights and the pseudonym key they are of."""

    weights_sha256: str
    pseudonym_key_id: str
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


@dataclass(frozen=True)
class Marks:
    """What a model's marks say of the patients of one pseudonym key."""

    matching: Matching
    weights_sha256: str = ""
    part_by_mark: Mapping[str, Part] | None = None

    def part(self, *patient_keys: str) -> Part | None:
        """The part that the patient with any of these pseudonyms took: `train` before `validation` before `test`."""
        marked = self.part_by_mark or {}
        found = {marked.get(mark(key, self.weights_sha256)) for key in patient_keys if key}
        return next((part for part in ("train", "validation", "test") if part in found), None)

    def seen(self, *patient_keys: str) -> bool | None:
        """Whether the model was trained or validated on the patient; None if that cannot be known."""
        if self.matching is not Matching.MATCHED or not any(patient_keys):
            return None
        return self.part(*patient_keys) in {"train", "validation"}


UNMARKED = Marks(Matching.NO_MARKS)


def mark(patient_key: str, weights_sha256: str) -> str:
    """32 hexadecimal digits for a patient's pseudonym and a model's weights."""
    return hmac.digest(patient_key.encode(), f"spinemet:mark\0{weights_sha256}".encode(), "sha256").hex()[:MARK_DIGITS]


def write_marks(uri: str, weights_sha256: str, pseudonym_key_id: str, split: Mapping[str, Iterable[str]]) -> None:
    """Write the marks of the patients of `split` (part -> pseudonyms) to the model folder `uri`."""
    parts = {part: sorted({mark(key, weights_sha256) for key in keys}) for part, keys in split.items()}
    marked = MarkedPatients.model_validate(
        {"weights_sha256": weights_sha256, "pseudonym_key_id": pseudonym_key_id, **parts}
    )
    write_bytes(join(uri, MARKS), (marked.model_dump_json(indent=1) + "\n").encode())


def load_marks(uri: str, card: ModelCard, pseudonym_key_id: str) -> Marks:
    """The marks of the model at `uri` (or BUILTIN), for pseudonyms of the key `pseudonym_key_id`.

    Raises BadInput if the file is damaged or belongs to another model.
    """
    where = join(place_of(uri), MARKS)
    if not exists(where):
        return UNMARKED
    try:
        marked = MarkedPatients.model_validate_json(read_bytes(where))
    except ValidationError as error:
        raise BadInput(f"expected the marks of a model's patients in {where}, found something else.") from error
    if marked.weights_sha256 != card.weights_sha256:
        raise BadInput(f"{where} belongs to another model: copy a model's folder as a whole, or leave this file out.")
    if marked.pseudonym_key_id != pseudonym_key_id:
        return Marks(Matching.OTHER_KEY)
    # Backwards: a patient of two parts counts as one of the earlier.
    parts: tuple[tuple[Part, tuple[str, ...]], ...] = (
        ("test", marked.test),
        ("validation", marked.validation),
        ("train", marked.train),
    )
    return Marks(Matching.MATCHED, marked.weights_sha256, {one: part for part, marks in parts for one in marks})
