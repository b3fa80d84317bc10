from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spinemet.cohort.prevalence import prevalence
from spinemet.cohort.standard import BUILT_IN, STANDARDISED, read_standard
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.statistics.standardisation import StandardSums
from tests.cohort.cases import Study, write_results

COHORT = [
    Study(f"{sex}{age}-{n}", levels=f"L1{'=lytic' * (n < age // 30)} L2", age=age, sex=sex)
    for sex in "FM"
    for age in (45, 55, 75)
    for n in range(4 if sex == "F" else 6)
]
"""Of n patients of an age, age // 30 have a lesion in one of two vertebrae."""


def _asked(
    tmp_path: Path, standard: str, *by: str, studies: list[Study] = COHORT, unit: str = "patient"
) -> pd.DataFrame:
    cohort = open_cohort(write_results(str(tmp_path / "results"), studies))
    return prevalence(cohort, by, unit, standard=read_standard(standard)).query("finding == 'any'")


def _csv(tmp_path: Path, text: str) -> str:
    (tmp_path / "standard.csv").write_text(text)
    return str(tmp_path / "standard.csv")


def test_each_group_has_the_ages_of_the_standard(tmp_path: Path) -> None:
    own = _csv(tmp_path, "age_group,weight\n40-49,50\n50-59,30\n70-79,20\n80-89,0\n")
    table = _asked(tmp_path, own, "sex")
    assert table["standardised"].tolist() == pytest.approx(
        [0.5 / 4 + 0.3 / 4 + 0.2 * 2 / 4, 0.5 / 6 + 0.3 / 6 + 0.2 * 2 / 6]
    )
    assert set(table["standardisation"]) == {f"{own}: 40-49, 50-59, 70-79"}
    columns = list(table.columns)
    assert columns[columns.index("interval") + 1 :][:4] == list(STANDARDISED)


def test_the_interval_is_that_of_the_patients_counts(tmp_path: Path) -> None:
    studies = [*COHORT, Study("F45-0", levels="L1 T12=lytic", age=55), Study("u", levels="L1=lytic L2", age=None)]
    row = _asked(tmp_path, "europe", studies=studies, unit="vertebra").iloc[0]
    cohort = open_cohort(str(tmp_path / "results"))
    counts = cohort.execute(
        "select patient, age_group, count(*) filter (any_lesion) as x, count(*) as n from evaluable "
        "where age_group is not null group by all"
    ).df()
    positive, sizes = (counts.pivot(index="patient", columns="age_group", values=name).fillna(0) for name in "xn")
    share = dict(zip(sizes.columns, [14.0, 13.5, 9.0], strict=True))
    weight = np.array([share[name] for name in sizes.columns]) / sum(share.values())
    expected = StandardSums.of(positive, sizes, weight)
    assert row["standardised"] == pytest.approx(expected.share)
    assert (row["standardised_low"], row["standardised_high"]) == pytest.approx(
        (expected.interval.low, expected.interval.high)
    )


def test_ages_that_one_group_lacks_are_left_out_for_all_and_said(tmp_path: Path) -> None:
    studies = [one for one in COHORT if (one.sex, one.age) != ("M", 75)]
    table = _asked(tmp_path, "world", "sex", studies=studies)
    assert set(table["standardisation"]) == {"world: 40-49, 50-59"}
    assert table["standardised"].tolist() == pytest.approx([1 / 4, 1 / 6])
    assert "8 strata of the standard have no evaluable unit" in read_standard("world").notes(table)[0]


def test_strata_can_be_of_age_and_sex(tmp_path: Path) -> None:
    own = _csv(tmp_path, "age_group,sex,weight\n45,F,1\n".replace("45", "40-49") + "40-49,M,3\n")
    row = _asked(tmp_path, own).iloc[0]
    assert row["standardised"] == pytest.approx((1 / 4 + 3 / 6) / 4)
    with pytest.raises(BadInput, match="standardised for sex cannot be grouped by it"):
        _asked(tmp_path / "again", own, "sex")


def test_a_stratum_of_an_own_standard_without_units_is_refused(tmp_path: Path) -> None:
    own = _csv(tmp_path, "age_group,weight\n40-49,1\n60-69,1\n")
    with pytest.raises(BadInput, match="without an evaluable unit in one group at least: 60-69"):
        _asked(tmp_path, own)
    with pytest.raises(BadInput, match="cannot be used"):
        _asked(tmp_path / "b", "world", studies=[Study("p", levels="L1=cut")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("age,weight\n40-49,1\n", "found .* with age, weight"),
        ("age_group,weight,colour\n40-49,1,red\n", "with age_group, weight, colour"),
        ("age_group,weight\n40-44,1\n", "expected age groups out of 0-9, .*, found 40-44"),
        ("age_group,weight\n40-49,1\n40-49,2\n", "each stratum once"),
        ("age_group,weight\n40-49,-1\n", "weights of 0 or more"),
        ("age_group,weight\n40-49,0\n", "weights of 0 or more"),
        ("age_group,weight\n40-49,much\n", "expected world, europe or a CSV"),
        ("", "expected world, europe or a CSV"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_standard(_csv(tmp_path, text))


def test_a_standard_that_is_neither_built_in_nor_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected a file at"):
        read_standard(str(tmp_path / "mars"))


@pytest.mark.parametrize(("name", "total"), [("world", 100.035), ("europe", 100)])
def test_built_in_standards_add_up(name: str, total: float) -> None:
    assert sum(BUILT_IN[name]) == pytest.approx(total)
