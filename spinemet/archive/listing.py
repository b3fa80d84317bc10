"""Which studies an archive holds, and how one study is opened.

The listing is streamed in the order of the keys; what it holds in memory does not grow with the archive.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from spinemet import files
from spinemet.archive.grouping import settle
from spinemet.archive.layout import Layout
from spinemet.archive.layouts import LAYOUTS
from spinemet.archive.layouts.folder import FolderLayout, are_documents
from spinemet.archive.layouts.packed import TarLayout, ZipLayout
from spinemet.archive.objects import StudyObjects
from spinemet.archive.store import Store, Unlisted, open_store
from spinemet.errors import BadInput
from spinemet.types import ObjectRef, StudyRef


def list_studies(uri: str, unlisted: Counter[Unlisted] | None = None) -> Iterator[StudyRef]:
    """Every study below `uri`, roughly in the order of the keys.

    Folders of documents (`labels.csv`, `README.md`) are left out. unlisted: counts what could not be listed while
    the studies come. Raises BadInput, on the first step, if `uri` is missing, cannot be listed or holds no study.
    """
    store = open_store(files.normalize(uri))
    if unlisted is not None:
        store.unlisted = unlisted
    found = False
    for ref in settle(_candidates(store), store.read):
        found = True
        yield ref
    if not found:
        missing = f" ({describe(store.unlisted)})" if store.unlisted else ""
        raise BadInput(f"no study was found below {store.archive}{missing}.")


def study_at(uri: str | Path) -> StudyRef:
    """The one study at `uri`: a folder or prefix, a zip, a tar or a NIfTI volume, local or on S3.

    Everything below a folder counts as that one study. Raises BadInput if there is no study, or more than one.
    """
    place = files.normalize(uri)
    is_local = not files.is_s3(place)
    layout, _ = _owner(files.split(place)[1])
    if not (is_local and Path(place).is_dir()) and (layout.is_one_file or (is_local and Path(place).is_file())):
        archive, key = layout.split(place) or files.split(place)
        store = open_store(archive)
        return layout.study(store, store.stat(key))
    for one in LAYOUTS:
        if not one.is_one_file and (split := one.split(place)):
            store = open_store(split[0])
            owned = [item for item in store.objects(f"{split[1]}/") if one.place(item.key) is not None]
            refs = list(one.studies(store, split[1], owned))
            if len(refs) == 1:
                return refs[0]
    refs = _studies_together(open_store(place))
    if len(refs) == 1:
        return refs[0]
    raise BadInput(f"one study is expected at {place}, but there {f'are {len(refs)}' if refs else 'is none'}.")


def open_study(ref: StudyRef) -> StudyObjects:
    """The objects of `ref`, as a context manager.

    Raises StudyFailed: UNREACHABLE (the store does not answer, the file has vanished), BROKEN_ARCHIVE (a zip or tar
    that cannot be unpacked), UNSAFE_ARCHIVE and MEMORY_LIMIT (one that nobody should unpack).
    """
    return next(layout for layout in LAYOUTS if layout.name == ref.layout).objects(ref)


def describe(unlisted: Counter[Unlisted]) -> str:
    """`folders without access: 3, files without access: 1`; "" if nothing was left out."""
    return ", ".join(f"{kind}: {count}" for kind, count in sorted(unlisted.items()) if count)


# ---- from keys to studies ------------------------------------------------------------------------------------


def _candidates(store: Store) -> Iterator[StudyRef]:
    """The studies that the keys suggest; a large place comes in several parts, each with the place's key.

    The objects of a place wait for each other until the listing has left it. Places lie within each other, so few are
    open at a time.
    """
    waiting: dict[tuple[str, Layout], list[ObjectRef]] = {}

    def close(place: str, layout: Layout) -> Iterator[StudyRef]:
        objects = waiting.pop((place, layout))
        if not _no_study(layout, objects):
            yield from layout.studies(store, place, objects)

    def close_all(key: str | None) -> Iterator[StudyRef]:
        left = [entry for entry in waiting if key is None or not _lies_in(key, entry[0])]
        # The deepest first, and of one place the folder last.
        for place, layout in sorted(left, key=lambda entry: (-len(entry[0]), LAYOUTS.index(entry[1]))):
            yield from close(place, layout)

    folder: str | None = None
    for item in store.objects():
        here = item.key.rpartition("/")[0]
        if here != folder:
            folder = here
            yield from close_all(item.key)
        layout, place = _owner(item.key)
        objects = waiting.setdefault((place, layout), [])
        objects.append(item)
        if len(objects) >= layout.part_objects:
            yield from close(place, layout)
    yield from close_all(None)


def _studies_together(store: Store) -> list[StudyRef]:
    """The studies of a place whose objects count as one study, apart from files that are a study of their own."""
    places: dict[tuple[str, Layout], list[ObjectRef]] = {}
    for item in store.objects():
        layout, place = _owner(item.key)
        if isinstance(layout, FolderLayout):
            place = ""
        places.setdefault((place, layout), []).append(item)
    found = [
        (layout, ref)
        for (place, layout), objects in places.items()
        if not _no_study(layout, objects)
        for ref in layout.studies(store, place, objects)
    ]
    wide = sorted({LAYOUTS.index(layout) for layout, _ in found if not layout.is_one_file})
    # NIfTI beside DICOM objects is taken for a copy or a mask; a zip or a tar is another study.
    others = (ZipLayout, TarLayout)
    return [ref for layout, ref in found if not wide or layout is LAYOUTS[wide[0]] or isinstance(layout, others)]


def _no_study(layout: Layout, objects: list[ObjectRef]) -> bool:
    """Whether a place holds documents only, such as `README.md`."""
    return isinstance(layout, FolderLayout) and are_documents(objects)


def _owner(key: str) -> tuple[Layout, str]:
    for layout in LAYOUTS:
        place = layout.place(key)
        if place is not None:
            return layout, place
    raise AssertionError("the folder layout owns every key")


def _lies_in(key: str, place: str) -> bool:
    return not place or key.startswith(f"{place}/")
