"""Crops divided by patients, with targets and weights per task."""

from __future__ import annotations

import numpy as np
import pytest

from spinemet.config import SliceConfig, changed
from spinemet.errors import BadInput
from spinemet.model.tasks import MISSING, Task
from spinemet.training.crops import Crops
from spinemet.training.dataset import training_data
from spinemet.types import BONE_QUALITY
from tests.training.lesions import made_up_crops, small_recipe


def test_every_patient_is_in_one_part_and_test_slices_are_in_no_sample() -> None:
    crops = made_up_crops()
    data = training_data(crops, small_recipe())
    patients = [patient for part in data.split.values() for patient in part]
    assert sorted(patients) == sorted(set(crops.table["patient"]))
    assert {part: len(its) for part, its in data.split.items()} == {"train": 7, "validation": 2, "test": 3}
    for part, samples in (("train", data.train), ("validation", data.validation)):
        assert set(crops.table["patient"].to_numpy()[samples.rows_N]) == set(data.split[part])
        assert len(samples) == len(data.split[part]) * 6 * 3


def test_pixels_and_targets_belong_together() -> None:
    crops = made_up_crops()
    train = training_data(crops, small_recipe()).train
    indices = np.array([5, 0, 17])
    rows = train.rows_N[indices]
    assert np.array_equal(train.pixels(indices).numpy(), crops.hu_NHW[rows])
    words = crops.table["bone_quality"].to_numpy()[rows]
    assert [("normal", "blastic", "mixed", "lytic")[n] for n in train.targets_TN[2, indices]] == words.tolist()
    assert (train.targets_TN[0, indices] == np.isin(words, ["blastic", "mixed"])).all()


def test_a_missing_label_has_weight_0_in_its_own_task_only() -> None:
    train = training_data(made_up_crops(), small_recipe()).train
    missing = train.targets_TN[3] == MISSING
    assert 0 < missing.sum() < len(train)
    assert (train.weights_TN[3] == 0).tolist() == missing.tolist()
    assert (train.weights_TN[:3] > 0).all()


@pytest.mark.parametrize(("balance", "ratio"), [(0.0, 1.0), (0.5, 3.0**-0.5), (1.0, 1 / 3)])
def test_balance_sets_how_much_more_rare_classes_weigh(balance: float, ratio: float) -> None:
    crops = made_up_crops()
    table = crops.table.assign(
        bone_quality=crops.table["bone_quality"].where(crops.table["vertebra"] % 4 == 0, "normal")
    )
    train = training_data(Crops(crops.hu_NHW, table, crops.info), small_recipe(balance=balance)).train
    counts = np.bincount(train.targets_TN[2], minlength=4)
    weights = [train.weights_TN[2][train.targets_TN[2] == one].mean() for one in range(4)]
    assert train.weights_TN[2].mean() == pytest.approx(1, abs=1e-5)
    rare = int(np.argmin(np.where(counts > 0, counts, 10**6)))
    assert weights[0] / weights[rare] == pytest.approx((counts[0] / counts[rare]) ** -balance, rel=1e-5)
    assert ratio <= 1


def test_slices_have_their_own_targets_and_vertebrae_theirs() -> None:
    crops = made_up_crops()
    own = crops.table["bone_quality"].where(crops.table["offset_mm"] == 0, None)
    table = crops.table.assign(bone_quality="lytic", slice_bone_quality=own)
    validation = training_data(Crops(crops.hu_NHW, table, crops.info), small_recipe()).validation
    first = table["offset_mm"].to_numpy()[validation.rows_N] == 0
    words = crops.table["bone_quality"].to_numpy()[validation.rows_N]
    assert (validation.vertebra_targets_TN[2] == 3).all()
    assert [BONE_QUALITY[n] for n in validation.targets_TN[2, first]] == words[first].tolist()
    assert (validation.targets_TN[2, ~first] == 3).all()


def test_unlabelled_slices_are_left_out_and_validation_needs_labelled_vertebrae() -> None:
    crops = made_up_crops()
    own = crops.table["bone_quality"].where(crops.table["offset_mm"] == 0, None)
    apart = crops.table["patient"].isin(training_data(crops, small_recipe()).split["validation"])
    whole = crops.table["bone_quality"].where(apart, None)
    table = crops.table.assign(bone_quality=whole, slice_bone_quality=own, posterolateral=None)
    assert len(training_data(Crops(crops.hu_NHW, table, crops.info), small_recipe()).train) == 7 * 6
    table["bone_quality"] = None
    with pytest.raises(BadInput, match="a bone_quality label of a whole vertebra for validation, found none"):
        training_data(Crops(crops.hu_NHW, table, crops.info), small_recipe())


def test_crops_without_the_column_of_a_task_are_refused() -> None:
    recipe = small_recipe()
    tasks = (*recipe.model.tasks, Task(name="collapse", column="fracture", positive=("yes",)))
    other = changed(recipe, model=changed(recipe.model, tasks=tasks))
    message = "labels of fracture for the task collapse .* found those of bone_quality, posterolateral; prepare them"
    with pytest.raises(BadInput, match=message):
        training_data(made_up_crops(), other)


def test_slices_cut_in_another_way_are_refused() -> None:
    recipe = small_recipe()
    other = changed(recipe, model=changed(recipe.model, slices=SliceConfig()))
    with pytest.raises(BadInput, match=r"expected crops of 224 px .* found 32 px"):
        training_data(made_up_crops(), other)


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(BadInput, match=r"expected patients with a bone_quality label .* for validation, found none"):
        training_data(made_up_crops(patients=2), small_recipe(test_share=0))


def test_an_unknown_selecting_task_is_refused() -> None:
    with pytest.raises(BadInput, match="expected `selects` to be one of blastic"):
        training_data(made_up_crops(), small_recipe(selects="fracture"))
