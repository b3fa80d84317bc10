"""Which studies an archive holds, and how one study is opened.

A study is
- a `.zip`, `.tar`, `.tar.gz`, `.tgz`, `.tar.xz` or `.tar.zst` file, wherever it lies;
- a NIfTI volume (`.nii`, `.nii.gz`) with the vertebra masks that belong to it; label maps alone are no study;
- `patient/study`, where objects lie in `patient/study/series/` and headers bear that out;
- wherever else objects lie, those that share PatientID and StudyInstanceUID (grouping.py).

The listing is streamed in the order of the keys; what is held of it does not grow with the archive.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

from obstore.exceptions import BaseError

from spinemet import files
from spinemet.archive.grouping import PART_OBJECTS, settle
from spinemet.archive.objects import StudyObjects, head_reader, is_ignored, open_objects
from spinemet.errors import BadInput
from spinemet.types import Layout, ObjectRef, StudyRef

STUDY_DEPTH = 2
"""Folders below the archive's root that name a study: patient and study, as TCIA and most exports lay them."""

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst")
_NIFTI = (".nii", ".nii.gz")
_DOCUMENT = (".csv", ".tsv", ".json", ".txt", ".md", ".xlsx", ".xls", ".pdf", ".html", ".xml", ".toml", ".png", ".jpg")
_CT_NAME = re.compile(r"(^|[_-])ct$", re.IGNORECASE)
MASKS_FOLDER = "segmentations"
"""Where TotalSegmentator and its training data lay one binary mask per structure, beside `ct.nii.gz`."""
_VERTEBRA_NAME = re.compile(r"vertebrae_[CTLS]\d+")
_LABEL_NAME = re.compile(r"(msk|mask|seg|label|vertebra|totalseg)", re.IGNORECASE)


def list_studies(uri: str) -> Iterator[StudyRef]:
    """Every study below `uri`, roughly in the order of the keys.

    Documents directly in the root or in a patient folder (`labels.csv`, `README.md`) are passed over where there is
    any study besides. Raises BadInput, on the first step, where `uri` is missing, cannot be listed or holds no study.
    """
    archive = files.normalize(uri)
    found = False
    for ref in settle(_candidates(archive), head_reader(archive)):
        found = True
        yield ref
    if not found:
        raise BadInput(f"expected studies below {archive}, found no object that could be one.")


def study_at(uri: str | Path) -> StudyRef:
    """The one study at `uri`: a folder or prefix, a zip, a tar or a NIfTI volume, local or on S3.

    Everything below a folder counts as that one study. Raises BadInput where nothing is there.
    """
    place = files.normalize(uri)
    parent, name = files.split(place)
    layout = _layout(name)
    is_folder = not files.is_s3(place) and Path(place).is_dir()
    if layout is not Layout.PREFIX and not is_folder:
        size = _size_at(place)
        if layout is Layout.NIFTI:
            # VerSe keeps its masks outside the volume's folder, so the archive is the folder above both.
            head, _, tail = place.rpartition("/rawdata/")
            archive, key = (head, f"rawdata/{tail}") if head else (parent, name)
            folder = key.rpartition("/")[0]
            beside = [replace(item, key=f"{folder}/{item.key}".lstrip("/")) for item in _list_folder(parent)]
            return _nifti_study(archive, ObjectRef(key, size), beside)
        return StudyRef(parent, name, layout, (ObjectRef(name, size),))
    if not is_folder and not files.is_s3(place) and Path(place).is_file():
        return StudyRef(parent, name, Layout.PREFIX, (ObjectRef(name, _size_at(place)),))
    refs = list(_studies_of(place, "", list(_list_objects(place))))
    for ref in refs:
        if ref.layout is Layout.PREFIX:
            return ref
    if len(refs) == 1:
        return refs[0]
    raise BadInput(f"expected one study at {place}, found {f'{len(refs)} files of one each' if refs else 'nothing'}.")


def open_study(ref: StudyRef) -> StudyObjects:
    """The objects of `ref`, as a context manager.

    Raises StudyFailed: UNREACHABLE (the store does not answer, the file has vanished), BROKEN_ARCHIVE (a zip or tar
    that cannot be unpacked), MEMORY_LIMIT (it would unpack to more than any CT study holds).
    """
    return open_objects(ref)


# ---- grouping by keys ----------------------------------------------------------------------------------------


def _candidates(archive: str) -> Iterator[StudyRef]:
    """What the keys alone suggest: single files, and prefixes, those of more than PART_OBJECTS in several parts."""
    in_root: list[ObjectRef] = []
    found = False
    for patient, group in groupby(_list_objects(archive), key=lambda item: item.key.rpartition("/")[0].split("/")[0]):
        loose: list[ObjectRef] = in_root if not patient else []
        deeper = False
        for prefix, objects in groupby(group, key=lambda item: _study_prefix(item.key)):
            if prefix != patient:
                while part := list(islice(objects, PART_OBJECTS)):
                    for ref in _studies_of(archive, prefix, part):
                        deeper = found = True
                        yield ref
                continue
            # Objects beside the study folders: files that are a study of their own pass at once, the others wait.
            for item in objects:
                if _layout(item.key) in {Layout.ZIP, Layout.TAR}:
                    deeper = found = True
                    yield StudyRef(archive, item.key, _layout(item.key), (item,))
                    continue
                loose.append(item)
                if len(loose) >= PART_OBJECTS:
                    for ref in _studies_of(archive, patient, loose, alone=not deeper):
                        deeper = found = True
                        yield ref
                    loose.clear()
        if patient:
            for ref in _studies_of(archive, patient, loose, alone=not deeper):
                found = True
                yield ref
    yield from _studies_of(archive, "", in_root, alone=not found)


def _study_prefix(key: str) -> str:
    return "/".join(key.split("/")[:-1][:STUDY_DEPTH])


def _layout(key: str) -> Layout:
    name = key.lower()
    if name.endswith(".zip"):
        return Layout.ZIP
    if name.endswith(_TAR):
        return Layout.TAR
    return Layout.NIFTI if name.endswith(_NIFTI) else Layout.PREFIX


def _studies_of(archive: str, prefix: str, objects: Sequence[ObjectRef], *, alone: bool = True) -> Iterator[StudyRef]:
    """The studies among the objects of one prefix: its single files, and what is left of it as one study.

    Documents by themselves are a study only where nothing else is there (`alone`): it then fails as not DICOM.
    """
    volumes = [item for item in objects if _layout(item.key) is Layout.NIFTI]
    rest: list[ObjectRef] = []
    for item in objects:
        layout = _layout(item.key)
        if layout is Layout.PREFIX:
            rest.append(item)
        elif layout is not Layout.NIFTI:
            yield StudyRef(archive, item.key, layout, (item,))
        elif _is_volume(item, volumes):
            yield _nifti_study(archive, item, volumes)
    only_documents = all(item.key.lower().endswith(_DOCUMENT) for item in rest)
    if rest and not (only_documents and (len(rest) < len(objects) or not alone)):
        yield StudyRef(archive, prefix, Layout.PREFIX, tuple(rest))


def _stem(key: str) -> str:
    name = key.rsplit("/", 1)[-1]
    return name[: -len(".nii.gz")] if name.lower().endswith(".gz") else name[: -len(".nii")]


def _is_volume(item: ObjectRef, siblings: Iterable[ObjectRef]) -> bool:
    """Whether a NIfTI file is a CT rather than a label map, as far as names tell.

    Names that end in `ct` are. Others are unless they are named like a label map or lie beside one that ends in `ct`.
    """
    folder = item.key.rpartition("/")[0]
    if folder.rpartition("/")[2] == MASKS_FOLDER:
        return False
    if _CT_NAME.search(_stem(item.key)):
        return True
    beside_ct = any(other.key.rpartition("/")[0] == folder and _CT_NAME.search(_stem(other.key)) for other in siblings)
    return not beside_ct and not _LABEL_NAME.search(item.key.rsplit("/", 2)[-1])


def _nifti_study(archive: str, volume: ObjectRef, siblings: Sequence[ObjectRef]) -> StudyRef:
    """The volume with its vertebra masks: in the same folder, or (VerSe) in `derivatives` beside `rawdata`, or
    (TotalSegmentator) one mask per vertebra in the folder `segmentations`.
    """
    folder = volume.key.rpartition("/")[0]
    beside = [item for item in siblings if item.key.rpartition("/")[0] == folder]
    if "rawdata" in folder.split("/"):
        derivatives = "/".join("derivatives" if part == "rawdata" else part for part in folder.split("/"))
        found = _list_folder(files.join(archive, derivatives))
        beside += [replace(item, key=f"{derivatives}/{item.key}") for item in found]
    masks = [item for item in beside if _is_mask_of(_stem(item.key), _stem(volume.key))][:1]
    if not masks:
        inside = f"{folder}/{MASKS_FOLDER}".lstrip("/")
        found = _list_folder(files.join(archive, inside))
        masks = [
            replace(item, key=f"{inside}/{item.key}") for item in found if _VERTEBRA_NAME.fullmatch(_stem(item.key))
        ]
    return StudyRef(archive, volume.key, Layout.NIFTI, (volume, *masks))


def _is_mask_of(mask: str, volume: str) -> bool:
    """BIDS names: same entities, the mask with `seg-vert` and the suffix `msk` in addition."""
    mask_parts, volume_parts = mask.split("_"), volume.split("_")
    if mask_parts[-1] != "msk" or "seg-vert" not in mask_parts:
        return False
    return [part for part in mask_parts[:-1] if not part.startswith("seg-")] == volume_parts[:-1]


# ---- listing -------------------------------------------------------------------------------------------------


def _list_objects(archive: str) -> Iterator[ObjectRef]:
    """Every object below `archive` that may belong to a study, sorted by key, a page at a time."""
    listed = _list_s3(archive) if files.is_s3(archive) else _list_local(Path(archive))
    previous: ObjectRef | None = None
    for item in listed:
        if is_ignored(item.key):
            continue
        # An empty object that others lie "below" is the folder marker that S3 consoles write.
        if previous is not None and not (previous.size == 0 and item.key.startswith(previous.key + "/")):
            yield previous
        previous = item
    if previous is not None:
        yield previous


def _list_s3(archive: str) -> Iterator[ObjectRef]:
    # S3 lists in the order of the keys' UTF-8 bytes.
    try:
        for page in files.open_store(archive).list(chunk_size=1000):
            for meta in page:
                yield ObjectRef(meta["path"], meta["size"], meta["last_modified"].timestamp())
    except (BaseError, OSError) as error:
        raise BadInput(f"expected an archive that can be listed at {archive}, found {type(error).__name__}.") from error


def _list_local(root: Path) -> Iterator[ObjectRef]:
    if not root.is_dir():
        raise BadInput(f"expected a folder at {root}, found none.")
    yield from _walk(root, "", (os.path.realpath(root),))


def _walk(folder: Path, prefix: str, above: tuple[str, ...]) -> Iterator[ObjectRef]:
    """The files below `folder` in the order S3 would list them; links are followed, but never in a circle."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name + "/" * entry.is_dir(), entry) for entry in entries]
    except OSError as error:
        raise BadInput(f"expected folders that can be listed, found {type(error).__name__} below the root.") from error
    for name, entry in sorted(found, key=lambda pair: os.fsencode(pair[0])):
        if name.endswith("/"):
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
            if real not in above:
                yield from _walk(Path(entry.path), prefix + name, (*above, real))
            continue
        with suppress(FileNotFoundError):  # deleted since the folder was read
            if entry.is_file():
                status = entry.stat()
                yield ObjectRef(prefix + name, status.st_size, status.st_mtime)


def _list_folder(place: str) -> list[ObjectRef]:
    """The objects directly in `place`; none where there is no such place."""
    if not files.is_s3(place):
        if not Path(place).is_dir():
            return []
        with os.scandir(place) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
        return [ObjectRef(name, status.st_size, status.st_mtime) for name, status in sorted(found)]
    try:
        page = files.open_store(place).list_with_delimiter()
    except (BaseError, OSError) as error:
        raise BadInput(f"expected an archive that can be listed at {place}, found {type(error).__name__}.") from error
    return [ObjectRef(meta["path"], meta["size"], meta["last_modified"].timestamp()) for meta in page["objects"]]


def _size_at(place: str) -> int:
    parent, name = files.split(place)
    if not files.is_s3(place):
        try:
            return Path(place).stat().st_size
        except OSError as error:
            raise BadInput(f"expected a study at {place}, found {error.strerror or 'nothing'}.") from error
    try:
        return int(files.open_store(parent).head(name)["size"])
    except (BaseError, OSError) as error:
        raise BadInput(f"expected a study at {place}, found {type(error).__name__}.") from error
