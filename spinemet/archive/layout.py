"""What a layout of studies in an archive has to say: which keys are its own, how they group, how a study opens."""

import abc
from collections.abc import Iterator, Sequence
from typing import ClassVar

from spinemet.archive.objects import StudyObjects
from spinemet.archive.store import Store
from spinemet.types import ObjectRef, StudyRef

PART_OBJECTS = 5_000
"""Objects of one place that are held at a time; a place of more comes in parts."""


class Layout(abc.ABC):
    """One way in which studies lie in an archive. README.md beside this file says how to add one.

    name: as it stands in the tables. objects: opens a study. is_one_file: each object is a study of its own.
    part_objects: most objects that `studies` gets at a time.
    """

    name: ClassVar[str]
    objects: ClassVar[type[StudyObjects]]
    is_one_file: ClassVar[bool] = False
    part_objects: ClassVar[int] = PART_OBJECTS

    @abc.abstractmethod
    def place(self, key: str) -> str | None:
        """The folder (or key) whose objects are looked at together with this one; None if another layout owns `key`."""

    def studies(self, store: Store, place: str, objects: Sequence[ObjectRef]) -> Iterator[StudyRef]:
        """The studies among the objects of one place."""
        return (self.study(store, item) for item in objects)

    def study(self, store: Store, item: ObjectRef) -> StudyRef:
        """The study whose single, or main, file is `item`."""
        return StudyRef(store.archive, item.key, self.name, (item,))

    def split(self, uri: str) -> tuple[str, str] | None:
        """(archive, key) of the study at `uri` if it needs objects from outside its own folder."""
        return None
