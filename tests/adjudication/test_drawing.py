from __future__ import annotations

import re
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinemet.adjudication.drawing import CLEAR, KEY_COLUMNS, allocate, draw_sample
from spinemet.cohort.population import Population
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from tests.adjudication.readers import cohort, studies
from tests.cohort.cases import MODEL, Study, write_results


def test_every_stratum_is_drawn_and_each_vertebra_stands_for_its_like(connection: duckdb.DuckDBPyConnection) -> None:
    found = draw_sample(connection, 50, 0)
    first = found.key[found.key["repeats"] == ""]
    assert len(first) == found.strata["drawn"].sum() == 50
    assert found.strata["vertebrae"].sum() == 12 * 6  # the vertebrae that are cut cannot be drawn
    assert (first.groupby("stratum").size().to_numpy() == found.strata["drawn"]).all()
    assert first["weight"].sum() == pytest.approx(12 * 6)
    assert not first.duplicated(["source_key", "vertebra"]).any()
    assert set(first["stratum"].str.split().str[0]) == {"normal", "blastic", "mixed", "lytic"}
    assert set(first["stratum"].str.split().str[2]) == {"cervical", "thoracic", "lumbar", "unnamed"}


def test_strata_know_how_clear_a_call_is_under_the_rule(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), [Study("p", levels="L1 L2=lytic L3=blastic")], pictures=True)
    strata = draw_sample(open_cohort(results), 3, 0).strata["stratum"].tolist()
    assert CLEAR == 0.9  # normal 0.82, lytic 0.91, blastic 0.89 in all classes of a lesion
    assert strata == ["blastic close lumbar", "lytic clear lumbar", "normal close lumbar"]
    found = draw_sample(open_cohort(results, population=Population(rule=0.1)), 3, 0)
    assert set(found.strata["stratum"]) == {"blastic close lumbar", "lytic clear lumbar"}
    assert set(found.key["rule"]) == {"p(lesion) >= 0.1"}


def test_the_same_seed_draws_the_same_sample_and_another_seed_another(connection: duckdb.DuckDBPyConnection) -> None:
    one, same, other = (draw_sample(connection, 45, seed) for seed in (7, 7, 8))
    assert one.digest == same.digest != other.digest
    assert one.key.equals(same.key)
    assert set(map(tuple, one.places)) != set(map(tuple, other.places))


def test_some_vertebrae_come_twice_under_another_name_and_later(connection: duckdb.DuckDBPyConnection) -> None:
    key = draw_sample(connection, 50, 0, repeat=0.25).key
    again = key[key["repeats"] != ""]
    assert len(again) == 12
    assert key["item"].is_unique
    by_item = key.reset_index().set_index("item")
    for row in again.itertuples():
        first = by_item.loc[row.repeats]
        assert (first["source_key"], first["vertebra"], first["weight"]) == (row.source_key, row.vertebra, row.weight)
        assert first["index"] < 25 <= row.Index
    assert draw_sample(connection, 50, 0, repeat=0).key["repeats"].eq("").all()


def test_names_of_items_say_nothing_and_no_spreadsheet_changes_them(connection: duckdb.DuckDBPyConnection) -> None:
    found = draw_sample(connection, 50, 0)
    assert tuple(found.key.columns) == KEY_COLUMNS
    assert found.key["item"].map(lambda name: bool(re.fullmatch(r"[b-df-hj-np-tv-xz]{6}", name))).all()
    assert re.fullmatch(r"s[0-9a-f]{11}", found.digest)
    # Neither the order of names nor that of showing follows the strata.
    ranks = found.key["stratum"].rank()
    assert abs(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]) < 0.5
    assert abs(np.corrcoef(ranks, found.key["item"].rank())[0, 1]) < 0.5


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(0.01, 0.5)), min_size=1, max_size=40),
    st.integers(0, 4000),
    st.integers(1, 5),
)
def test_allocation_gives_every_stratum_its_floor_and_all_together_the_size(
    strata: list[tuple[int, float]], more: int, floor: int
) -> None:
    count, spread = (np.array(one) for one in zip(*strata, strict=True))
    size = int(np.minimum(count, floor).sum()) + more
    drawn = allocate(count, spread, size, floor)
    assert drawn.sum() == min(size, count.sum())
    assert (drawn >= np.minimum(count, floor)).all()
    assert (drawn <= count).all()


def test_allocation_is_in_proportion_to_count_times_spread() -> None:
    # Neyman 1934: n_h = n N_h S_h / sum(N S) = 100 · (400·0.1, 200·0.3, 100·1) / 200.
    assert allocate(np.array([400, 200, 1000]), np.array([0.1, 0.3, 0.1]), 100, 1).tolist() == [20, 30, 50]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 5}, "at least 42 vertebrae, 3 for each of"),
        ({"size": 50, "repeat": 0.6}, "from 0 to 0.5, found 0.6"),
        ({"size": 50, "sizes": {"normal close lumber": 3}}, "strata of this population, found normal close lumber"),
        ({"size": 50, "sizes": {"blastic close cervical": 1}}, "of the stratum .*, found 0: a stratum without any"),
        (
            {"size": 50, "sizes": {"blastic close cervical": 9}},
            "1 to 2 vertebrae of the stratum blastic close cervical",
        ),
    ],
)
def test_sizes_that_cannot_be_drawn_are_refused(
    connection: duckdb.DuckDBPyConnection, options: dict[str, object], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        draw_sample(connection, seed=0, **options)  # type: ignore[arg-type]


def test_given_sizes_are_drawn(connection: duckdb.DuckDBPyConnection) -> None:
    strata = draw_sample(connection, 50, 0).strata
    sizes = dict.fromkeys(strata["stratum"], 1)
    found = draw_sample(connection, 1, 0, sizes=sizes)
    assert found.strata["drawn"].tolist() == [1] * len(strata)
    assert found.strata["weight"].tolist() == strata["vertebrae"].tolist()


def test_vertebrae_without_a_picture_are_counted_and_none_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none of the 72 evaluable vertebrae has a picture.*without --no-pictures"):
        draw_sample(cohort(tmp_path, pictures=False), 40, 0)
    results = write_results(str(tmp_path / "two"), studies(2), pictures=True)
    write_results(results, [Study("later", levels="L1 L2")], wave="run-2/1")
    found = draw_sample(open_cohort(results), 12, 0)
    assert found.without_picture == 2
    assert "later" not in set(found.key["patient"])


def test_a_model_without_bone_quality_and_an_empty_population_are_refused(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), [Study("p", levels="L1")], pictures=True, only=["posterolateral"])
    with pytest.raises(BadInput, match="expected a model with the task bone_quality"):
        draw_sample(open_cohort(results), 3, 0)
    results = write_results(str(tmp_path / "cut"), [Study("p", levels="L1=cut")], pictures=True)
    with pytest.raises(BadInput, match="no evaluable vertebra in this population"):
        draw_sample(open_cohort(results), 3, 0)


def test_the_model_of_the_population_decides(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), studies(3), pictures=True)
    write_results(results, studies(3), model="ffffffffffff", wave="run-2/1")
    with pytest.raises(BadInput, match="several models"):
        open_cohort(results)
    found = draw_sample(open_cohort(results, population=Population(model=MODEL)), 18, 0)
    assert set(found.key["model"]) == {MODEL}
    assert found.without_picture == 0
