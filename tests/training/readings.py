"""Hand-made study readings and crops, for tests of the steps after reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa

from spinemet.config import SliceConfig, StudyConfig, changed, config_digest
from spinemet.training.crops import CropsInfo, Shard, crop_rows, write_manifest, write_shard
from spinemet.training.labels import COLUMNS, LABEL_CLASSES, consensus, label_columns
from spinemet.training.matching import match_labels
from spinemet.types import (
    Completeness,
    InstanceHeader,
    Method,
    Screened,
    SeriesHeader,
    SliceStack,
    Spine,
    SpineCurve,
    Vertebra,
)

SLICES = SliceConfig(size_px=32, pixel_mm=3.5, step_mm=3.0)


def vertebra(level: str, completeness: Completeness = Completeness.WHOLE) -> Vertebra:
    return Vertebra(level, 0.9, completeness, (0.0, 0.0, 0.0), np.eye(3), 25.0, 0.0, 1.0)


def reading(
    patient: str, levels: list[str], study: str = "", cut: tuple[str, ...] = (), hu: int = 200, slices: int = 3
) -> Screened:
    """A reading whose slices hold noise around `hu`, different for every patient, level and slice."""
    whole = {level: Completeness.CUT if level in cut else Completeness.WHOLE for level in levels}
    stacks = []
    for level in levels:
        rng = np.random.default_rng([*patient.encode(), *level.encode()])
        noise = rng.normal(hu, 20, (slices, SLICES.size_px, SLICES.size_px))
        offsets = (np.arange(slices, dtype=np.float32) - slices // 2) * -SLICES.step_mm
        stacks.append(SliceStack(level, noise.astype(np.int16), offsets, SLICES.pixel_mm))
    header = SeriesHeader("CT", PatientID=patient, StudyInstanceUID=study or f"9.{patient}", SeriesInstanceUID="9.9.1")
    curve = SpineCurve(np.zeros((2, 3)), np.stack([np.eye(3)] * 2))
    spine = Spine(tuple(vertebra(level, state) for level, state in whole.items()), curve, Method.MASKS)
    return Screened(chosen=header, spacing_mm=(1.0, 0.7, 0.7), slice_count=100, spine=spine, stacks=tuple(stacks))


def with_slices(one: Screened, uids: Mapping[str, float]) -> Screened:
    """`one` with axial slices in its series: SOPInstanceUID -> height in mm. All vertebrae lie at height 0."""
    axial = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    instances = tuple(
        InstanceHeader(uid, SOPInstanceUID=uid, ImagePositionPatient=(-90.0, -90.0, z), ImageOrientationPatient=axial)
        for uid, z in uids.items()
    )
    chosen = replace(one.chosen, instances=instances)
    return replace(one, chosen=chosen, series_seen=((chosen, None),))


def cropped(one: Screened, labels: pd.DataFrame) -> pa.Table:
    return crop_rows(one, labels, match_labels(one, labels))


def label_table(*rows: Mapping[str, str]) -> pd.DataFrame:
    """A checked label table with the given cells; all others are empty, and rows count from 0."""
    further = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    names, words = [*COLUMNS, *further], {*LABEL_CLASSES, *further}
    cells = [{name: row.get(name, None if name in words else "") for name in names} for row in rows]
    return consensus(pd.DataFrame(cells, columns=names))


def write_crops(uri: str, readings: list[Screened], labels: pd.DataFrame) -> CropsInfo:
    """Crops of `readings` at `uri`, without Ray."""
    shards = [write_shard(uri, cropped(one, labels)) for one in readings]
    classes: dict[str, dict[str, int]] = {name: {} for name in label_columns(labels)}
    of_slices = classes if (labels["slice"] != "").any() else {}
    info = changed(crops_info(shards), classes=classes, slice_classes=of_slices)
    write_manifest(uri, info)
    return info


def crops_info(shards: list[Shard]) -> CropsInfo:
    return CropsInfo(
        slice_config=SLICES,
        config_digest=config_digest(StudyConfig(slices=SLICES)),
        shards=tuple(shards),
        patients=len(shards),
        studies=len(shards),
        vertebrae=sum(shard.vertebrae for shard in shards),
        slices=sum(shard.slices for shard in shards),
        classes={},
    )
