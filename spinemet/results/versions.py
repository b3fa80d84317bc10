"""Versions of the result tables: by date, by number, or by a name that a user gave with `spinemet tables pin`.

A pin is the object `pins/NAME.json` beside the tables. It keeps what the tables held at one moment: a vacuum spares the
files of these versions, and the tables keep their logs (`maintenance.pin`).
"""

import re
from datetime import datetime

import obstore
from obstore.exceptions import BaseError, NotFoundError
from pydantic import AwareDatetime, ValidationError

from spinemet import files
from spinemet.config import FrozenModel
from spinemet.errors import BadInput
from spinemet.results.delta import commits
from spinemet.results.tables import LEDGER, moment, open_results

PINS = "pins"
"""The folder of the pins in a results place."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
"""A name starts with a letter, so it is never a date or the number of a version."""
_VERSION_DIGITS = len("20261130") - 1
"""A number with more digits is a date."""


class Pin(FrozenModel):
    """The versions of the tables at `moment`, which a vacuum keeps."""

    moment: AwareDatetime
    versions: dict[str, int]


def pins(uri: str) -> dict[str, Pin]:
    """Name -> pin, of every pin at the results place `uri`. Raises BadInput if the store refuses or a pin is broken."""
    where = files.join(uri, PINS)
    try:
        store = files.open_store(files.normalize(uri))
        names = [str(found["path"]).rpartition("/")[2] for page in obstore.list(store, f"{PINS}/") for found in page]
    except (NotFoundError, FileNotFoundError):
        return {}
    except (BaseError, OSError) as error:
        raise BadInput(f"cannot list the pins at {where} ({files.cause(error)}).") from error
    return {name.removesuffix(".json"): _read(uri, name) for name in sorted(names) if name.endswith(".json")}


def place_of_pin(uri: str, name: str) -> str:
    """The object of the pin `name`. Raises BadInput for a name that cannot be one."""
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"expected a name of at most 64 letters, digits, dots, dashes and underscores that starts with a letter, "
            f"found {name}."
        )
    return files.join(uri, PINS, f"{name}.json")


def moment_of(uri: str, text: str) -> datetime:
    """The moment that a pin at `uri`, a version of the ledger (as `history` numbers them), or a date or time names.

    Raises BadInput if `text` is none of these, and if there are no results.
    """
    if _NAME.fullmatch(text):
        return _pinned(uri, text).moment
    if not text.isdecimal() or len(text) > _VERSION_DIGITS:
        return moment(text)
    results = open_results(uri)
    made = {number: moment for moment, number, _ in commits(results.uri, LEDGER, results.table(LEDGER))}
    if int(text) in made:
        return made[int(text)]
    raise BadInput(f"expected a version of the table {LEDGER} from {min(made)} to {max(made)}, found {text}.")


def _pinned(uri: str, name: str) -> Pin:
    known = pins(open_results(uri).uri)
    if name not in known:
        there = f"one of the pins {', '.join(known)}" if known else "a pin (there are none)"
        raise BadInput(
            f"expected a date or a time like 2026-11-30 or 2026-11-30T22:00, a version of the table {LEDGER} or "
            f"{there}, found {name}."
        )
    return known[name]


def _read(uri: str, name: str) -> Pin:
    place = files.join(uri, PINS, name)
    try:
        return Pin.model_validate_json(files.read_bytes(place))
    except ValidationError as error:
        raise BadInput(f"{place} is not a pin; delete it if nobody needs the version.") from error
