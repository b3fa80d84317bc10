"""Synthetic crops that a small model learns in seconds: a noisy disc with a dense blob, a dark blob, both or none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from spinemet.config import SliceConfig, changed, config_digest
from spinemet.model.aggregate import Rule
from spinemet.model.spec import DenseNetSpec, ModelSpec
from spinemet.training.config import TrainRecipe
from spinemet.training.crops import SCHEMA, Crops, CropsInfo, write_manifest, write_shard
from spinemet.types import BONE_QUALITY

SIZE = 32
SLICES = SliceConfig(size_px=SIZE, pixel_mm=3.0)


def lesion_slice(rng: np.random.Generator, bone_quality: str) -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    hu_HW = np.where(np.hypot(rows, columns) < 11, 200.0, 40.0)

    def blob(value: float) -> None:
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(2, 6)
        inside = np.hypot(rows - radius * np.sin(angle), columns - radius * np.cos(angle)) < rng.uniform(3, 4)
        hu_HW[inside] = value

    if bone_quality in {"lytic", "mixed"}:
        blob(20.0)
    if bone_quality in {"blastic", "mixed"}:
        blob(700.0)
    return (hu_HW + rng.normal(0, 20, hu_HW.shape)).astype(np.int16)


def made_up_crops(patients: int = 12, vertebrae: int = 6, slices: int = 3, seed: int = 0) -> Crops:
    """Crops of `patients`; every second patient is labelled `none` for posterolateral involvement, the others not."""
    rng = np.random.default_rng(seed)
    rows, hu = [], []
    for patient in range(patients):
        for level in range(vertebrae):
            quality = BONE_QUALITY[(patient + level) % 4]
            for n in range(slices):
                hu.append(lesion_slice(rng, quality))
                rows.append(
                    {
                        "patient": f"p{patient:02d}",
                        "archive_patient": f"a{patient:02d}",
                        "study": f"s{patient:02d}",
                        "level": f"T{level + 1}",
                        "vertebra": patient * vertebrae + level,
                        "offset_mm": float(3 * n),
                        "bone_quality": quality,
                        "posterolateral": "none" if patient % 2 else None,
                    }
                )
    info = CropsInfo(
        slice_config=SLICES,
        config_digest=config_digest(SLICES),
        pseudonym_key_id="0123456789ab",
        shards=(),
        patients=patients,
        studies=patients,
        vertebrae=patients * vertebrae,
        slices=len(rows),
        classes={},
    )
    return Crops(np.stack(hu), pd.DataFrame(rows), info)


def small_recipe(**changes: object) -> TrainRecipe:
    recipe = TrainRecipe(
        name="small",
        model=ModelSpec(
            backbone=DenseNetSpec(growth_rate=8, block_config=(1, 1, 1, 1), init_features=16), slices=SLICES
        ),
        rules=(Rule(kind="mean"), Rule(kind="top")),
        epochs=3,
        batch=16,
        learning_rate=4e-3,
        warmup_epochs=0.5,
    )
    return recipe.model_validate({**recipe.model_dump(), **changes})


def write_crops(uri: str, crops: Crops) -> CropsInfo:
    """Store `crops` at `uri` as jobs/prepare.py does."""
    shards = []
    for _, rows in crops.table.groupby("study"):
        columns: dict[str, object] = {
            name: rows[name].astype(object).where(rows[name].notna(), None).tolist()
            for name in SCHEMA.names
            if name != "hu"
        }
        columns["hu"] = [crops.hu_NHW[n].astype("<i2").tobytes() for n in rows.index]
        names = ("patient", "archive_patient", "study")
        whose = {name: str(rows[name].iloc[0]) for name in names}
        shards.append(changed(write_shard(uri, pa.table(columns, schema=SCHEMA)), **whose))
    info = changed(crops.info, shards=tuple(shards))
    write_manifest(uri, info)
    return info
