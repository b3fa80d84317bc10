"""The published model: the one that an answer is about if the question names none, although several have screened.

The object `published.json` beside the tables lists the publications in order. The last one counts; for the tables as
they were at a moment, the last one before it.
"""

from datetime import UTC, datetime

from pydantic import AwareDatetime, ValidationError

from spinemet import files
from spinemet.config import FrozenModel
from spinemet.errors import BadInput
from spinemet.results.tables import connect

PUBLISHED = "published.json"


class Publication(FrozenModel):
    """A model and a reading configuration by their digests, published at a moment."""

    model: str
    configuration: str
    published_at: AwareDatetime


class _Publications(FrozenModel):
    publications: tuple[Publication, ...] = ()


def publications(uri: str) -> list[Publication]:
    """All publications at the results place `uri`, in order of time."""
    place = files.join(uri, PUBLISHED)
    if not files.exists(place):
        return []
    try:
        return list(_Publications.model_validate_json(files.read_bytes(place)).publications)
    except ValidationError as error:
        raise BadInput(f"{place} is damaged; delete it and publish the model again.") from error


def published(uri: str, as_of: datetime | None = None) -> Publication | None:
    """The publication that counts now, or at the moment `as_of`; None if there is none."""
    past = [one for one in publications(uri) if as_of is None or one.published_at <= as_of]
    return past[-1] if past else None


def publish(uri: str, model: str, configuration: str = "") -> list[Publication]:
    """Publish a model that has screened; returns all publications.

    model, configuration: the first digits of the digests; configuration can be empty if the model has screened with one
    only. Raises BadInput if not exactly one model and configuration fit.
    """
    rows = (
        connect(uri).sql("SELECT DISTINCT model_digest, config_digest FROM studies WHERE state = 'screened'").fetchall()
    )
    fits = [row for row in rows if row[0].startswith(model) and row[1].startswith(configuration)]
    if len(fits) != 1:
        there = "; ".join(f"model {one} with configuration {other}" for one, other in sorted(fits or rows))
        wanted = " with configuration ".join(text for text in (model, configuration) if text)
        raise BadInput(
            "expected the first digits of one model that has screened, and of its configuration if it has several, "
            f"found {wanted}. There are: {there or 'none'}."
        )
    return _store(uri, [*publications(uri), Publication(
        model=fits[0][0], configuration=fits[0][1], published_at=datetime.now(UTC)
    )])  # fmt: skip


def take_back(uri: str) -> list[Publication]:
    """Take the last publication back, so that the one before it counts again; returns those that are left."""
    known = publications(uri)
    if not known:
        raise BadInput(f"no model is published at {files.normalize(uri)}.")
    return _store(uri, known[:-1])


def _store(uri: str, known: list[Publication]) -> list[Publication]:
    content = _Publications(publications=tuple(known)).model_dump_json(indent=2) + "\n"
    files.write_bytes(files.join(uri, PUBLISHED), content.encode())
    return known
