"""The data of an ablation: folds of a labelled set, or training sets of the benchmark and its fixed test set."""

from collections.abc import Sequence
from dataclasses import dataclass

from spinemet.errors import BadInput
from spinemet.evaluation.benchmark import VALIDATION, split_of
from spinemet.training.config import TrainRecipe
from spinemet.training.crops import Crops, read_crops
from spinemet.training.dataset import TrainingData, divided, patient_strata, training_data
from spinemet.training.split import fold_patients


@dataclass(frozen=True, eq=False)
class Folds:
    """Patients in folds; each fold is called by models of the others.

    crops: the slices to learn from. truth: the same slices with the labels to measure against. Raises BadInput if they
    are not the same.
    """

    crops: Crops
    truth: Crops
    folds: int

    def __post_init__(self) -> None:
        check_truth(self.crops, self.truth)

    def parts(self) -> list[list[str]]:
        """The parts that fits are trained on, in groups that together call every patient to be measured."""
        return [[f"fold{fold}" for fold in range(self.folds)]]

    def patients(self, part: str) -> int:
        """How many patients a fit to `part` is trained and validated on."""
        return round(self.crops.info.patients * (1 - 1 / self.folds))

    def of(self, part: str, recipe: TrainRecipe) -> tuple[TrainingData, Crops]:
        """The data that a fit of `recipe` to `part` is trained and validated on, and the crops that measure it."""
        strata = patient_strata(self.crops, recipe)
        fold_of = fold_patients(self.crops.table["patient"], self.folds, recipe.split_seed, strata)
        test = sorted(patient for patient, fold in fold_of.items() if f"fold{fold}" == part)
        data = training_data(self.crops, recipe, divided(self.crops, recipe, test))
        return data, self.truth.take(self.truth.table["patient"].isin(test).to_numpy())


@dataclass(frozen=True, eq=False)
class Sizes:
    """Nested training sets of the benchmark (`evaluation.benchmark`), all measured on the same patients.

    Raises BadInput if the crops hold fewer patients than a size needs.
    """

    crops: Crops
    truth: Crops
    sizes: Sequence[int]
    folds: int = 0

    def __post_init__(self) -> None:
        there = set(self.crops.table["patient"])
        for size in self.sizes:
            if missing := len(set(split_of(size)) - there):
                raise BadInput(
                    f"expected the benchmark's {size} patients to train on and {VALIDATION} to validate on, "
                    f"found {missing} fewer."
                )

    def parts(self) -> list[list[str]]:
        """See Folds."""
        return [[f"{size}-patients"] for size in self.sizes]

    def patients(self, part: str) -> int:
        """How many patients a fit to `part` is trained on."""
        return int(part.removesuffix("-patients"))

    def of(self, part: str, recipe: TrainRecipe) -> tuple[TrainingData, Crops]:
        """See Folds."""
        return training_data(self.crops, recipe, split_of(self.patients(part))), self.truth


Source = Folds | Sizes


def check_truth(crops: Crops, truth: Crops) -> None:
    """Raise BadInput unless `truth` holds the same slices as `crops`, in the same order."""
    same = ["patient", "study", "level", "offset_mm"]
    if len(crops.table) != len(truth.table) or not crops.table[same].equals(truth.table[same]):
        raise BadInput(
            f"The truth must hold the same slices as the crops, with other labels: its {len(truth.table)} slices are "
            f"not the {len(crops.table)} slices of the crops."
        )


def read_source(crops: str, truth: str, folds: int, sizes: Sequence[int] = ()) -> Source:
    """Folds of the crops at `crops`, or with `sizes` the training sets of the benchmark; `truth` measures.

    Raises BadInput if the two do not fit each other.
    """
    learn, measure = read_crops(crops), read_crops(truth)
    return Sizes(learn, measure, tuple(sizes)) if sizes else Folds(learn, measure, folds)
