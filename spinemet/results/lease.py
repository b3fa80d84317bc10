"""One run at a time on one results place: a lease, which is the object `lease.json` beside the tables.

The run that holds the lease renews it. Another may take a lease that it has seen unchanged for a while (`_patience`)
by its own monotonic clock, whatever the object says: clocks that differ, an empty object and one that claims to last
for years do no harm. Every change requires that the object is still the one that was read: by entity tag on S3, under a
file lock in a local folder. If two runs start together or find the same dead lease, one gets it. A run that took
a lease over also marks the tables (`Results.fence`): a commit that the earlier run still has under way is refused.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from pydantic import AwareDatetime, ValidationError

from spinemet import files
from spinemet.config import FrozenModel, changed
from spinemet.errors import BadInput, JobFailed

LEASE = "lease.json"
DURATION = timedelta(seconds=90)
"""From a renewal to the expiry; a shorter outage of the store does no harm."""
RENEWALS = 5
"""Renewals within DURATION."""
POLLS = 40
"""Looks at a lease that may be dead, within DURATION."""

_STORE_ERRORS = (BaseError, OSError)


class Holder(FrozenModel):
    """The run that holds a lease, and the time until which it may count on it unless it renews it.

    machine: the host since its last boot and the container, because `pid` means nothing anywhere else.
    """

    run_id: str
    host: str
    machine: str
    pid: int
    since: AwareDatetime
    expires: AwareDatetime

    def died_here(self) -> bool:
        """True if its process ran on this machine and has ended."""
        return self.machine == _machine() and not _is_running(self.pid)

    def lives_here(self) -> bool:
        """True if its process runs on this machine, whose clock says that the lease is valid."""
        now = datetime.now(UTC)
        return self.machine == _machine() and _is_running(self.pid) and now < self.expires < now + DURATION


class Lease:
    """A lease that this process holds; a thread renews it. took_over: an earlier run did not give it back."""

    def __init__(
        self, cell: _S3Cell | _LocalCell, holder: Holder, tag: str, duration: timedelta, *, took_over: bool = False
    ) -> None:
        self.took_over = took_over
        self._cell, self._holder, self._tag, self._duration = cell, holder, tag, duration
        self._valid_until = time.monotonic() + duration.total_seconds()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str:
        """The run that holds it."""
        return self._holder.run_id

    def check(self) -> None:
        """Raise JobFailed if the lease is lost: another run may be writing."""
        if time.monotonic() > self._valid_until:
            raise lost_lease()

    def release(self) -> None:
        """Let another run in at once, or at the expiry if the store cannot be reached."""
        self._ended.set()
        self._thread.join(timeout=10)
        if time.monotonic() <= self._valid_until:
            with suppress(*_STORE_ERRORS):
                self._cell.remove()

    def _keep(self) -> None:
        while not self._ended.wait(self._duration.total_seconds() / RENEWALS):
            with suppress(BadInput, *_STORE_ERRORS):  # after DURATION without a renewal, `check` raises
                self._renew()

    def _renew(self) -> None:
        start = time.monotonic()
        renewed = changed(self._holder, expires=datetime.now(UTC) + self._duration)
        tag = self._cell.swap(renewed, self._tag)
        if tag is None:
            found = self._cell.read()
            if found is None or found[0] is None or found[0].run_id != self._holder.run_id:
                self._valid_until = 0.0
                self._ended.set()
                return
            tag = found[1]  # our own renewal: the store made it, its response was lost, and the client repeated it
        self._tag, self._valid_until = tag, start + self._duration.total_seconds()


@contextmanager
def hold_lease(uri: str, run_id: str, duration: timedelta = DURATION) -> Iterator[Lease]:
    """The lease on the results place `uri`, held until the end of the block.

    Waits for the renewal of a lease that is there, for up to four thirds of `duration`: without one it is free. Raises
    BadInput if another run holds it or the place cannot be written.
    """
    now = datetime.now(UTC)
    me = Holder(
        run_id=run_id, host=socket.gethostname(), machine=_machine(), pid=os.getpid(), since=now, expires=now + duration
    )
    try:
        cell = _S3Cell(uri) if files.is_s3(uri) else _LocalCell(uri)
        tag, took_over = _take(cell, me, duration)
    except _STORE_ERRORS as error:
        raise BadInput(f"Cannot write at {files.normalize(uri)}: {files.cause(error)}.") from error
    lease = Lease(cell, me, tag, duration, took_over=took_over)
    try:
        yield lease
    finally:
        lease.release()


def held_by(uri: str) -> Holder | None:
    """Who holds the lease on the results place `uri`, as its object says; None if nobody does."""
    place = files.join(uri, LEASE)
    holder = _parsed(files.read_bytes(place)) if files.exists(place) else None
    return None if holder is None or holder.died_here() else holder


def lost_lease() -> JobFailed:
    """The error of a run that must not write any more."""
    return JobFailed(
        "The run lost its lease on the results: another run took it, or the store did not answer for too long. "
        "Everything committed so far counts; start the run again for the rest."
    )


def _patience(duration: timedelta) -> float:
    """Seconds after which a lease that nobody renewed is free: its holder has stopped writing by then."""
    return duration.total_seconds() * 4 / 3


def _take(cell: _S3Cell | _LocalCell, me: Holder, duration: timedelta) -> tuple[str, bool]:
    """The tag of the lease that is now ours, and whether it was another's."""
    seen, free_at = None, 0.0
    while True:
        if (tag := cell.swap(me, None)) is not None:
            return tag, False
        if (found := cell.read()) is None:  # released in between
            continue
        holder, tag = found
        if holder is not None and holder.run_id == me.run_id:  # our own put: its response was lost and it was repeated
            return tag, False
        if seen is None:
            seen, free_at = tag, time.monotonic() + _patience(duration)
        if tag != seen or (holder is not None and holder.lives_here()):
            raise _refused(holder)
        if (holder is not None and holder.died_here()) or time.monotonic() >= free_at:
            if (taken := cell.swap(me, tag)) is not None:
                return taken, True
            continue  # another run was faster
        time.sleep(duration.total_seconds() / POLLS)


def _refused(holder: Holder | None) -> BadInput:
    who = f"{holder.run_id} on {holder.host} since {holder.since:%Y-%m-%d %H:%M} UTC" if holder else "unknown"
    return BadInput(f"Another run is writing these results: {who}. Wait until it has ended.")


# ---- the object ----------------------------------------------------------------------------------------------


class _S3Cell:
    """One object with a compare-and-swap; methods raise BaseError or OSError if the store refuses."""

    def __init__(self, uri: str) -> None:
        self._uri, self._store = uri, files.open_store(uri)

    def read(self) -> tuple[Holder | None, str] | None:
        """The holder in the object (None if it names none), and the object's tag; None if there is no object."""
        try:
            found = obstore.get(self._store, LEASE)
        except FileNotFoundError:
            return None
        return _parsed(bytes(found.bytes())), str(found.meta["e_tag"])

    def swap(self, holder: Holder, tag: str | None) -> str | None:
        """Put `holder` if the object still has `tag` (None: is absent); returns its new tag, None if it has not."""
        content = holder.model_dump_json().encode()
        try:
            put = obstore.put(self._store, LEASE, content, mode="create" if tag is None else {"e_tag": tag})
        except (AlreadyExistsError, PreconditionError):
            return None
        return str(put["e_tag"])

    def remove(self) -> None:
        obstore.delete(self._store, LEASE)


class _LocalCell:
    """The same as a file. The tag is the content: run and expiry differ in every put."""

    def __init__(self, uri: str) -> None:
        self._folder = Path(files.normalize(uri))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = self._folder / LEASE

    def read(self) -> tuple[Holder | None, str] | None:
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return None
        return _parsed(content), content.decode(errors="replace")

    def swap(self, holder: Holder, tag: str | None) -> str | None:
        content = holder.model_dump_json()
        with open(self._folder / f".{LEASE}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = self.read()
            if (found[1] if found else None) != tag:
                return None
            new = self._file.with_suffix(".new")
            new.write_text(content)
            new.replace(self._file)
        return content

    def remove(self) -> None:
        self._file.unlink(missing_ok=True)


def _parsed(content: bytes) -> Holder | None:
    try:
        return Holder.model_validate_json(content)
    except ValidationError:
        return None


def _machine() -> str:
    """Names this host since its last boot and the container; only the host if the system does not say more."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
