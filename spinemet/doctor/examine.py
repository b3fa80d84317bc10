"""All checks in a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from spinemet import files
from spinemet.doctor.findings import Finding, Level
from spinemet.doctor.machine import check_machine
from spinemet.doctor.places import check_archive, check_key, check_model, check_results
from spinemet.doctor.ray_head import check_head
from spinemet.doctor.s3 import S3
from spinemet.errors import BadInput


@dataclass(frozen=True)
class Places:
    """What a job would be started with; None for what it does not use."""

    archive: str | None = None
    results: str | None = None
    model: str | None = None
    key_file: str | None = None
    ray_address: str | None = None


def examine(places: Places) -> Iterator[Finding]:
    """One finding after another, in the order of a job's work. Writes nothing that stays."""
    yield from check_machine()
    s3 = S3()
    uses_s3 = any(place and files.is_s3(place) for place in (places.archive, places.results, places.model))
    if uses_s3:
        yield s3.check_settings()
    yield _if_given("archive", places.archive, lambda archive: check_archive(archive, s3))
    yield _if_given("results", places.results, lambda results: check_results(results, s3))
    yield _if_given("model", places.model, lambda model: check_model(model, s3))
    if uses_s3:
        yield s3.check_clock()
    yield check_key(places.key_file, is_needed=places.results is not None)
    yield _if_given("Ray", places.ray_address, check_head, "ray-address")


def _if_given(subject: str, place: str | None, check: Callable[[str], Finding], option: str = "") -> Finding:
    option = f"--{option or subject}"
    if place is None:
        return Finding(subject, Level.SKIPPED, f"not checked; give {option}")
    try:
        return check(place)
    except BadInput as error:
        return Finding(subject, Level.PROBLEM, str(error), f"Correct {option}.")
