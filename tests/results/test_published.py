"""Answers are about the published model, whatever experiments have screened since."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from spinemet.cli import main
from spinemet.cohort.population import Population
from spinemet.cohort.prevalence import notes, prevalence
from spinemet.cohort.views import asked, open_cohort, run_sql
from spinemet.errors import BadInput
from spinemet.results.published import PUBLISHED, publications, publish, published, take_back
from tests.cohort.cases import CONFIG, MODEL, Study, write_results

OTHER = "fedcba987654"


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Fifteen patients screened by MODEL; three of them also by OTHER, an experiment that calls everything normal."""
    uri = write_results(str(tmp_path), [Study(f"p{n}", levels="T12=lytic L1") for n in range(15)])
    return write_results(uri, [Study(f"p{n}", levels="T12 L1") for n in range(3)], model=OTHER, wave="run-2/0")


def patients(uri: str, population: Population | None = None) -> int:
    table = prevalence(open_cohort(uri, population=population), [], unit="patient")
    return int(table["n_evaluable"].max())


def test_an_experiment_does_not_replace_the_published_answers(place: str) -> None:
    with pytest.raises(BadInput, match=r"several models .* or publish one with spinemet tables publish"):
        open_cohort(place)
    publish(place, MODEL[:4])
    assert patients(place) == 15
    assert "This is the published model." in notes(open_cohort(place))
    assert len(run_sql(place, "from cohort")) == 15
    experiment = Population(model=OTHER)
    assert patients(place, experiment) == 3
    assert f"The published model is {MODEL} with configuration {CONFIG}." in notes(open_cohort(place, None, experiment))


def test_a_publication_is_changed_and_taken_back_in_one_command(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    for given, model in (([MODEL], MODEL), ([OTHER], OTHER), (["--back"], MODEL)):
        assert main(["tables", "publish", place, *given]) == 0
        assert capsys.readouterr().out.splitlines()[1].startswith(f"{model},{CONFIG},20")
        assert asked(open_cohort(place))["model"] == model
    assert main(["tables", "publish", place, "--back"]) == 0
    assert publications(place) == []
    assert main(["tables", "publish", place, "--back"]) == 2
    assert main(["tables", "publish", place, MODEL, "--back"]) == 2


def test_an_earlier_moment_goes_by_what_was_published_then(place: str) -> None:
    publish(place, MODEL)
    between = datetime.now(UTC)
    publish(place, OTHER)
    assert asked(open_cohort(place, between))["model"] == MODEL
    assert asked(open_cohort(place))["model"] == OTHER
    assert published(place, datetime(2020, 1, 1, tzinfo=UTC)) is None
    assert [one.model for one in take_back(place)] == [MODEL]


@pytest.mark.parametrize("model", ["", "77"])
def test_only_one_model_that_has_screened_is_published(place: str, model: str) -> None:
    with pytest.raises(BadInput, match=f"expected the first digits of one model.*There are: model {MODEL} with"):
        publish(place, model)
    assert publications(place) == []


def test_a_damaged_list_of_publications_is_bad_input(place: str) -> None:
    Path(place, PUBLISHED).write_text("{")
    with pytest.raises(BadInput, match=r"published\.json is damaged"):
        open_cohort(place)
