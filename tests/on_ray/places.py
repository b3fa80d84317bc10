"""An S3 place with a small phantom archive and a tiny model, and the rows that a run over it must write."""

from __future__ import annotations

import torch

from spinemet import __version__
from spinemet.archive.listing import list_studies
from spinemet.config import SliceConfig, StudyConfig, config_digest
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.files import join
from spinemet.model.checkpoint import ModelCard, save_model, untrained
from spinemet.model.marks import UNMARKED
from spinemet.model.predictor import Predictor
from spinemet.model.spec import DenseNetSpec, ModelSpec
from spinemet.phantom.archive import write_archive
from spinemet.reading import Screened
from spinemet.results import tables
from spinemet.results.schemas import SCHEMAS
from spinemet.screening.outcome import MadeWith, study_rows
from spinemet.study import read_study
from tests.screening.places import PROVENANCE_COLUMNS, Tables

KEY = b"a key for the tests only"
SLICES = SliceConfig(size_px=32, pixel_mm=3.5, step_mm=12.0)


def write_place(uri: str, patients: int) -> None:
    """Below `uri`: `archive/` (phantom patients and the phantom's three unusable studies) and `model/`."""
    write_archive(uri, patients, 3, matrix=64)
    network = DenseNetSpec(growth_rate=4, block_config=(1, 1, 1, 1), init_features=8)
    spec = ModelSpec(backbone=network, slices=SLICES)
    save_model(join(uri, "model"), untrained(spec, 0), ModelCard(spec=spec))


def rows_alone(archive: str, model: str) -> Tables:
    """The rows that `rows_in` finds after a run with `slices` over `archive`, made without Ray and without tables."""
    torch.set_num_threads(1)  # as in a model actor: with more threads, probabilities differ in the eighth digit
    predictor, names, config = Predictor.load(model), Pseudonymizer(KEY, "shifted"), StudyConfig(slices=SLICES)
    made_with = MadeWith(predictor.digest, config_digest(config), __version__, "another run")
    alone: Tables = {name: [] for name in (tables.LEDGER, *tables.SIDE_TABLES)}
    for ref in list_studies(archive):
        study = read_study(ref, config, views=True)
        calls = predictor.predict(study.stacks) if isinstance(study, Screened) else None
        for name, rows in study_rows(ref, study, calls, made_with, names, UNMARKED, slices=True).items():
            alone[name] += [
                {column: row.get(column) for column in SCHEMAS[name].names if column not in PROVENANCE_COLUMNS}
                for row in rows
            ]
    return {name: sorted(rows, key=repr) for name, rows in alone.items()}
