"""What a screening run is asked for, and the check of it before anything is written."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from spinemet.archive.listing import list_studies
from spinemet.archive.store import Unlisted
from spinemet.config import DatePolicy, StudyConfig, changed, config_digest
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput
from spinemet.model.card import load_card, model_digest, read_weights
from spinemet.screening.linkage import check_linkage_apart
from spinemet.screening.plan import Selection, check_apart, find_studies, first_checked
from spinemet.types import StudyRef


@dataclass(frozen=True)
class ScreenOptions:
    """What a run screens, with what, and where the answers go.

    key: the pseudonym key. config: how studies are read; its slices are replaced by those that the model was trained
    on. selection: which studies. max_hours: stop after this time; what is done is committed. workers: model actors;
    None for one per GPU, or on CPUs for one per two. gpus: how many GPUs they take; the cluster may still have to start
    them. None for the GPUs that it has now. pictures: also store the straightened spine. slices: also store the
    probabilities of each slice. linkage: where to write the table that says which identifiers the pseudonyms stand for;
    None for no table.
    """

    archive: str
    results: str
    model: str
    key: bytes = field(repr=False)
    config: StudyConfig = field(default_factory=StudyConfig)
    dates: DatePolicy = "shifted"
    selection: Selection = field(default_factory=Selection)
    max_hours: float | None = None
    workers: int | None = None
    gpus: int | None = None
    pictures: bool = True
    slices: bool = False
    linkage: str | None = None


@dataclass(frozen=True)
class Inputs:
    """Everything that checked options lead to: studies, pseudonyms, reading configuration, `runs` digest columns.

    unlisted: counts what could not be listed, while `studies` are taken.
    """

    studies: Iterator[StudyRef]
    unlisted: Counter[Unlisted]
    names: Pseudonymizer
    config: StudyConfig
    digests: dict[str, str]


def check_options(options: ScreenOptions) -> Inputs:
    """The inputs of a run. Raises BadInput if a number is out of range, a place is missing or wrong, or a selected
    study is not in the archive.
    """
    for name, number, least in (
        ("limit", options.selection.limit, 1),
        ("number of workers", options.workers, 1),
        ("number of GPUs", options.gpus, 0),
    ):
        if number is not None and number < least:
            raise BadInput(f"expected a {name} of at least {least}, found {number}.")
    if not options.selection.quiet_s >= 0:
        raise BadInput(f"expected quiet minutes of at least 0, found {options.selection.quiet_s / 60:g}.")
    if options.max_hours is not None and not options.max_hours > 0:
        raise BadInput(f"expected a number of hours above 0, found {options.max_hours:g}.")
    card = load_card(options.model)
    read_weights(options.model, card)  # finds a damaged model now, and without torch, which a quiet night does not need
    config = changed(options.config, slices=card.spec.slices)
    names = Pseudonymizer(options.key, options.dates)
    check_apart(options.archive, options.results)
    if options.linkage is not None:
        check_apart(options.archive, options.linkage)
        check_linkage_apart(options.linkage, options.results)
    unlisted: Counter[Unlisted] = Counter()
    studies = first_checked(list_studies(options.archive, unlisted))
    if options.selection.studies:
        studies = find_studies(studies, names, options.selection.studies)
    digests = {"model_digest": model_digest(card), "config_digest": config_digest(config)}
    return Inputs(studies, unlisted, names, config, digests)
