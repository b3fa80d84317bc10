"""`spinemet implant`: a labelled training archive out of a site's own normal studies."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from spinemet.archive.listing import list_studies
from spinemet.config import StudyConfig
from spinemet.dicom.volume import write_nifti
from spinemet.errors import BadInput, StudyProblem
from spinemet.progress import Progress, no_progress
from spinemet.reading import Screened
from spinemet.spine.geometric import geometric_spine
from spinemet.study import read_study, read_volume_of
from spinemet.training.implanting import Label, implanted, slice_labels, usable
from spinemet.types import Spine, StudyRef, Volume

_NEAR_MM = 8.0
"""After implanting, every body must be found again within this distance, with the same name."""
_TRIES = 3


@dataclass
class Summary:
    """What was written, and what was left out and why, as counts."""

    out: str
    patients: int = 0
    studies: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        found = ", ".join(f"{count} {name}" for name, count in sorted(self.labels.items()))
        lines = [f"wrote {self.out}: {self.studies} studies of {self.patients} patients; {found}"]
        return "\n".join(lines + [f"left out: {what}: {count}" for what, count in sorted(self.left_out.items())])


def write_implants(
    archive: str,
    out: Path,
    seed: int,
    *,
    patients: int | None = None,
    studies: int = 1,
    progress: Progress = no_progress,
) -> Summary:
    """Write OUT/archive (NIfTI, in BIDS names), OUT/labels.csv and OUT/truth.csv from the normal studies of `archive`.

    Each study that can be read gives `studies` studies with lesions of their own; all studies of a patient belong to
    one patient of the new archive, named by its number. patients: at most so many of them. Equal arguments give equal
    voxels. Raises BadInput if the archive cannot be listed, no study can be used, or `out` exists or cannot be written.
    """
    if out.exists():
        raise BadInput(f"expected a new folder, but {out} exists; choose another.")
    part = out.with_name(f"{out.name}.part")  # so that a killed run leaves no archive without its labels
    shutil.rmtree(part, ignore_errors=True)
    refs = list(list_studies(archive))
    summary, people = Summary(str(out)), list[str]()
    truth, slices = list[dict[str, object]](), list[dict[str, object]]()
    for done, ref in enumerate(refs, start=1):
        for name, labels, shown, volume in _studies_of(ref, seed, people, patients, studies, summary):
            patient, session = name.split("_")
            folder = part / "archive" / patient / session
            folder.mkdir(parents=True)
            write_nifti(volume, folder / f"{name}_ct.nii.gz")
            study = {"patient": patient, "study": f"{name}_ct"}
            truth += [{**study, **vars(label)} for label in labels]
            slices += [{**study, **row} for row in shown]
            summary.studies += 1
            summary.labels.update(label.bone_quality for label in labels)
        progress(done, len(refs))
    if not truth:
        reasons = "; ".join(f"{what}: {count}" for what, count in sorted(summary.left_out.items()))
        raise BadInput(f"no study of {archive} can be used ({reasons or 'it is empty'}).")
    table = pd.DataFrame(truth)
    table.to_csv(part / "truth.csv", index=False)
    columns = ["patient", "study", "level", "slice", "bone_quality", "posterolateral"]
    cells = pd.concat([table, pd.DataFrame(slices)]).reindex(columns=columns).assign(origin="implant")
    cells.to_csv(part / "labels.csv", index=False)
    summary.patients = table["patient"].nunique()
    part.rename(out)
    return summary


def _studies_of(
    ref: StudyRef,
    seed: int,
    people: list[str],
    patients: int | None,
    studies: int,
    summary: Summary,
) -> Iterator[tuple[str, list[Label], list[dict[str, object]], Volume]]:
    """Name, labels, slice labels and volume of each study made of `ref`.

    people: the patient of each study drawn so far; extended.
    """
    reading = read_study(ref, StudyConfig())
    if not isinstance(reading, Screened):
        summary.left_out[f"studies that cannot be used ({reading.reason})"] += 1
        return
    if not any(map(usable, reading.spine.vertebrae)):
        summary.left_out["studies without a named whole vertebra"] += 1
        return
    patient, known = reading.chosen.PatientID or f"{ref.archive}/{ref.key}", list(dict.fromkeys(people))
    if patient not in known and len(known) == patients:
        summary.left_out["studies of further patients"] += 1
        return
    number = [*known, patient].index(patient) + 1
    volume = read_volume_of(ref, StudyConfig())
    for _ in range(studies):
        people.append(patient)
        session = people.count(patient)
        for attempt in range(_TRIES):
            made, labels = implanted(volume, reading.spine, np.random.default_rng([seed, number, session, attempt]))
            if _same_names(made, reading.spine):
                shown = slice_labels(volume, made, reading.spine, labels)
                yield f"sub-{number:04d}_ses-{session:02d}", labels, shown, made
                break
        else:
            summary.left_out["studies in which the lesions hide vertebrae"] += 1


def _same_names(made: Volume, spine: Spine) -> bool:
    """Whether the localizer finds the usable vertebrae of `spine` in `made` at their places with their names."""
    try:
        found = {vertebra.level: np.array(vertebra.center_mm) for vertebra in geometric_spine(made).vertebrae}
    except StudyProblem:
        return False
    expected = [vertebra for vertebra in spine.vertebrae if usable(vertebra)]
    return all(one.level in found and np.linalg.norm(found[one.level] - one.center_mm) <= _NEAR_MM for one in expected)
