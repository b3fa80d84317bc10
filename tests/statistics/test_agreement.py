import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats import inter_rater

from spinemet.statistics.agreement import COHEN, FLEISS, MISSING, SHARE, agreement, cohen_kappa, fleiss_kappa
from spinemet.statistics.measures import confusion_matrix


def readers(count: int, items: int = 300, seed: int = 0) -> np.ndarray:
    """(R, N) answers of readers who mostly see the same: four classes, one in five answers at random."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, items, p=[0.6, 0.2, 0.1, 0.1])
    guesses = rng.choice(4, (count, items))
    return np.where(rng.random((count, items)) < 0.2, guesses, truth)


@pytest.mark.parametrize("seed", range(5))
def test_kappa_equals_that_of_statsmodels_and_of_scikit_learn(seed: int) -> None:
    first, second = readers(2, seed=seed)
    counts = confusion_matrix(first, second, 4)
    assert float(cohen_kappa(counts)) == pytest.approx(inter_rater.cohens_kappa(counts).kappa, abs=1e-9)
    assert float(cohen_kappa(counts)) == pytest.approx(cohen_kappa_score(first, second), abs=1e-9)
    many, _ = inter_rater.aggregate_raters(readers(5, seed=seed).T, 4)
    assert fleiss_kappa(many) == pytest.approx(inter_rater.fleiss_kappa(many), abs=1e-9)


def test_weights_count_like_items_that_stand_there_so_many_times() -> None:
    answers, patients = readers(3, 60), np.arange(60) // 4
    times = np.random.default_rng(1).integers(1, 5, 60)
    for rows in (answers[:2], answers):
        repeated = agreement(np.repeat(rows, times, axis=1), np.repeat(patients, times), 4)
        assert [one.value for one in agreement(rows, patients, 4, times)] == pytest.approx([o.value for o in repeated])
        assert [one.high for one in agreement(rows, patients, 4, times)] == pytest.approx([o.high for o in repeated])


def test_two_readers_get_cohens_kappa_and_more_get_fleiss() -> None:
    answers, patients = readers(3), np.arange(300) // 5
    share, kappa = agreement(answers[:2], patients, 4)
    assert (share.name, share.value) == (SHARE, float((answers[0] == answers[1]).mean()))
    assert (kappa.name, kappa.items, kappa.patients) == (COHEN, 300, 60)
    assert kappa.value == pytest.approx(cohen_kappa_score(*answers[:2]), abs=1e-9)
    assert kappa.low < kappa.value < kappa.high
    assert agreement(answers, patients, 4)[1].name == FLEISS


def test_an_item_that_one_reader_did_not_answer_is_left_out() -> None:
    answers, patients = readers(2), np.arange(300) // 5
    holes = answers.copy()
    holes[0, 10:], holes[1, :3] = np.where(np.arange(290) < 280, answers[0, 10:], MISSING), MISSING
    share, kappa = agreement(holes, patients, 4)
    assert share.items == kappa.items == 287
    assert kappa.value == pytest.approx(cohen_kappa_score(*answers[:, 3:290]), abs=1e-9)


def test_the_interval_counts_patients_and_not_items() -> None:
    answers, patients = readers(2, 40), np.arange(40)
    alone = agreement(answers, patients, 4)[1]
    together = agreement(np.repeat(answers, 10, axis=1), np.repeat(patients, 10), 4)[1]
    assert together.value == pytest.approx(alone.value)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))


@pytest.mark.parametrize(
    ("answers", "value"),
    [([[0, 1, 2], [0, 1, 2]], 1.0), ([[1, 1, 1], [1, 1, 1]], math.nan), ([[MISSING] * 3, [0, 1, 2]], math.nan)],
)
def test_full_agreement_claims_no_interval_and_one_class_alone_no_kappa(answers: list[list[int]], value: float) -> None:
    share, kappa = agreement(np.array(answers), np.arange(3), 4)
    assert kappa.value == pytest.approx(value, nan_ok=True)
    assert math.isnan(kappa.low)
    assert math.isnan(share.high)
