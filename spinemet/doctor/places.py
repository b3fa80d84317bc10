"""Checks of what a job reads and writes: archive, results, model, pseudonym key."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import stat
import time
import uuid
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from spinemet import files
from spinemet.archive.listing import list_studies
from spinemet.dicom.pseudonym import KEY_FILE_VARIABLE, KEY_VARIABLE, load_key
from spinemet.doctor.findings import Finding, Level
from spinemet.doctor.s3 import S3, StoreProblem
from spinemet.errors import BadInput
from spinemet.model.card import load_card, model_digest, read_weights

COUNT_S = 5.0
"""Time for counting studies; a large archive holds more than are found in it."""
MAKE_KEY = "(umask 077 && openssl rand -hex 32 > ~/.spinemet.key)"


def check_archive(archive: str, s3: S3, seconds: float = COUNT_S) -> Finding:
    """Whether the archive can be listed, and how many studies are found within some seconds."""
    if problem := _store_problem("archive", archive, s3):
        return problem
    count, is_all, error = count_studies(archive, seconds)
    if error:
        return Finding("archive", Level.PROBLEM, error, "Check --archive: a folder or an s3:// prefix with studies.")
    if is_all:
        return Finding("archive", Level.OK, f"readable, {count:,} {'study' if count == 1 else 'studies'}")
    more = f"at least {count:,} studies" if count else "no study yet"
    return Finding("archive", Level.OK, f"readable, {more} after {seconds:g} s of listing")


def count_studies(archive: str, seconds: float) -> tuple[int, bool, str]:
    """(studies found, whether these are all, what went wrong) within some seconds.

    A process of its own counts, because it can be ended while it waits for a slow store.
    """
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_count, args=(archive, there), daemon=True)
    process.start()
    there.close()
    count, ends = 0, None
    try:
        while here.poll(None if ends is None else max(0.0, ends - time.monotonic())):
            found = here.recv()
            if isinstance(found, str):
                return count, True, found
            # The first count is 0 and says that the imports are over.
            count, ends = found, ends or time.monotonic() + seconds
        return count, False, ""
    except EOFError:
        process.join()
        return count, True, "" if process.exitcode == 0 else "listing the archive ended its process"
    finally:
        process.kill()
        process.join()


def _count(archive: str, pipe: Connection) -> None:
    pipe.send(0)
    try:
        for count, _ in enumerate(list_studies(archive), 1):
            pipe.send(count)
    except BadInput as error:
        pipe.send(str(error))


def check_results(results: str, s3: S3) -> Finding:
    """Whether tables and a lease can be written there, each write on a condition; leaves nothing behind."""
    if not files.is_s3(results):
        return _check_folder(Path(files.normalize(results)))
    if problem := _store_problem("results", results, s3):
        return problem
    try:
        left = s3.check_conditional_puts(results)
    except StoreProblem as refusal:
        return Finding("results", Level.PROBLEM, refusal.found, refusal.remedy)
    if left:
        remedy = "Allow these credentials to delete below the results; then delete that object by hand."
        return Finding("results", Level.WARNING, f"writable, but the test object {left} could not be deleted", remedy)
    return Finding("results", Level.OK, "writable, with conditional puts")


def check_model(model: str, s3: S3) -> Finding:
    """Whether the model's card and weights are readable and belong together."""
    if problem := _store_problem("model", model, s3):
        return problem
    try:
        card = load_card(model)
        megabytes = len(read_weights(model, card)) / 1e6
    except BadInput as error:
        return Finding("model", Level.PROBLEM, str(error), "Name the folder that jobs/train.py wrote: OUT/NAME/model.")
    tasks = ", ".join(task.name for task in card.spec.tasks)
    return Finding("model", Level.OK, f"readable, {megabytes:.1f} MB, {tasks}, digest {model_digest(card)}")


def check_key(key_file: str | None, *, is_needed: bool) -> Finding:
    """Whether there is a pseudonym key and nobody else can read its file. Without one, a problem if `is_needed`."""
    has_variable = bool(os.environ.get(KEY_VARIABLE))
    place = key_file or (None if has_variable else os.environ.get(KEY_FILE_VARIABLE))
    if not place and not has_variable:
        if not is_needed:
            return Finding("key", Level.SKIPPED, "no pseudonym key; only screening needs one")
        remedy = f"Make one and keep a copy: {MAKE_KEY}; export {KEY_FILE_VARIABLE}=~/.spinemet.key"
        return Finding("key", Level.PROBLEM, "no pseudonym key", remedy)
    try:
        size = len(load_key(key_file=key_file))
    except BadInput as error:
        return Finding("key", Level.PROBLEM, str(error), _key_remedy(place))
    where = f"{place}, which only its owner can read" if place else KEY_VARIABLE
    return Finding("key", Level.OK, f"{size} bytes from {where}")


def _key_remedy(place: str | None) -> str:
    with suppress(OSError, TypeError):
        if stat.S_IMODE(os.stat(place).st_mode) & 0o077:  # type: ignore[arg-type]
            return f"chmod 600 {place}"
    return f"Make one and keep a copy: {MAKE_KEY}"


def _store_problem(subject: str, uri: str, s3: S3) -> Finding | None:
    """What keeps an S3 place from being reached; None for a place that can be listed, and for a local one."""
    if not files.is_s3(uri):
        return None
    try:
        s3.check_bucket(uri)
    except StoreProblem as problem:
        return Finding(subject, Level.PROBLEM, problem.found, problem.remedy)
    return None


def _check_folder(folder: Path) -> Finding:
    """A results folder, made or not yet: exclusive creation, hard links (Delta's commits) and locks (the lease)."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    probe, link = (there / f".spinemet-doctor-{uuid.uuid4().hex}{suffix}" for suffix in ("", ".link"))
    try:
        with probe.open("x") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.link(probe, link)
            with suppress(FileExistsError):
                os.link(probe, link)
                raise OSError("a link replaced a file")
    except OSError as error:
        remedy = "Choose a folder that you can write to, on a file system with locks and hard links."
        return Finding("results", Level.PROBLEM, f"{there} cannot hold tables: {error.strerror or error}", remedy)
    finally:
        for path in (probe, link):
            with suppress(OSError):
                path.unlink()
    return Finding("results", Level.OK, "writable" if there == folder else f"will be made below {there}")
