from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from spinemet.cohort.density import density
from spinemet.cohort.views import open_cohort
from tests.cohort.cases import Study, write_results

LEVELS = [f"T{n}" for n in range(1, 13)] + [f"L{n}" for n in range(1, 6)]


def _measured(place: str, studies: list[Study]) -> duckdb.DuckDBPyConnection:
    """The tables of `studies` with HU that fall with age and differ by patient and vertebra."""
    cohort = open_cohort(write_results(place, studies))
    hu = "250 - 1.7 * s.age + 40 * (hash(v.patient_key) % 100) / 100.0 + 3 * v.vertebra"
    cohort.execute(
        f"create table changed as select v.* replace ({hu} as trabecular_hu) from all_vertebrae v join studies s "
        "using (source_key, wave)"
    )
    cohort.execute("create or replace view all_vertebrae as from changed")
    return cohort


def _studies(patients: int) -> list[Study]:
    rng = np.random.default_rng(0)
    studies = []
    for n in range(patients):
        levels = [f"{level}{'=lytic' * int(rng.random() < 0.2)}" for level in LEVELS[: rng.integers(1, 9)]]
        studies.append(Study(f"p{n}", levels=" ".join(levels), age=int(rng.integers(40, 90)), sex="FM"[n % 2]))
    return studies


def test_mean_and_slope_are_those_of_statsmodels_on_the_vertebrae(tmp_path: Path) -> None:
    cohort = _measured(str(tmp_path), _studies(40))
    rows = cohort.execute(
        "select sex, patient, age, trabecular_hu as hu from evaluable where not any_lesion order by all"
    ).df()
    table = density(cohort).set_index("sex")
    for sex, part in rows.groupby("sex"):
        found = table.loc[sex]
        assert (found["n_vertebrae"], found["n_patients"]) == (len(part), part["patient"].nunique())
        assert found["sd_hu"] == pytest.approx(part["hu"].std(), rel=1e-9)
        groups = {"groups": pd.factorize(part["patient"])[0]}
        mean = sm.OLS(part["hu"], np.ones(len(part))).fit(cov_type="cluster", cov_kwds=groups, use_t=True)
        assert found["mean_hu"] == pytest.approx(mean.params.iloc[0], rel=1e-9)
        assert (found["ci_low"], found["ci_high"]) == pytest.approx(tuple(mean.conf_int().iloc[0]), rel=1e-9)
        line = sm.OLS(part["hu"], sm.add_constant(part["age"])).fit(cov_type="cluster", cov_kwds=groups, use_t=True)
        assert found["hu_per_decade"] == pytest.approx(10 * line.params["age"], rel=1e-9)
        ends = 10 * line.conf_int().loc["age"]
        assert (found["decade_low"], found["decade_high"]) == pytest.approx(tuple(ends), rel=1e-9)


def test_lesions_cut_and_unmeasured_vertebrae_are_left_out(tmp_path: Path) -> None:
    cohort = open_cohort(write_results(str(tmp_path), [Study("p1", levels="L1=lytic L2 L3=cut L4=? L5=normal!")]))
    table = density(cohort, [])
    assert table[["n_vertebrae", "n_lesions", "n_unmeasured", "mean_hu"]].iloc[0].tolist() == [1, 1, 0, 142.0]
    assert table[["ci_low", "hu_per_decade"]].isna().all(axis=None), "one vertebra has no spread"


def test_a_vertebra_without_an_age_has_a_density_and_no_slope(tmp_path: Path) -> None:
    studies = [replace(study, age=None) for study in _studies(4)]
    table = density(open_cohort(write_results(str(tmp_path), studies)), [])
    assert table.loc[0, "n_vertebrae"] > 0
    assert table.loc[0, "n_aged"] == 0
    assert np.isnan(table.loc[0, "hu_per_decade"])


def test_nothing_in_view_gives_no_row(tmp_path: Path) -> None:
    assert density(open_cohort(write_results(str(tmp_path), [Study("p1")])), ["sex"]).empty
