"""`spinemet doctor`: what would stop a job on this machine and these places, and what to do about it."""

import sys
from collections.abc import Iterator

from spinemet import files
from spinemet.doctor.findings import Finding, Level
from spinemet.doctor.machine import (
    check_cores,
    check_gpu,
    check_memory,
    check_python,
)
from spinemet.doctor.places import check_archive, check_head, check_key, check_model, check_results
from spinemet.doctor.s3 import S3
from spinemet.machine import available_cores, available_memory_gb


def examine(
    archive: str | None, results: str | None, model: str | None, key_file: str | None, ray_address: str | None
) -> Iterator[Finding]:
    """One finding after another about this machine and what a job would be started with. Writes nothing that stays."""
    cores = available_cores()
    yield check_python(sys.version_info[:2])
    yield check_cores(cores)
    yield check_memory(available_memory_gb(), cores)
    yield check_gpu()
    s3 = S3()
    uses_s3 = any(place and files.is_s3(place) for place in (archive, results, model))
    if uses_s3:
        yield s3.check_settings()
    yield check_archive(archive, s3) if archive else _skipped("archive")
    yield check_results(results, s3) if results else _skipped("results")
    yield check_model(model, s3) if model else _skipped("model")
    if uses_s3:
        yield s3.check_clock()
    yield check_key(key_file, is_needed=results is not None)
    yield check_head(ray_address) if ray_address else _skipped("Ray", "ray-address")


def _skipped(subject: str, option: str = "") -> Finding:
    return Finding(subject, Level.SKIPPED, f"not checked; give --{option or subject}")
