"""Patients divided into training, validation and test, or into folds: pure functions of names, seed and strata."""

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from typing import Literal

from spinemet.errors import BadInput

Part = Literal["train", "validation", "test"]


def split_patients(
    patients: Iterable[str],
    seed: int,
    test_share: float,
    validation_share: float,
    strata: Mapping[str, Hashable] | None = None,
) -> dict[str, Part]:
    """Each patient's part; the same for the same patients in any order, on every machine.

    The parts have the given shares: overall up to rounding, and within each stratum up to one patient. Patients without
    a stratum form one of their own. Within a stratum patients are ranked by a hash of seed and name, so that a patient
    who joins or leaves moves few others. Raises BadInput if the shares leave nobody to train on.
    """
    if min(test_share, validation_share) < 0 or test_share + validation_share >= 1:
        raise BadInput(
            f"expected shares of at least 0 and together below 1, found {test_share} and {validation_share}."
        )
    groups: dict[str, list[str]] = {}
    for patient in set(patients):
        groups.setdefault(repr(strata.get(patient)) if strata else "", []).append(patient)
    parts: dict[str, Part] = {}
    seen = left = 0
    for _, members in sorted(groups.items()):
        ranked = sorted(members, key=lambda patient: hashlib.sha256(f"{seed}\0{patient}".encode()).digest())
        # Rounding the running total, not each stratum, keeps the overall share right with any number of strata.
        test = _round_step(seen, len(ranked), test_share)
        validation = _round_step(left, len(ranked) - test, validation_share / (1 - test_share))
        seen += len(ranked)
        left += len(ranked) - test
        for n, patient in enumerate(ranked):
            parts[patient] = "test" if n < test else "validation" if n < test + validation else "train"
    return parts


def split_digest(split: Mapping[str, Iterable[str]]) -> str:
    """Twelve hexadecimal digits for `split` (part -> patients); they name nobody if the patients are pseudonyms."""
    parts = "".join(f"{part}\0{patient}\n" for part in sorted(split) for patient in sorted(split[part]))
    return hashlib.sha256(parts.encode()).hexdigest()[:12]


def fold_patients(patients: Iterable[str], folds: int, seed: int, strata: Mapping[str, Hashable]) -> dict[str, int]:
    """Each patient's fold (0 to `folds` - 1); sizes differ by at most 1, and each fold has its share of every stratum.

    The same for the same patients in any order. Raises BadInput for fewer than two folds or more folds than patients.
    """
    names = set(patients)
    if not 2 <= folds <= len(names):
        raise BadInput(f"expected 2 folds or more and at most one per patient ({len(names)}), found {folds}.")
    ranked = sorted(
        names, key=lambda name: (repr(strata.get(name)), hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    )
    return {name: n % folds for n, name in enumerate(ranked)}


def _round_step(before: int, more: int, share: float) -> int:
    return round((before + more) * share) - round(before * share)
