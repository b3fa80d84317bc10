"""Each patient is in one part or fold, and every stratum has the given shares."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinemet.errors import BadInput
from spinemet.training.split import fold_patients, split_patients

shares = st.floats(0, 0.45)


@given(st.sets(st.text(min_size=1, max_size=6), max_size=60), st.integers(0, 99), shares, shares, st.data())
def test_split_puts_each_patient_in_one_part_with_the_given_shares(
    patients: set[str], seed: int, test: float, validation: float, data: st.DataObject
) -> None:
    strata = {patient: data.draw(st.integers(0, 2)) for patient in sorted(patients)}
    parts = split_patients(patients, seed, test, validation, strata)
    assert parts.keys() == patients
    counts = Counter(parts.values())
    assert counts["test"] == round(len(patients) * test)
    assert abs(counts["validation"] - len(patients) * validation) <= 1.5
    for stratum in range(3):
        members = [patient for patient in patients if strata[patient] == stratum]
        assert abs(sum(parts[patient] == "test" for patient in members) - len(members) * test) <= 1


@given(st.lists(st.text(min_size=1, max_size=6), max_size=40), st.integers(0, 99), st.randoms())
def test_split_does_not_depend_on_order_or_repeats(patients: list[str], seed: int, random: object) -> None:
    shuffled = patients + patients[:3]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split_patients(patients, seed, 0.2, 0.1) == split_patients(shuffled, seed, 0.2, 0.1)


def test_split_changes_with_the_seed_and_hardly_with_one_more_patient() -> None:
    patients = [f"p{n}" for n in range(100)]
    before = split_patients(patients, 0, 0.2, 0.1)
    assert before != split_patients(patients, 1, 0.2, 0.1)
    after = split_patients([*patients, "one more"], 0, 0.2, 0.1)
    assert sum(before[patient] != after[patient] for patient in patients) <= 3


def test_split_refuses_shares_that_leave_nobody_to_train_on() -> None:
    with pytest.raises(BadInput, match="together below 1"):
        split_patients(["a"], 0, 0.6, 0.4)


@given(st.sets(st.text(min_size=1, max_size=6), min_size=5, max_size=60), st.integers(2, 5), st.data())
def test_folds_are_equal_and_each_has_its_share_of_every_stratum(
    patients: set[str], folds: int, data: st.DataObject
) -> None:
    strata = {patient: data.draw(st.integers(0, 2)) for patient in sorted(patients)}
    found = fold_patients(patients, folds, 0, strata)
    assert found == fold_patients(sorted(patients, reverse=True), folds, 0, strata)
    assert found.keys() == patients
    for members in (patients, *({one for one in patients if strata[one] == stratum} for stratum in range(3))):
        counts = [sum(found[patient] == fold for patient in members) for fold in range(folds)]
        assert max(counts) - min(counts) <= 1


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(BadInput, match=r"at most one per patient \(2\), found 3"):
        fold_patients(["a", "b"], 3, 0, {})
