"""Checks of what a job needs beside the machine: archive, results, model, pseudonym key, Ray head."""

import fcntl
import os
import tempfile
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from spinemet import files
from spinemet.archive.listing import list_studies
from spinemet.dicom.pseudonym import KEY_FILE_VARIABLE, KEY_VARIABLE, load_key
from spinemet.doctor.findings import Level, Trouble, check
from spinemet.doctor.s3 import S3
from spinemet.model.card import load_card, model_digest, read_weights

COUNT_S = 5.0
"""Time for counting studies; a large archive holds more than are found in it."""
ANSWER_S = 5
"""Time for a Ray head to answer."""

_MAKE_KEY = "Make one and keep a copy: (umask 077 && openssl rand -hex 32 > ~/.spinemet.key)"
_SET_TOKEN = "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) as on the head."
_START_HEAD = "Start a head (ray start --head), forward its port 8265, or correct --ray-address (http://HOST:8265)."


@check("archive", "Check --archive: a folder or an s3:// prefix with studies.")
def check_archive(archive: str, s3: S3, seconds: float = COUNT_S) -> str:
    """Whether the archive can be listed, and how many studies are found within some seconds."""
    s3.check_bucket(archive)
    count, ends = 0, time.monotonic() + seconds
    for _ in list_studies(archive):
        count += 1
        if time.monotonic() > ends:
            return f"readable, at least {count:,} studies after {seconds:g} s of listing"
    return f"readable, {count:,} {'study' if count == 1 else 'studies'}"


@check("results", "Check --results: a folder or an s3:// prefix.")
def check_results(results: str, s3: S3) -> str:
    """Whether tables and a lease can be written there, each write on a condition; leaves nothing behind."""
    if files.is_s3(results):
        s3.check_bucket(results)
        s3.check_conditional_puts(results)
        return "writable, with conditional puts"
    folder = Path(files.normalize(results))
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        # Delta commits with hard links; the lease needs locks.
        with tempfile.TemporaryDirectory(prefix=".spinemet-doctor-", dir=there) as made:
            with Path(made, "lease").open("x") as lease:
                fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.link(lease.name, Path(made, "commit"))
    except OSError as error:
        remedy = "Choose a folder that you can write to, on a file system with locks and hard links."
        raise Trouble(f"{there} cannot hold tables: {error.strerror or error}", remedy) from error
    return "writable" if there == folder else f"will be made below {there}"


@check("model", "Name the folder that jobs/train.py wrote: OUT/NAME/model.")
def check_model(model: str, s3: S3) -> str:
    """Whether the model's card and weights are readable and belong together."""
    s3.check_bucket(model)
    card = load_card(model)
    megabytes = len(read_weights(model, card)) / 1e6
    tasks = ", ".join(task.name for task in card.spec.tasks)
    return f"readable, {megabytes:.1f} MB, {tasks}, digest {model_digest(card)}"


@check("key", _MAKE_KEY)
def check_key(key_file: str | None, *, is_needed: bool) -> str:
    """Whether there is a pseudonym key and nobody else can read its file. Without one, a problem if `is_needed`."""
    has_variable = bool(os.environ.get(KEY_VARIABLE))
    place = key_file or (None if has_variable else os.environ.get(KEY_FILE_VARIABLE))
    if not place and not has_variable:
        if not is_needed:
            raise Trouble("no pseudonym key; only screening needs one", level=Level.SKIPPED)
        raise Trouble("no pseudonym key", f"{_MAKE_KEY}; export {KEY_FILE_VARIABLE}=~/.spinemet.key")
    if place and Path(place).is_file() and (mode := Path(place).stat().st_mode & 0o777) & 0o077:
        raise Trouble(f"others may read {place}: its mode is {mode:o}", f"chmod 600 {place}")
    size = len(load_key(key_file=key_file))
    return f"{size} bytes from {f'{place}, which only its owner can read' if place else KEY_VARIABLE}"


@check("Ray")
def check_head(address: str) -> str:
    """Whether the head at `address` (http://HOST:8265) answers, asks for a token, and takes the one that is set here.

    Asks as `ray job submit` does, with a time limit, which Ray's own client does not have.
    """
    try:
        status, is_ray = _ask(address)
        is_open = status != 401
        if not is_open and (token := _token()):
            status, is_ray = _ask(address, token)
    except (OSError, HTTPException, ValueError) as error:
        raise Trouble(f"no Jobs API answers at {address} ({getattr(error, 'reason', error)})", _START_HEAD) from error
    if status == 401:
        raise Trouble("the head asks for a token and none is set here", _SET_TOKEN)
    if status == 403:
        raise Trouble("the head does not take the token that is set here", _SET_TOKEN)
    if not is_ray:
        raise Trouble(f"no Jobs API answers at {address} (HTTP status {status})", _START_HEAD)
    if is_open:
        remedy = "Start it with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN set: whoever reaches it can run code on it."
        raise Trouble("the head answers and asks for no token", remedy, Level.WARNING)
    return "the head answers and takes the token"


def _ask(address: str, token: str = "") -> tuple[int, bool]:
    """The HTTP status, and whether the answer is that of a Ray head."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{address.rstrip('/')}/api/version", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return answer.status, b'"ray_version"' in answer.read()
    except urllib.error.HTTPError as error:
        return error.code, False


def _token() -> str:
    """The token that Ray's clients send in token mode: the variable, else the file that the other names, else Ray's."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return ""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return (os.environ.get("RAY_AUTH_TOKEN") or (file.read_text() if file.is_file() else "")).strip()
