"""A NIfTI volume with the vertebra masks that belong to it.

Three kinds of data sets are known: BIDS as VerSe has it (`rawdata/sub-1/sub-1_ct.nii.gz`, its mask in `derivatives`),
TotalSegmentator's (`s0001/ct.nii.gz`, its masks in `s0001/segmentations`), and volumes of any name.
"""

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import groupby

from spinemet import files
from spinemet.anatomy import level_in, may_be_vertebra
from spinemet.archive.layout import Layout
from spinemet.archive.layouts.folder import FolderObjects
from spinemet.archive.store import Store, Unlisted
from spinemet.types import ObjectRef, StudyRef

SUFFIXES = (".nii.gz", ".nii")
_MASKS_FOLDER = "segmentations"
_CT = re.compile(r"(^|[_-])ct$", re.IGNORECASE)
_LABELS = re.compile(r"(msk|mask|seg|label|vertebra|totalseg)", re.IGNORECASE)
_BIDS = re.compile(r"((?P<root>.*?)/)??(rawdata/)?(sub-[^/]+/)?(ses-[^/]+/)?((anat|ct)/)?(?P<stem>sub-[^/_]+[^/]*)")
_VERSE = re.compile(r"sub-(verse|gl)\d+")
_REPAIRED = re.compile(r"(_(Tilt|Eq)(_\d+)?)+$")
"""What dcm2niix adds to the name of a second file of one series, which it made upright or evenly spaced. The first file
has a wrong geometry then."""
_GENERIC = frozenset({"ct", "image", "img", "imaging", "volume", "vol", "scan", "data", "input"})
"""File names without information about the patient; the name of the folder is used instead."""


class Role(StrEnum):
    """What a NIfTI file is, as far as its name tells."""

    IMAGE = "image"
    LABEL_MAP = "label map"  # one file for all vertebrae
    VERTEBRA_MASK = "vertebra mask"  # one file per vertebra
    OTHER = "other"  # a mask or label map of something else


def role(key: str, *, beside_ct: bool = False) -> Role:
    """The role of a NIfTI file. beside_ct: a file whose name ends in `ct` lies beside it, and is the image then."""
    stem = _stem(key)
    parts = stem.split("_")
    if _folder(key).rpartition("/")[2] == _MASKS_FOLDER:
        return Role.VERTEBRA_MASK if level_in(stem) or may_be_vertebra(stem) else Role.OTHER
    if _CT.search(stem):
        return Role.IMAGE
    if parts[-1] == "msk" and "seg-vert" in parts:
        return Role.LABEL_MAP
    return Role.OTHER if beside_ct or _LABELS.search(stem) else Role.IMAGE


def identity(archive: str, key: str) -> tuple[str, str]:
    """(patient, study) of a NIfTI file, which has no header to say them; two files never share a study.

    BIDS: the subject, and the file's name, which is unique in its data set; with the folder of the data set before
    them if that is not the archive, except for VerSe, whose data sets share subjects. A generic name
    (`s0001/ct.nii.gz`): the folder, and the path (`s0001/ct`). Else both are the path (`liver_0`), the patient without
    an ending `_ct`.
    """
    path = _without_suffix(key)
    if bids := _BIDS.fullmatch(path):
        root = f"{bids['root']}/" if bids["root"] and not _VERSE.match(bids["stem"]) else ""
        return root + bids["stem"].split("_")[0], root + bids["stem"]
    if _stem(key).lower() in _GENERIC:
        if not _folder(key):
            path = f"{files.split(archive)[1]}/{path}"
        return path.rpartition("/")[0], path
    return re.sub(r"[_-]ct$", "", path, flags=re.IGNORECASE), path


class NiftiObjects(FolderObjects):
    """One image with its masks.

    image: its name. label_map: the name of the file with all vertebrae, None if there is none. vertebra_masks: names of
    the files with one vertebra each. patient, study: see `identity`.
    """

    def __init__(self, ref: StudyRef) -> None:
        super().__init__(ref)
        roles = {name: role(name) for name in self.names() if name != ref.key}
        self.image = ref.key
        self.label_map = next((name for name, what in roles.items() if what is Role.LABEL_MAP), None)
        self.vertebra_masks = [name for name, what in roles.items() if what is Role.VERTEBRA_MASK]
        self.patient, self.study = identity(ref.archive, ref.key)


class NiftiLayout(Layout):
    """A `.nii` or `.nii.gz` file that is an image. Label maps alone are no study."""

    name = "nifti"
    objects = NiftiObjects
    is_one_file = True

    def place(self, key: str) -> str | None:
        return _folder(key) if key[-7:].lower().endswith(SUFFIXES) else None

    def studies(self, store: Store, place: str, objects: Sequence[ObjectRef]) -> Iterator[StudyRef]:
        has_ct = any(_CT.search(_stem(item.key)) for item in objects)
        images = [item for item in objects if role(item.key, beside_ct=has_ct) is Role.IMAGE]
        for _, twins in groupby(sorted(images, key=_twin_order), key=lambda item: _original(item.key)):
            *others, last = twins  # x.nii.gz, x.nii, x_Tilt_1.nii.gz
            if others:
                store.unlisted[Unlisted.TWIN] += len(others)
            yield self._with_masks(store, last, objects)

    def study(self, store: Store, item: ObjectRef) -> StudyRef:
        return self._with_masks(store, item, store.folder(_folder(item.key)))

    def split(self, uri: str) -> tuple[str, str] | None:
        # VerSe keeps its masks outside the folder of the volume, so the archive is the folder above both.
        head, _, tail = uri.rpartition("/rawdata/")
        return (head, f"rawdata/{tail}") if head else None

    def _with_masks(self, store: Store, image: ObjectRef, siblings: Sequence[ObjectRef]) -> StudyRef:
        folder = _folder(image.key)
        beside = list(siblings)
        if "rawdata" in folder.split("/"):
            beside += store.folder("/".join("derivatives" if part == "rawdata" else part for part in folder.split("/")))
        maps = [item for item in beside if _is_map_of(item.key, image.key)][:1]
        masks = maps or [
            item
            for item in store.folder(f"{folder}/{_MASKS_FOLDER}".lstrip("/"))
            if item.key.lower().endswith(SUFFIXES) and role(item.key) is Role.VERTEBRA_MASK
        ]
        return StudyRef(store.archive, image.key, self.name, (image, *masks))


def _is_map_of(key: str, image: str) -> bool:
    """BIDS names: the entities of the image, with `seg-vert` and the suffix `msk`."""
    parts = _stem(key).split("_")
    entities = [part for part in parts[:-1] if not part.startswith("seg-")]
    return role(key) is Role.LABEL_MAP and entities == _stem(image).split("_")[:-1]


def _without_suffix(key: str) -> str:
    return next((key[: -len(suffix)] for suffix in SUFFIXES if key.lower().endswith(suffix)), key)


def _original(key: str) -> str:
    """The path, without its ending, of the file that dcm2niix wrote first of the same series."""
    return _REPAIRED.sub("", _without_suffix(key))


def _twin_order(item: ObjectRef) -> tuple[str, str, int]:
    """Of one series: the most repaired file last, and a plain one after a packed one."""
    return _original(item.key), _without_suffix(item.key), -len(item.key)


def _stem(key: str) -> str:
    return _without_suffix(key).rpartition("/")[2]


def _folder(key: str) -> str:
    return key.rpartition("/")[0]
