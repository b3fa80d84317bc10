"""Label tables and crops of the readings in tests/readings.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import pyarrow as pa

from spinemet.config import StudyConfig, changed, config_digest
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.reading import Screened
from spinemet.training.crops import CropsInfo, Shard, crop_rows, whose, write_manifest, write_shard
from spinemet.training.labels import COLUMNS, LABEL_CLASSES, consensus, label_columns
from spinemet.training.matching import match_labels
from spinemet.types import InstanceHeader
from tests.readings import SLICES

NAMES = Pseudonymizer(b"the key of all tests", "exact")


def with_slices(one: Screened, uids: Mapping[str, float]) -> Screened:
    """`one` with axial slices in its series: SOPInstanceUID -> height in mm. Its first vertebra lies at height 0."""
    axial = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    instances = tuple(
        InstanceHeader(uid, SOPInstanceUID=uid, ImagePositionPatient=(-90.0, -90.0, z), ImageOrientationPatient=axial)
        for uid, z in uids.items()
    )
    chosen = replace(one.chosen, instances=instances)
    return replace(one, chosen=chosen, series_seen=((chosen, None),))


def cropped(one: Screened, labels: pd.DataFrame) -> pa.Table:
    """The rows of the crops of `one`."""
    return crop_rows(one, labels, match_labels(one, labels))


def label_table(*rows: Mapping[str, str]) -> pd.DataFrame:
    """A checked label table with the given cells; all others are empty, and rows count from 0."""
    further = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    names, words = [*COLUMNS, *further], {*LABEL_CLASSES, *further}
    cells = [{name: row.get(name, None if name in words else "") for name in names} for row in rows]
    return consensus(pd.DataFrame(cells, columns=names))


def write_crops(uri: str, readings: list[Screened], labels: pd.DataFrame) -> CropsInfo:
    """Crops of `readings` at `uri`, without Ray."""
    shards = [
        changed(write_shard(uri, cropped(one, labels)), **whose(one, labels, match_labels(one, labels))).under(NAMES)
        for one in readings
    ]
    classes: dict[str, dict[str, int]] = {name: {} for name in label_columns(labels)}
    of_slices = classes if (labels["slice"] != "").any() else {}
    info = changed(crops_info(shards), classes=classes, slice_classes=of_slices)
    write_manifest(uri, info)
    return info


def crops_info(shards: list[Shard]) -> CropsInfo:
    return CropsInfo(
        slice_config=SLICES,
        config_digest=config_digest(StudyConfig(slices=SLICES)),
        pseudonym_key_id=NAMES.key_id,
        shards=tuple(shards),
        patients=len(shards),
        studies=len(shards),
        vertebrae=sum(shard.vertebrae for shard in shards),
        slices=sum(shard.slices for shard in shards),
        classes={},
    )
