"""Pseudonyms are stable and keyed, and do not contain the identifier."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinemet.dicom.pseudonym import KEY_FILE_VARIABLE, KEY_VARIABLE, Pseudonymizer, load_key
from spinemet.errors import BadInput

KEY = b"0123456789abcdef"


def test_keys_are_stable_separate_and_depend_on_the_secret() -> None:
    names, other = Pseudonymizer(KEY, "exact"), Pseudonymizer(KEY[::-1], "exact")
    keys = {names.patient_key("1.2"), names.study_key("1.2"), names.series_key("1.2"), names.source_key("1.2", "")}
    assert len(keys) == 4
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)
    assert names.patient_key(" 1.2 ") == names.patient_key("1.2") != other.patient_key("1.2")
    # Must never change: users join result tables on it across versions.
    assert names.patient_key("1.2") == "477a358f75e230833cddb1712f58c8e1"


def test_an_empty_identifier_has_no_pseudonym_but_every_place_has_one() -> None:
    names = Pseudonymizer(KEY, "exact")
    assert names.patient_key("") == names.study_key("  ") == ""
    assert names.source_key("/archive", "") != names.source_key("/archive", "a") != ""
    assert len(names.source_key("/archive", "file-\udcff")) == 32


@given(st.text(min_size=1).filter(str.strip), st.dates(date(1990, 1, 1), date(2030, 1, 1)), st.integers(0, 5000))
def test_shifted_dates_keep_the_intervals_of_a_patient(patient: str, first: date, days: int) -> None:
    names = Pseudonymizer(KEY, "shifted")
    second = date.fromordinal(first.toordinal() + days)
    one, other = (names.study_date(patient, f"{day:%Y%m%d}") for day in (first, second))
    assert one is not None
    assert other is not None
    assert (other - one).days == days
    assert 1 <= (first - one).days <= 364


def test_policies_for_dates() -> None:
    assert Pseudonymizer(KEY, "exact").study_date("p", "20200229") == date(2020, 2, 29)
    assert Pseudonymizer(KEY, "year").study_date("p", "20200229") == date(2020, 1, 1)
    assert Pseudonymizer(KEY, "shifted").study_date("", "20200229") is None
    shifts = {Pseudonymizer(KEY, "shifted").study_date(str(n), "20200229") for n in range(50)}
    assert len(shifts) > 20
    for text in ("", "2020", "20201332", "notadate"):
        assert Pseudonymizer(KEY, "exact").study_date("p", text) is None


@pytest.mark.parametrize(("years", "shown"), [(None, None), (0.5, 0), (67.9, 67), (89.9, 89), (90, 90), (103, 90)])
def test_ages_over_89_are_one_category(years: float | None, shown: float | None) -> None:
    assert Pseudonymizer(KEY, "exact").age(years) == shown


def test_the_key_comes_from_the_environment_or_an_owner_only_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    with pytest.raises(BadInput, match="no pseudonym key"):
        load_key()
    assert len(load_key(ephemeral=True)) == 32
    assert load_key(ephemeral=True) != load_key(ephemeral=True)
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(BadInput, match="at least 16"):
        load_key()
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    assert load_key() == KEY
    monkeypatch.delenv(KEY_VARIABLE)
    path = tmp_path / "key"
    path.write_bytes(KEY[::-1] + b"\n")
    path.chmod(0o644)
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(path))
    with pytest.raises(BadInput, match="run chmod 600"):
        load_key()
    path.chmod(0o600)
    assert load_key() == load_key(key_file=path) == KEY[::-1]
    with pytest.raises(BadInput, match="readable key file"):
        load_key(key_file=tmp_path / "absent")
