from datetime import date
from pathlib import Path

import pytest

from spinemet.cohort.population import Population
from spinemet.config import changed, load_config
from spinemet.errors import BadInput


@pytest.mark.parametrize(
    "population",
    [
        Population(),
        Population(model="0123456789ab", since=date(2015, 1, 1), until=date(2019, 12, 31), rule=0.3, counted="first"),
        Population(where="kernel in ('B30f', 'a \"quoted\" one')"),
    ],
)
def test_a_file_makes_the_same_population_again(tmp_path: Path, population: Population) -> None:
    (tmp_path / "population.toml").write_text(population.as_toml())
    again = load_config(tmp_path / "population.toml", Population)
    assert again == population
    assert again.digest == population.digest


def test_every_value_changes_the_digest() -> None:
    values = {"model": "a", "configuration": "b", "since": "2015-01-01", "until": "2016-01-01", "where": "age > 50"}
    made = [
        Population(),
        *(changed(Population(), **{k: v}) for k, v in (values | {"counted": "first", "rule": "0.3"}).items()),
    ]
    assert len({one.digest for one in made}) == len(made)


@pytest.mark.parametrize(
    "values", [{"rule": "most"}, {"rule": "1.5"}, {"counted": "all"}, {"since": "2019-01-01", "until": "2018-01-01"}]
)
def test_values_that_mean_nothing_are_bad_input(values: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        changed(Population(), **values)


@pytest.mark.parametrize(
    ("values", "calendar", "whole"),
    [
        ({}, False, True),
        ({"since": "2015-01-01"}, True, True),
        ({"until": "2015-06-30"}, True, False),
        ({"where": "Year >= 2015"}, True, True),
        ({"where": "study_date is null"}, True, False),
        ({"where": "age >= 50"}, False, True),
    ],
)
def test_what_a_population_asks_of_dates(values: dict[str, str], calendar: bool, whole: bool) -> None:
    population = changed(Population(), **values)
    assert (population.needs_calendar, population.in_whole_years) == (calendar, whole)
