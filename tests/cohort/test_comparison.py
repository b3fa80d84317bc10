from datetime import date
from pathlib import Path

import numpy as np
import pytest

from spinemet.cohort.comparison import compare, compare_populations
from spinemet.cohort.population import Population
from spinemet.cohort.prevalence import prevalence
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from tests.cohort.cases import Study, write_results


def _studies(patients: int = 60) -> list[Study]:
    rng = np.random.default_rng(1)

    def level(name: str, share: float) -> str:
        return f"{name}{'=lytic' if rng.random() < share else ''}"

    return [
        Study(
            f"p{n:02d}",
            date(2019 + n % 3, 5, 1),
            " ".join([level("T12", 0.3), level("L1", 0.5), level("L2", 0.4)]),
            sex="FM"[n % 2],
        )
        for n in range(patients)
    ]


def test_both_sides_are_those_of_prevalence(tmp_path: Path) -> None:
    cohort = open_cohort(write_results(str(tmp_path), _studies()))
    for unit, column, values in (("patient", "sex", ["F", "M"]), ("vertebra", "region", ["thoracic", "lumbar"])):
        known = prevalence(cohort, [column], unit).set_index([column, "finding"])
        found = compare(cohort, column, values, unit).set_index("finding")
        for side, value in zip(("first", "second"), values, strict=True):
            one = known.loc[(value, "lytic")]
            assert found.loc["lytic", f"n_positive_{side}"] == one["n_positive"]
            assert found.loc["lytic", f"n_evaluable_{side}"] == one["n_evaluable"]
            assert found.loc["lytic", f"low_{side}"] == pytest.approx(one["ci_low"])
        rate = known["prevalence"].xs("any", level="finding")
        assert found.loc["any", "difference"] == pytest.approx(rate[values[1]] - rate[values[0]])
        assert found.loc["any", "ratio"] == pytest.approx(rate[values[1]] / rate[values[0]])
        assert found.loc["any", "difference_low"] < found.loc["any", "difference"] < found.loc["any", "difference_high"]


def test_a_rare_finding_is_too_few_and_has_no_interval(tmp_path: Path) -> None:
    table = compare(open_cohort(write_results(str(tmp_path), _studies())), "sex", ["F", "M"]).set_index("finding")
    assert table.loc["mixed", "interval"] == "too_few"
    assert np.isnan(table.loc["mixed", "difference_low"])
    assert table.loc["any", "interval"] == "clustered_t"


def test_two_populations_share_their_patients(tmp_path: Path) -> None:
    """The same people in both: what is equal in both takes no part in the difference."""
    place = write_results(str(tmp_path), _studies())
    everyone = open_cohort(place)
    same = compare_populations(everyone, open_cohort(place, None, Population(where="age > 1")), "vertebra")
    assert same["difference"].tolist() == [0, 0, 0, 0]
    women = compare_populations(everyone, open_cohort(place, None, Population(where="sex = 'F'")), "vertebra")
    assert women.loc[0, "n_patients_second"] == 30
    assert women.loc[0, "first"] != women.loc[0, "second"]
    apart = compare(everyone, "sex", ["M", "F"], "vertebra")
    width = women.loc[0, "difference_high"] - women.loc[0, "difference_low"]
    assert width < apart.loc[0, "difference_high"] - apart.loc[0, "difference_low"]


def test_wrong_questions_are_bad_input(tmp_path: Path) -> None:
    place = write_results(str(tmp_path), _studies(4))
    cohort = open_cohort(place)
    for column, values, unit, words in (
        ("colour", ["a", "b"], "patient", "columns out of level"),
        ("sex", ["F"], "patient", "two different values of sex"),
        ("sex", ["F", "X"], "patient", "out of F, M, found X"),
        ("sex", ["F", "M"], "study", "vertebra, patient as unit"),
    ):
        with pytest.raises(BadInput, match=words):
            compare(cohort, column, values, unit)
    with pytest.raises(BadInput, match="same model, configuration and rule"):
        compare_populations(cohort, open_cohort(place, None, Population(rule=0.3)))
