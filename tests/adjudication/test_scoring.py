from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats import inter_rater

from spinemet.adjudication.drawing import NUMBERS, Sample, _drawn, _strata
from spinemet.adjudication.scoring import _of_model, score
from spinemet.types import BONE_QUALITY
from tests.adjudication.readers import Answer, sheet


def value(
    table: pd.DataFrame, measure: str, of: str, among: str = "population", task: str = "bone_quality"
) -> pd.Series:
    rows = table[(table["task"] == task) & (table["measure"] == measure) & (table["of"] == of)]
    (row,) = rows[rows["among"] == among].to_dict("records")
    return pd.Series(row)


def blurred(seed: int, wrong: float = 0.2) -> Answer:
    """A reader who gives another answer than the model to some."""
    rng = np.random.default_rng(seed)
    return lambda row: str(rng.choice(BONE_QUALITY)) if rng.random() < wrong else str(row["bone_quality"])


def test_kappa_of_readers_equals_scikit_learns_and_statsmodels(drawn: tuple[Sample, object]) -> None:
    key = drawn[0].key
    sheets = [sheet(key, name, blurred(n)) for n, name in enumerate(("AB", "CD", "EF"))]
    table = score(key, sheets).table
    first = key[key["repeats"] == ""]["item"]
    said = [one.answers.loc[first, "bone_quality"] for one in sheets]
    two = value(table, "cohen_kappa", "AB and CD", "sample")
    assert two["value"] == pytest.approx(cohen_kappa_score(said[0], said[1]), abs=1e-9)
    assert two["n"] == 50
    counts, _ = inter_rater.aggregate_raters(np.stack(said, axis=1))
    assert value(table, "fleiss_kappa", "all 3", "sample")["value"] == pytest.approx(
        inter_rater.fleiss_kappa(counts), abs=1e-9
    )
    weights = key[key["repeats"] == ""]["weight"]
    assert value(table, "cohen_kappa", "AB and CD")["value"] == pytest.approx(
        cohen_kappa_score(said[0], said[1], sample_weight=weights), abs=1e-9
    )


def test_a_reader_is_compared_with_himself_on_what_came_twice(drawn: tuple[Sample, object]) -> None:
    key = drawn[0].key
    again = key["repeats"] != ""
    changing = set(key[again]["item"].iloc[:2])
    other = {"normal": "lytic", "lytic": "mixed", "mixed": "blastic", "blastic": "normal"}
    fickle = sheet(
        key, "AB", lambda row: other[row["bone_quality"]] if row["item"] in changing else row["bone_quality"]
    )
    table = score(key, [fickle]).table
    row = value(table, "agreement", "AB twice", "sample")
    assert (row["value"], row["n"]) == (pytest.approx(1 - 2 / again.sum()), again.sum())
    # Second showings count nowhere else: the consensus is the model's call everywhere.
    assert value(table, "sensitivity", "any")["value"] == value(table, "specificity", "any")["value"] == 1.0


def test_the_model_is_measured_with_the_weights_of_the_sample(drawn: tuple[Sample, object]) -> None:
    key = drawn[0].key
    first = key[key["repeats"] == ""]
    missed = first[first["bone_quality"] == "normal"]["item"].iloc[0]
    found = score(key, [sheet(key, "AB", lambda row: "lytic" if row["item"] == missed else row["bone_quality"])])
    lesions = first[first["bone_quality"] != "normal"]["weight"].sum()
    weight = first.set_index("item").loc[missed, "weight"]
    row = value(found.table, "sensitivity", "any")
    assert row["value"] == pytest.approx(lesions / (lesions + weight))
    assert row["low"] < row["value"] < row["high"]
    assert row["patients"] <= 12
    counts = found.confusions[found.confusions["task"] == "bone_quality"].set_index(["truth", "predicted"])["count"]
    assert counts["lytic", "normal"] == pytest.approx(weight, abs=0.05)
    assert counts.sum() == pytest.approx(72, abs=0.5)
    assert found.facts["vertebrae"] == 50
    assert found.facts["split"] == "adjudicated"


def test_vertebrae_that_nobody_can_judge_are_counted_and_measure_nothing(drawn: tuple[Sample, object]) -> None:
    key = drawn[0].key
    dark = set(key[key["repeats"] == ""]["item"].iloc[:10])
    one = sheet(key, "AB", lambda row: "cannot judge" if row["item"] in dark else row["bone_quality"])
    found = score(key, [one])
    assert value(found.table, "cannot_judge", "consensus", "sample")["value"] == pytest.approx(0.2)
    assert value(found.table, "sensitivity", "any")["n"] + value(found.table, "specificity", "any")["n"] == 40
    assert found.vertebrae["bone_quality_true"].isna().sum() == 10
    nothing = score(key, [sheet(key, "AB", lambda _: "cannot judge", lambda _: "cannot judge")])
    assert nothing.vertebrae.empty
    assert nothing.facts["cannot_judge"] == 50
    assert "sensitivity" not in set(nothing.table["measure"])


def test_a_task_that_the_model_lacks_has_readers_only(drawn: tuple[Sample, object]) -> None:
    key = drawn[0].key.assign(posterolateral="")
    table = score(key, [sheet(key, "AB"), sheet(key, "CD")]).table
    rows = table[table["task"] == "posterolateral"]
    assert set(rows["measure"]) == {"agreement", "cohen_kappa", "cannot_judge"}


def test_the_measures_are_unbiased_over_500_draws() -> None:
    """The model errs on thoracic vertebrae, of which the sample takes few: without weights it would look better."""
    rng, count = np.random.default_rng(3), 2400
    frame = pd.DataFrame(dict.fromkeys(NUMBERS, 0.0), index=range(count)).assign(
        **{name: [f"{name}{n // 8}" for n in range(count)] for name in ("patient", "study", "source_key")},
        vertebra=np.arange(count) % 8,
        level=np.where(np.arange(count) % 8 < 5, "T8", "L2"),
        called=rng.choice(["normal", "lytic"], count, p=[0.75, 0.25]),
        error=0.1,
        has_picture=True,
    )
    thoracic = frame["level"] == "T8"
    frame["stratum"] = frame["called"] + np.where(thoracic, " thoracic", " lumbar")
    wrong = rng.random(count) < np.where(thoracic, 0.2, 0.02)
    truth = frame["called"].where(~wrong, frame["called"].map({"normal": "lytic", "lytic": "normal"}))
    ill, called = truth == "lytic", frame["called"] == "lytic"
    expected = np.array([called[ill].mean(), (~called[~ill]).mean()])

    connection = duckdb.connect()
    connection.execute("create table sampling_frame as from frame")

    def measured(seed: int, weighted: bool) -> list[float]:
        strata, _ = _strata(connection, seed, 150)
        strata["drawn"] = [150, 60, 150, 60]  # lytic lumbar, lytic thoracic, normal lumbar, normal thoracic
        strata["weight"] = strata["vertebrae"] / strata["drawn"]
        items = _drawn(strata)
        place = items["source_key"].str.removeprefix("source_key").astype(int) * 8 + items["vertebra"]
        said = pd.Series(truth[place].to_numpy(), items.index, name="bone_quality")
        rows = _of_model(("normal", "lytic"), said, items if weighted else items.assign(weight=1.0))
        return [row["value"] for row in rows if row["of"] == "any"]

    found = np.array([measured(seed, True) for seed in range(500)])
    plain = np.array([measured(seed, False) for seed in range(50)])
    assert found.mean(axis=0) == pytest.approx(expected, abs=0.005)
    assert (np.abs(plain.mean(axis=0) - expected) > 0.02).all()
