from pathlib import Path

import numpy as np
import pytest

from spinemet.cohort.follow_up import called_by_error, vertebra_errors, visit_errors
from spinemet.cohort.population import Population
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.statistics.hidden_lesions import CallErrors
from tests.cohort.cases import Study, write_results
from tests.cohort.evaluations import good_evaluation, write_evaluation


def test_errors_are_those_of_the_stored_calls(tmp_path: Path) -> None:
    cohort = open_cohort(write_results(str(tmp_path / "r"), [Study("p1", levels="L1")]))
    place = good_evaluation(tmp_path / "e")
    errors = vertebra_errors(cohort, place)
    assert np.diag(errors.shares_CC) == pytest.approx([0.9] * 4)
    assert errors.shares_CC[0, 1] == pytest.approx(0.1)
    visits = visit_errors(cohort, place)
    # One more right and one more wrong than 54 of 60 and 18 of 20.
    assert (visits.sensitivity, visits.specificity) == pytest.approx((55 / 62, 19 / 22))
    assert (visits.with_lesion, visits.without) == (62, 22)


def test_a_study_is_positive_with_one_positive_vertebra(tmp_path: Path) -> None:
    cohort = open_cohort(write_results(str(tmp_path / "r"), [Study("p1", levels="L1")]))
    well = [[("normal", "normal"), ("normal", "lytic" if n == 0 else "normal")] for n in range(8)]
    ill = [[("normal", "normal"), ("lytic", "mixed")] for _ in range(8)]
    errors = visit_errors(cohort, write_evaluation(tmp_path / "e", [*well, *ill]))
    assert (errors.sensitivity, errors.specificity) == pytest.approx((9 / 10, 8 / 10))


def test_an_evaluation_that_tells_too_little_is_refused(tmp_path: Path) -> None:
    """Under 0.17 a vertebra whose most probable class is normal has a lesion with 0.18: all are called so."""
    place = write_results(str(tmp_path / "r"), [Study("p1", levels="L1")])
    with pytest.raises(BadInput, match=r"only 4 evaluated patients are normal.*--uncorrected"):
        vertebra_errors(open_cohort(place), good_evaluation(tmp_path / "few", 4))
    with pytest.raises(BadInput, match="the calls do not tell them apart"):
        visit_errors(open_cohort(place, None, Population(rule=0.17)), good_evaluation(tmp_path / "e"))


def test_the_next_call_by_error_depends_on_the_calls_so_far() -> None:
    errors = CallErrors(0.8, 0.9, 50, 50)
    assert called_by_error(errors, 0.0, 3, 0) == pytest.approx(0.1)
    assert called_by_error(errors, 1.0, 3, 0) == pytest.approx(0.8)
    ill, free = 0.5 * 0.2, 0.5 * 0.9
    assert called_by_error(errors, 0.5, 1, 0) == pytest.approx((ill * 0.8 + free * 0.1) / (ill + free))
    assert called_by_error(errors, 0.5, 1, 1) > called_by_error(errors, 0.5, 2, 0)
