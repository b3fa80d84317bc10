"""The marks of a model's patients: the key's owner finds each patient's part, others learn nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from spinemet.config import changed
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput
from spinemet.model.card import CARD, load_card
from spinemet.model.checkpoint import ModelCard, save_model
from spinemet.model.marks import MARKS, Matching, load_marks, mark
from spinemet.model.multitask import MultiTask

NAMES = Pseudonymizer(b"the key of all tests", "exact")
OTHER = Pseudonymizer(b"the key of another site", "exact")
PATIENTS = {"train": ["00000017", "00000018"], "validation": ["00000019"], "test": ["00000020"]}


@pytest.fixture
def place(tmp_path: Path, model: tuple[MultiTask, ModelCard]) -> str:
    split = {part: [NAMES.patient_key(one) for one in its] for part, its in PATIENTS.items()}
    save_model(str(tmp_path / "model"), *model, split, NAMES.key_id)
    return str(tmp_path / "model")


def test_the_owner_of_the_key_finds_each_patients_part(place: str) -> None:
    marks = load_marks(place, load_card(place), NAMES.key_id)
    assert marks.matching is Matching.MATCHED
    found = {one: marks.part(NAMES.patient_key(one)) for its in PATIENTS.values() for one in its}
    assert found == {one: part for part, its in PATIENTS.items() for one in its}
    seen = [marks.seen(NAMES.patient_key(one)) for one in ("00000017", "00000019", "00000020", "4711")]
    assert seen == [True, True, False, False]
    assert marks.seen("") is None  # a study without a PatientID
    assert marks.part(NAMES.patient_key("4711"), NAMES.patient_key("00000018")) == "train"


def test_a_patient_of_two_parts_was_trained_on(tmp_path: Path, model: tuple[MultiTask, ModelCard]) -> None:
    key = NAMES.patient_key("17")
    save_model(str(tmp_path), *model, {"train": [key], "test": [key]}, NAMES.key_id)
    assert load_marks(str(tmp_path), load_card(str(tmp_path)), NAMES.key_id).part(key) == "train"


def test_without_the_key_nobody_can_be_matched(place: str) -> None:
    marks = load_marks(place, load_card(place), OTHER.key_id)
    assert marks.matching is Matching.OTHER_KEY
    assert marks.seen(OTHER.patient_key("00000017")) is None
    assert "another pseudonym key" in marks.matching.problem


def test_no_hash_of_a_patient_number_without_the_key_is_in_the_models_folder(place: str) -> None:
    """All numbers of 8 digits are hashed in minutes; here, those of the test."""
    content = "".join((Path(place) / name).read_text() for name in (CARD, MARKS))
    for number in range(100):
        text = f"{number:08d}"
        assert text not in content
        for prefix in ("", "spinemet crops\0", "spinemet:patient\0"):
            assert hashlib.sha256(f"{prefix}{text}".encode()).hexdigest()[:12] not in content


def test_two_models_of_the_same_patients_have_different_marks() -> None:
    key = NAMES.patient_key("17")
    assert len({mark(key, "one"), mark(key, "two"), mark(OTHER.patient_key("17"), "one")}) == 3


def test_marks_of_another_model_and_damaged_ones_are_refused(place: str) -> None:
    card = load_card(place)
    with pytest.raises(BadInput, match="belongs to another model"):
        load_marks(place, changed(card, weights_sha256="0"), NAMES.key_id)
    (Path(place) / MARKS).write_text('{"train": 3}')
    with pytest.raises(BadInput, match="found something else"):
        load_marks(place, card, NAMES.key_id)
    (Path(place) / MARKS).unlink()
    assert load_marks(place, card, NAMES.key_id).matching is Matching.NO_MARKS


def test_the_built_in_model_names_no_patient() -> None:
    card = load_card("builtin")
    assert not card.split
    assert load_marks("builtin", card, NAMES.key_id).matching is Matching.NO_MARKS
