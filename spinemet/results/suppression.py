"""Whom no run brings back: the object `suppressed.json` beside the tables.

It lists pseudonyms: of the patients who were erased (erasure.py), and of where their studies lie. Only the holder of
the pseudonym key can say whose they are. A run plans none of these studies and stores nothing of one that turns out
to be of such a patient.
"""

from collections.abc import Collection

from pydantic import ValidationError

from spinemet import files
from spinemet.config import FrozenModel
from spinemet.errors import BadInput

SUPPRESSED = "suppressed.json"


class Suppressed(FrozenModel):
    """patients: values of `patient_key`. sources: values of `source_key`."""

    patients: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()


def suppressed(uri: str) -> Suppressed:
    """What is suppressed at the results place `uri`. Raises BadInput if the list is damaged."""
    place = files.join(uri, SUPPRESSED)
    if not files.exists(place):
        return Suppressed()
    try:
        return Suppressed.model_validate_json(files.read_bytes(place))
    except ValidationError as error:
        raise BadInput(f"{place} is damaged; put it back from a copy: it keeps erased patients out.") from error


def suppress(uri: str, patients: Collection[str], sources: Collection[str]) -> None:
    """Add to the list; call it under the lease."""
    known = suppressed(uri)
    added = Suppressed(patients=known.patients | set(patients), sources=known.sources | set(sources))
    files.write_bytes(files.join(uri, SUPPRESSED), (added.model_dump_json(indent=2) + "\n").encode())
