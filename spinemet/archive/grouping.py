"""Tells apart the studies in folders of DICOM objects, by their headers if keys do not settle it.

If every object of a prefix lies exactly KEY_DEPTH folders deep (`patient/study/series/object`), the prefix is one
study. After TRIED prefixes confirm it, the others are planned without a read. If a prefix refutes it (its keys are
`site/patient/study/object`), and in every other order of folders, a folder may be a study, one of its series, or a
patient. Then the listing reads PatientID and StudyInstanceUID of some objects in each folder, by ranged reads:
- in the root, of all; one or two folders deep, of SAMPLES in each folder, and of all if those disagree;
- in deeper folders, which hold one series each, of the first one.
Objects without an identity (not DICOM, or stripped of it) go with those of their folder, else of their prefix.

The parts of a study are joined while the listing goes on, if they lie within HELD_OBJECTS objects of each other. Memory
does not grow with the archive.
"""

import io
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby, islice

from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from spinemet.archive.layout import PART_OBJECTS
from spinemet.archive.store import ObjectLost
from spinemet.errors import StudyFailed
from spinemet.types import ObjectRef, StudyRef

PREFIX = "prefix"
"""The layout that reads headers to separate studies: folders of DICOM objects."""
KEY_DEPTH = 3
TRIED = 50
"""The first so many prefixes that hold several folders, each KEY_DEPTH deep, are checked against their headers. If keys
and headers agree, the keys of all further prefixes are trusted."""
HELD_PARTS = 10
"""Parts of one prefix that are looked at together: more objects than any patient has."""
SAMPLES = 5
"""Objects read of a folder that may hold several studies: the first, the last and some between."""
HELD_OBJECTS = 50_000
"""About 20 MB; five to ten seconds of an S3 listing."""
PROBE_BYTES = (8 << 10, 1 << 20)
"""Bytes read of an object; then, if its identity lies further on, the second number."""
PROBE_THREADS = 16
PREFIXES_AHEAD = 32

_SYNTAX, _PATIENT, _STUDY = Tag("TransferSyntaxUID"), Tag("PatientID"), Tag("StudyInstanceUID")
_TAGS: list[BaseTag | int] = [_PATIENT, _STUDY]

Identity = tuple[str, str]
"""PatientID and StudyInstanceUID; both empty if an object has no StudyInstanceUID."""
NO_IDENTITY: Identity = ("", "")
ReadHead = Callable[[str, int], bytes]
"""(key, bytes) -> the first bytes of an object; raises StudyFailed if it cannot be read."""


def settle(candidates: Iterable[StudyRef], read_head: ReadHead) -> Iterator[StudyRef]:
    """The studies among `candidates`, each a prefix, a part of one, or a file that is a study of its own.

    A study found by its headers has the key `#PatientID/StudyInstanceUID`: it stays the same study in the ledger
    if its objects are moved or others arrive beside them. If the store does not answer, the prefix comes back
    unchanged and not `settled`, for a later night.
    """
    pending: OrderedDict[str, StudyRef] = OrderedDict()
    given: set[str] = set()
    held = 0
    trust = _Trust()
    with ThreadPoolExecutor(PROBE_THREADS, thread_name_prefix="spinemet-probe") as pool:
        for candidate, identities in _checked(_asked(pool, candidates, read_head, trust), trust):
            if candidate.layout != PREFIX:
                yield candidate
                continue
            for part in _parts(candidate, identities):
                earlier = pending.pop(part.key, None)
                pending[part.key] = part if earlier is None else _joined(earlier, part)
                held += len(part.objects)
            while held > HELD_OBJECTS and len(pending) > 1:
                _, ref = pending.popitem(last=False)
                held -= len(ref.objects)
                yield _unique(ref, given)
        for ref in pending.values():
            yield _unique(ref, given)


def identity_in(head: bytes) -> Identity | None:
    """PatientID and StudyInstanceUID in the first bytes of an object; None if `head` ends before them."""
    marked = head[128:132] == b"DICM"
    if not marked and head[:2] not in {b"\x02\x00", b"\x08\x00", b"\x00\x08"}:
        return NO_IDENTITY
    try:
        values = _values(head[132:] if marked else head)
    except Exception:  # pydicom raises whatever the bytes provoke
        return None
    if values is None:
        return None
    patient, study = (bytes(values.get(tag) or b"").strip(b" \0").decode("latin-1") for tag in (_PATIENT, _STUDY))
    return (patient, study) if study else NO_IDENTITY


def _values(content: bytes) -> dict[BaseTag, bytes | None] | None:
    """The raw values of the two identifying elements; None if `content` may end before them.

    Raw, because pydicom's warnings about malformed values quote them.
    """
    stream = io.BytesIO(content)
    of_meta = data_element_generator(stream, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    meta = {element.tag: element.value for element in of_meta if isinstance(element, RawDataElement)}
    syntax = (meta.get(_SYNTAX) or b"").strip(b" \0").decode("latin-1")
    rest = stream.read()
    if syntax == DeflatedExplicitVRLittleEndian:
        rest = zlib.decompressobj(-zlib.MAX_WBITS).decompress(rest, PROBE_BYTES[-1])
    is_big = syntax == ExplicitVRBigEndian or rest[:2] == b"\x00\x08"
    reached = False

    def past_study(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal reached
        reached = reached or tag > _STUDY
        return tag > _STUDY

    # Two capitals after the first tag mean explicit: some objects declare one encoding and use the other.
    is_explicit = rest[4:6].isalpha() and rest[4:6].isupper()
    found: dict[BaseTag, bytes | None] = {}
    for element in data_element_generator(
        io.BytesIO(rest), not is_explicit, not is_big, stop_when=past_study, specific_tags=_TAGS
    ):
        if isinstance(element, RawDataElement) and element.tag in _TAGS:
            found[element.tag] = element.value if len(element.value or b"") == element.length else None
    return found if reached or found.get(_STUDY) else None


# ---- reading identities --------------------------------------------------------------------------------------


@dataclass
class _Trust:
    """Whether folders that are KEY_DEPTH deep count as the series of one study.

    confirmed: prefixes whose headers said so. last: the newest prefix, and whether its headers are read.
    """

    confirmed: int = 0
    refuted: bool = False
    last: tuple[str, bool] = ("", False)

    def doubts(self, candidate: StudyRef, folders: int) -> bool:
        """Whether to read headers of this prefix, in all its parts. One folder alone is one study in either layout."""
        if candidate.key != self.last[0]:
            is_open = self.refuted or self.confirmed < TRIED
            self.last = candidate.key, is_open and (folders > 1 or len(candidate.objects) >= PART_OBJECTS)
        return self.last[1]


@dataclass
class _Question:
    """A candidate and the identities that are being read. doubted: its keys suggest that it is one study."""

    candidate: StudyRef
    doubted: bool = False
    folders: dict[str, list[ObjectRef]] = field(default_factory=dict)
    asked: dict[str, Future[Identity]] = field(default_factory=dict)


def _checked(
    asked: Iterable[tuple[_Question, Mapping[str, Identity] | None]], trust: _Trust
) -> Iterator[tuple[StudyRef, Mapping[str, Identity] | None]]:
    """(candidate, identities); these are empty too if all parts of a doubted prefix are one study after all."""
    for (_, doubted), group in groupby(asked, key=lambda pair: (pair[0].candidate.key, pair[0].doubted)):
        while parts := list(islice(group, HELD_PARTS if doubted else 1)):
            studies = {study for _, identities in parts for study in (identities or {}).values()} - {NO_IDENTITY}
            keeps = doubted and len(studies) < 2
            trust.confirmed += doubted and len(studies) == 1
            trust.refuted |= doubted and not keeps
            for question, identities in parts:
                yield question.candidate, {} if keeps and identities is not None else identities


def _asked(
    pool: ThreadPoolExecutor, candidates: Iterable[StudyRef], read_head: ReadHead, trust: _Trust
) -> Iterator[tuple[_Question, Mapping[str, Identity] | None]]:
    """(question, identity of each of its candidate's objects), with PREFIXES_AHEAD prefixes under way.

    The identities are empty if the keys are trusted, None if the store did not answer.
    """
    rest = (_ask(pool, candidate, read_head, trust) for candidate in candidates)
    waiting = deque(islice(rest, 1))
    while waiting:
        waiting.extend(islice(rest, PREFIXES_AHEAD - len(waiting)))
        question = waiting.popleft()
        try:
            yield question, _answered(pool, question, read_head)
        except StudyFailed:
            yield question, None


def _ask(pool: ThreadPoolExecutor, candidate: StudyRef, read_head: ReadHead, trust: _Trust) -> _Question:
    question = _Question(candidate)
    if candidate.layout != PREFIX:
        return question
    folders: dict[str, list[ObjectRef]] = {}
    for folder, objects in groupby(candidate.objects, key=lambda item: item.key.rpartition("/")[0]):
        folders.setdefault(folder, []).extend(objects)
    if all(folder.count("/") == KEY_DEPTH - 1 for folder in folders):
        question.doubted = trust.doubts(candidate, len(folders))
        if not question.doubted:
            return question
    question.folders = folders
    for objects_in_folder in folders.values():
        for item in _samples(objects_in_folder):
            question.asked[item.key] = pool.submit(_identity, read_head, item)
    return question


def _samples(objects: list[ObjectRef]) -> list[ObjectRef]:
    """The objects of one folder whose headers are read first."""
    depth, last = objects[0].key.count("/"), len(objects) - 1
    if depth >= KEY_DEPTH:
        return objects[:1]
    if depth == 0 or last < SAMPLES:
        return objects
    return [objects[last * n // (SAMPLES - 1)] for n in range(SAMPLES)]


def _answered(pool: ThreadPoolExecutor, question: _Question, read_head: ReadHead) -> dict[str, Identity]:
    """The identity of every object of the question; NO_IDENTITY if neither it nor its folder has one."""
    known = {key: future.result() for key, future in question.asked.items()}
    identities: dict[str, Identity] = {}
    for objects in question.folders.values():
        of_folder = {known[item.key] for item in objects if item.key in known} - {NO_IDENTITY}
        if len(of_folder) > 1:
            left = [item for item in objects if item.key not in known]
            found = pool.map(lambda item: _identity(read_head, item), left)
            known |= {item.key: identity for item, identity in zip(left, found, strict=True)}
            identities |= {item.key: known[item.key] for item in objects}
        else:
            only = next(iter(of_folder), NO_IDENTITY)
            identities |= dict.fromkeys((item.key for item in objects), only)
    return identities


def _identity(read_head: ReadHead, item: ObjectRef) -> Identity:
    for size in PROBE_BYTES:
        try:
            identity = identity_in(read_head(item.key, min(size, item.size))) if item.size else NO_IDENTITY
        except ObjectLost:  # its study will fail; the others of its prefix must not wait for it
            return NO_IDENTITY
        if identity is not None:
            return identity
        if size >= item.size:
            break
    return NO_IDENTITY


# ---- putting together ----------------------------------------------------------------------------------------


def _parts(candidate: StudyRef, identities: Mapping[str, Identity] | None) -> Iterator[StudyRef]:
    """The candidate's objects by study; one part with the candidate's own key if no identity is known."""
    if identities is None:
        yield replace(candidate, settled=False)
        return
    found = sorted(set(identities.values()) - {NO_IDENTITY})
    if not found:
        yield candidate
        return
    objects: dict[str, list[ObjectRef]] = {}
    for item in candidate.objects:
        identity = identities[item.key] if len(found) > 1 else found[0]
        key = candidate.key if identity == NO_IDENTITY else "#" + "/".join(identity)
        objects.setdefault(key, []).append(item)
    for key, items in objects.items():
        yield replace(candidate, key=key, objects=tuple(items))


def _joined(earlier: StudyRef, later: StudyRef) -> StudyRef:
    return replace(earlier, objects=earlier.objects + later.objects, settled=earlier.settled and later.settled)


def _unique(ref: StudyRef, given: set[str]) -> StudyRef:
    """`ref`, under another key if an earlier part of its study was too far away to be joined."""
    if ref.key in given:
        ref = replace(ref, key=f"{ref.key}#{ref.objects[0].key}")
    given.add(ref.key)
    return ref
