"""DICOMweb as static files: `studies/UID/series/UID/instances/UID/` with `metadata` (JSON) and `frames/1`.

So OHIF's static-wado, RadicalImaging's Static-DICOMweb and other writers store studies; see `file-structure.md` of the
latter, and PS3.18 chapter 10.4 and annex F for the JSON. Each file may be packed with gzip, with or without `.gz`; a
frame is its bytes alone or one part of a multipart answer. Metadata may lie with the instance, with the series, with
the study, or as `deduplicated.gz` with the study, whose shared parts may be moved out into `bulkdata`.

An instance is put together again as a DICOM object (PS3.10), so that every other room reads it like any other object.
Nothing is fetched but the objects below the study's folder, whatever its metadata refers to.
"""

import json
import re
import zlib
from collections.abc import Iterator, Sequence

from spinemet.archive.layout import Layout
from spinemet.archive.layouts.dicom_json import (
    PLAIN_SYNTAX,
    UNCOMPRESSED,
    Instance,
    Json,
    beginning,
    instance_of,
    sequence_item,
    text,
)
from spinemet.archive.layouts.folder import FolderObjects, PooledObjects
from spinemet.archive.layouts.packed import MEMBERS_LIMIT
from spinemet.archive.objects import MEMBER_LIMIT
from spinemet.archive.store import Store
from spinemet.errors import Reason, StudyFailed
from spinemet.types import ObjectRef, StudyRef

METADATA_LIMIT = 256 << 20
"""Bytes of one file of metadata; a series of 5,000 instances has some 50 MB."""
FRAME_HEAD_BYTES = 1024
"""Holds the head of a multipart answer, packed or not."""

_UID = r"\d+(?:\.\d+)+"
_OWN = re.compile(
    rf"(?P<study>(?:(?:.*/)?studies/)?{_UID})/"
    rf"(?:(?P<instance>series/(?P<series>{_UID})/instances/{_UID})/|series/{_UID}/|series/|)"
    r"(?:(?P<file>metadata|index|instances|deduplicated|thumbnail|pixeldata|studies|series)"
    r"(?:/index)?(?:\.(?:json|mht|bin|jpe?g|png|gz))*"
    r"|(?P<folder>frames|bulkdata|rendered|thumbnails?|jls\w*|htj2k\w*|brick)/.+)"
)
_INDEX = re.compile(rf"((?:.*/)?(?:deduplicated|instances)/{_UID})/\w+\.gz|(?:(.*)/)?(?:studies|index\.json)\.gz")
_FRAME = re.compile(r"frames/(\d+)(?:/index)?(?:\.\w+)*")
_ENDING = re.compile(r"(?:/index)?(?:\.json|\.mht|\.bin|\.gz)*$")
_NEEDED = frozenset({"metadata", "deduplicated", "pixeldata", "frames", "bulkdata"})
_SYNTAX_OF_TYPE = {
    b"image/jls": "1.2.840.10008.1.2.4.80",
    b"image/jp2": "1.2.840.10008.1.2.4.90",
    b"image/jphc": "1.2.840.10008.1.2.4.201",
}
"""The transfer syntax of a media type that names none (PS3.18 table 8.7.3-2)."""
_MULTIPART = re.compile(rb"(?:\r\n)?(--[^\r\n]{1,200})\r\n((?:[^\r\n]+\r\n)+)\r\n", re.DOTALL)


class DicomwebObjects(PooledObjects):
    """The instances of one study, each as a DICOM object. An instance without readable metadata is an empty object."""

    def __init__(self, ref: StudyRef) -> None:
        super().__init__(ref)
        self._files = FolderObjects(ref)
        self.are_near = self._files.are_near
        self._uid = ref.key.rpartition("/")[2]
        self._frames: dict[str, dict[int, str]] = {}
        self._keys: dict[str, str] = {}  # path below the study, without its ending -> key
        self._instances: dict[str, Instance | None] = {}
        for item in ref.objects:
            path = item.key.removeprefix(f"{ref.key}/")
            self._keys[_ENDING.sub("", path)] = item.key
            own = _OWN.fullmatch(item.key)
            if own and own["instance"]:
                frames = self._frames.setdefault(own["instance"], {})
                if frame := _FRAME.fullmatch(path.removeprefix(f"{own['instance']}/")):
                    frames[int(frame[1])] = item.key
        self._read_shared_metadata()
        self._names = sorted(self._frames.keys() | self._instances.keys())
        if not self._names:
            raise StudyFailed(Reason.BROKEN_ARCHIVE, "the metadata of the DICOMweb study names no instance.")

    def names(self) -> list[str]:
        return self._names

    def size(self, name: str) -> int:
        instance = self._instance(name)
        if instance is None:
            return 0
        return len(beginning(instance, PLAIN_SYNTAX, None)) + sum(map(self._files.size, self._pixel_keys(name)))

    def head(self, name: str, size: int) -> bytes:
        """The first `size` bytes; never more than the element that begins the pixels."""
        instance = self._instance(name)
        if instance is None:
            return b""
        keys = self._pixel_keys(name)
        if not keys and instance.inline is None:
            return beginning(instance, PLAIN_SYNTAX, None)[:size]
        named = [_part(_unpacked(self._files.head(key, FRAME_HEAD_BYTES), FRAME_HEAD_BYTES))[0] for key in keys[:1]]
        return beginning(instance, "".join(named) or instance.syntax or PLAIN_SYNTAX, instance.pixel_bytes)[:size]

    def read(self, name: str) -> bytes:
        """The instance as one DICOM object, put together from its metadata and frames; empty if it has no metadata."""
        instance = self._instance(name)
        if instance is None:
            return b""
        parts = [_part(_unpacked(self._files.read(key), MEMBER_LIMIT)) for key in self._pixel_keys(name)]
        if not parts:
            if instance.inline is None:
                return beginning(instance, PLAIN_SYNTAX, None)
            parts = [("", instance.inline)]
        syntax = parts[0][0] or instance.syntax or PLAIN_SYNTAX
        frames = [frame for _, frame in parts]
        if syntax in UNCOMPRESSED:
            pixels = b"".join(frames)
            return beginning(instance, syntax, len(pixels)) + pixels + b"\0" * (len(pixels) % 2)
        end = sequence_item(0xE0DD, b"")
        if len(frames) == 1 and frames[0][:4] == end[:2] + b"\x00\xe0":  # all items of the element
            items = frames[0].removesuffix(end)
        else:
            items = b"".join(sequence_item(0xE000, frame) for frame in (b"", *frames))
        return beginning(instance, syntax, 0) + items + end

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._files.__exit__(None, None, None)

    # ---- metadata ----

    def _read_shared_metadata(self) -> None:
        """Take the instances from the metadata of the series, or of the study if a series has none of its own."""
        for path in [path for path in self._keys if re.fullmatch(rf"series/{_UID}/metadata", path)]:
            self._take(self._json(path))
        without = [
            name for name in self._frames if name not in self._instances and f"{name}/metadata" not in self._keys
        ]
        if without or not self._frames:
            self._take(self._json("metadata"))
            self._take(self._joined(self._json("deduplicated")))

    def _take(self, found: list[Json]) -> None:
        for dataset in found:
            series, instance = text(dataset, "0020000E"), text(dataset, "00080018")
            if re.fullmatch(_UID, series) and re.fullmatch(_UID, instance):
                self._instances.setdefault(f"series/{series}/instances/{instance}", instance_of(dataset))

    def _instance(self, name: str) -> Instance | None:
        if name not in self._instances:
            found = self._json(f"{name}/metadata")
            self._instances[name] = instance_of(found[0]) if found else None
        return self._instances[name]

    def _json(self, path: str) -> list[Json]:
        """The data sets in a file of metadata; none if it does not exist or cannot be parsed."""
        key = self._keys.get(path)
        if key is None:
            return []
        try:
            found = json.loads(_unpacked(self._files.read(key), METADATA_LIMIT))
        except (ValueError, RecursionError):
            return []
        return [item for item in (found if isinstance(found, list) else [found]) if isinstance(item, dict)]

    def _joined(self, items: Sequence[Json]) -> list[Json]:
        """Deduplicated instances with the parts that they share: (0009,1010) refers to the hash in (0009,1011)."""
        shared = {text(item, "00091011"): item for item in items}
        joined: list[Json] = []
        for item in items:
            if text(item, "00091012") != "instance":
                continue
            whole = dict(item)
            for name in item.get("00091010", {}).get("Value") or ():
                part = shared.get(name)
                if part is None:
                    (part,) = self._json(f"bulkdata/{name[:3]}/{name[3:5]}/{name[5:]}")[:1] or ({},)
                    shared[name] = part
                whole = {**part, **whole}
            joined.append(whole)
        return joined

    def _pixel_keys(self, name: str) -> list[str]:
        """The objects that hold the pixels of an instance, in the order of its frames."""
        frames = self._frames.get(name, {})
        instance = self._instance(name)
        if frames or instance is None:
            return [frames[number] for number in sorted(frames)]
        below_study = _ENDING.sub("", instance.pixel_uri).rpartition(f"/{self._uid}/")[2]
        paths = (f"{name}/pixeldata", re.sub(r"^(\.\./)*", "", below_study))
        return [self._keys[path] for path in paths if path in self._keys][:1]


class DicomwebLayout(Layout):
    """`studies/UID/series/UID/instances/UID/…`, the folder `studies` anywhere in the archive or the archive itself."""

    name = "dicomweb"
    objects = DicomwebObjects
    part_objects = 4 * MEMBERS_LIMIT  # a study comes whole; four files for each instance

    def place(self, key: str) -> str | None:
        if not (key[:1].isdigit() or "studies" in key or key.endswith(".gz")):
            return None  # ten times as fast as the patterns
        if own := _OWN.fullmatch(key):
            return own["study"]
        index = _INDEX.fullmatch(key)
        return (index[1] or index[2] or "") if index else None

    def studies(self, store: Store, place: str, objects: Sequence[ObjectRef]) -> Iterator[StudyRef]:
        by_study: dict[str, list[ObjectRef]] = {}
        for item in objects:
            own = _OWN.fullmatch(item.key)
            if own and (own["file"] or own["folder"]) in _NEEDED:
                by_study.setdefault(own["study"], []).append(item)
        for study, items in by_study.items():
            # Metadata alone may be a document in a folder of DICOM objects.
            if any(not item.key.startswith(f"{study}/metadata") for item in items):
                yield StudyRef(store.archive, study, self.name, tuple(items))

    def split(self, uri: str) -> tuple[str, str] | None:
        found = re.fullmatch(rf"(.+)/(studies/{_UID})", uri)
        return (found[1], found[2]) if found else None


# ---- answers as files ----------------------------------------------------------------------------------------


def _unpacked(content: bytes, limit: int) -> bytes:
    """`content` without gzip; of a packed file that is cut off, what can be unpacked."""
    if content[:3] != b"\x1f\x8b\x08":
        return content
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(content, limit)
    except zlib.error as error:
        raise StudyFailed(Reason.BROKEN_ARCHIVE, "a packed file of the DICOMweb study is damaged.") from error
    if unpacker.unconsumed_tail and limit > FRAME_HEAD_BYTES:
        raise StudyFailed(Reason.MEMORY_LIMIT, f"a file of the DICOMweb study unpacks to more than {limit >> 20} MB.")
    return plain


def _part(content: bytes) -> tuple[str, bytes]:
    """(transfer syntax, bytes) of a frame; the syntax is "" if the frame does not name it."""
    found = _MULTIPART.match(content[:FRAME_HEAD_BYTES])
    if found is None:
        return "", content
    headers = found[2]
    named = re.search(rb'transfer-syntax="?([\d.]+)', headers)
    syntax = named[1].decode() if named else next((uid for kind, uid in _SYNTAX_OF_TYPE.items() if kind in headers), "")
    end = content.rfind(b"\r\n" + found[1])
    return syntax, content[found.end() : end if end >= found.end() else len(content)]
