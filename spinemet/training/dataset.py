"""Crops as arrays for training: pixels, targets and weights, addressed by index arrays. T tasks, N slices."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from spinemet.errors import BadInput
from spinemet.model.loss import sample_weights
from spinemet.model.tasks import MISSING
from spinemet.training.config import TrainRecipe
from spinemet.training.crops import Crops, CropsInfo
from spinemet.training.split import split_patients


@dataclass(frozen=True, eq=False)
class Samples:
    """The slices of some patients.

    hu_NHW: the pixels of all crops, possibly memory-mapped; `rows_N` are the rows of these samples. targets_TN: the
    slices' class numbers, used for training; MISSING if not labelled. weights_TN: loss weights. vertebra_N: the number
    of each slice's vertebra. vertebra_targets_TN: class numbers of whole vertebrae, repeated for each of their slices.
    """

    hu_NHW: npt.NDArray[np.int16]
    rows_N: npt.NDArray[np.int64]
    targets_TN: npt.NDArray[np.int64]
    weights_TN: npt.NDArray[np.float32]
    vertebra_N: npt.NDArray[np.int64]
    vertebra_targets_TN: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows_N)

    def pixels(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """(len(indices), H, W) int16 HU of the samples at `indices`."""
        return torch.from_numpy(self.hu_NHW[self.rows_N[indices]])


RESIDENT_SHARE = 0.3
"""Part of a GPU's free memory that crops may use; the rest is for the model and its activations."""


def resident(samples: Samples, device: torch.device) -> Tensor | None:
    """All pixels of `samples` on the GPU, so that no step waits for a copy; None on a CPU or if they do not fit."""
    if device.type != "cuda":
        return None
    size = len(samples) * samples.hu_NHW[:1].nbytes
    free, _ = torch.cuda.mem_get_info(device)
    return samples.pixels(np.arange(len(samples))).to(device) if size <= RESIDENT_SHARE * free else None


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Samples to train on, samples to choose epoch and aggregation on, and the patients of each part.

    archive_patients: part -> the pseudonyms that these patients have in the archive. crops_digest, pseudonym_key_id,
    trained_on: of the crops (see CropsInfo).
    """

    train: Samples
    validation: Samples
    split: dict[str, tuple[str, ...]]
    archive_patients: dict[str, tuple[str, ...]]
    crops_digest: str
    pseudonym_key_id: str
    trained_on: str = ""

    @property
    def pseudonyms(self) -> dict[str, tuple[str, ...]]:
        """Part -> all pseudonyms that its patients have."""
        return {part: (*its, *self.archive_patients[part]) for part, its in self.split.items()}


def training_data(crops: Crops, recipe: TrainRecipe, parts: Mapping[str, str] | None = None) -> TrainingData:
    """The crops of the patients to train and to validate on.

    parts: patient -> `train`, `validation` or `test`; patients not in it are not used. By default `divided`.

    Raises BadInput if the crops do not fit the recipe (see check_crops), or have no usable label for training or
    validation.
    """
    check_crops(crops.info, recipe)
    selecting = _selecting(recipe)
    patients = crops.table["patient"].to_numpy(str)
    parts = divided(crops, recipe) if parts is None else parts
    split = {
        part: tuple(sorted(patient for patient, its in parts.items() if its == part))
        for part in ("train", "validation", "test")
    }
    own = crops.table[["patient", "archive_patient"]].drop_duplicates()
    archive_patients = {
        part: tuple(sorted(set(own.loc[own["patient"].isin(its), "archive_patient"]) - {""}))
        for part, its in split.items()
    }
    train, validation = (_samples(crops, np.isin(patients, split[part]), recipe) for part in ("train", "validation"))
    for part, targets_TN in (("train", train.targets_TN), ("validation", validation.vertebra_targets_TN)):
        if not (targets_TN[selecting] != MISSING).any():
            of_what = f"a {recipe.selects} label" + (" of a whole vertebra" if part == "validation" else "")
            raise BadInput(
                f"expected patients with {of_what} for {part}, found none ({len(parts)} patients in all); "
                f"give more crops."
            )
    info = crops.info
    return TrainingData(
        train, validation, split, archive_patients, info.digest, info.pseudonym_key_id, trained_on=info.trained_on
    )


def divided(crops: Crops, recipe: TrainRecipe, test: Collection[str] | None = None) -> dict[str, str]:
    """Patient -> part, by the recipe's shares; the strata are each patient's rarest class of the selecting task.

    test: the test patients of a fold; without it the recipe's `test_share` picks them.
    """
    parts: dict[str, str] = {
        **split_patients(
            sorted(set(crops.table["patient"]) - set(test or ())),
            recipe.split_seed,
            recipe.test_share if test is None else 0.0,
            recipe.validation_share if test is None else recipe.validation_share / (1 - recipe.test_share),
            strata=patient_strata(crops, recipe),
        )
    }
    return parts | dict.fromkeys(test or (), "test")


def admissions(train: Samples, entered_N: npt.NDArray[np.int64], recipe: TrainRecipe) -> pd.DataFrame:
    """One row per training slice: its `row` in the crops, its `label` for the selecting task (None without one), the
    `epoch` in which self-pacing first admitted it (0 for never)."""
    classes = np.array([*recipe.model.task(recipe.selects).classes, None], object)  # MISSING is the last
    targets_N = train.targets_TN[_selecting(recipe)]
    return pd.DataFrame({"row": train.rows_N, "label": classes[targets_N], "epoch": entered_N})


def _selecting(recipe: TrainRecipe) -> int:
    names = [task.name for task in recipe.model.tasks]
    if recipe.selects not in names:
        raise BadInput(
            f"recipe {recipe.name}: expected `selects` to be one of {', '.join(names)}, found {recipe.selects}."
        )
    return names.index(recipe.selects)


def check_crops(info: CropsInfo, recipe: TrainRecipe) -> None:
    """Raise BadInput if the crops were cut in another way than the recipe's model needs, or lack a task's column."""
    found, needed = info.slice_config, recipe.model.slices
    if found != needed:
        raise BadInput(
            f"expected crops of {needed.size_px} px of {needed.pixel_mm} mm every {needed.step_mm} mm for the recipe "
            f"{recipe.name}, found {found.size_px} px of {found.pixel_mm} mm every {found.step_mm} mm; "
            f"prepare them for this recipe."
        )
    for task in recipe.model.tasks:
        if task.column not in info.label_columns:
            raise BadInput(
                f"expected crops with labels of {task.column} for the task {task.name} of the recipe {recipe.name}, "
                f"found those of {', '.join(info.label_columns)}; prepare them for this recipe."
            )


def patient_strata(crops: Crops, recipe: TrainRecipe) -> dict[str, int]:
    """Patient -> the one of the patient's classes that is rarest in the whole set; MISSING without labels."""
    targets_N = np.array(recipe.model.task(recipe.selects).slice_targets(crops.table), np.int64)
    patients = crops.table["patient"].to_numpy(str)
    counts = np.bincount(targets_N[targets_N != MISSING], minlength=1)
    strata: dict[str, int] = {}
    for patient in sorted(set(patients)):
        own = np.unique(targets_N[(patients == patient) & (targets_N != MISSING)])
        strata[str(patient)] = int(min(own, key=lambda one: counts[one])) if len(own) else MISSING
    return strata


def _samples(crops: Crops, chosen: npt.NDArray[np.bool_], recipe: TrainRecipe) -> Samples:
    tasks = recipe.model.tasks
    table = crops.table[chosen]
    targets_TN = np.array([task.slice_targets(table) for task in tasks], np.int64)
    known_N = (targets_TN != MISSING).any(axis=0)
    table, targets_TN = table[known_N], targets_TN[:, known_N]
    return Samples(
        hu_NHW=crops.hu_NHW,
        rows_N=np.flatnonzero(chosen)[known_N],
        targets_TN=targets_TN,
        weights_TN=sample_weights(targets_TN, tasks, recipe.balance),
        vertebra_N=table["vertebra"].to_numpy(np.int64),
        vertebra_targets_TN=np.array([task.targets(table) for task in tasks], np.int64),
    )
