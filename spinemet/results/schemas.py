"""The result tables' columns: names, types and meaning, once, as Arrow schemas.

The description of a column travels as its field metadata `comment`, where Spark and Delta look for it, and makes the
data dictionary (`dictionary`). No column holds an identifier: keys are pseudonyms, and of the free text in DICOM
headers only what describes the device is kept.

| table | a row is unique by |
|---|---|
| `studies`, `pictures` | source_key, model_digest, config_digest |
| `vertebrae` | the same and vertebra |
| `calls` | the same, vertebra, task and class |
| `slices` | the same, vertebra, slice, task and class |
| `runs` | run_id |
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pyarrow as pa

from spinemet.types import BONE_QUALITY, MEASURES, POSTEROLATERAL

Row = dict[str, Any]
"""A table's row: column -> value."""


class RunState(StrEnum):
    """Column `state` of `runs`. A run that was killed stays `running`."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


PROVENANCE_COLUMNS: tuple[str, ...] = (
    "run_id",
    "wave",
    "committed_at",
    "seconds_headers",
    "seconds_volume",
    "seconds_segmentation",
    "seconds_localize",
    "seconds_slices",
    "seconds_views",
    "seconds_model",
)
"""Which run wrote a row, when, and how long it took: the only columns that differ between two runs over the same
archive with the same model, configuration and pseudonym key."""

KEY_COLUMNS: tuple[str, ...] = ("source_key", "model_digest", "config_digest")
"""The key of the ledger: where a study lies, and the model and configuration that read it."""

PARTITION_COLUMN = "model_digest"
"""Planning for a model, and dropping the rows of a stale one, then read that model's files only."""

LABEL_COLUMNS: tuple[str, ...] = ("bone_quality", "posterolateral")
"""Tasks whose most probable class has a column of the same name in `vertebrae`."""

PROBABILITY_COLUMNS: dict[str, tuple[str, str]] = {
    **{f"p_{'only_' if name in {'blastic', 'lytic'} else ''}{name}": ("bone_quality", name) for name in BONE_QUALITY},
    "p_blastic": ("blastic", "yes"),
    "p_lytic": ("lytic", "yes"),
    **{f"p_posterolateral_{name}": ("posterolateral", name) for name in POSTEROLATERAL},
}
"""The probabilities that `vertebrae` repeats from `calls`: column -> (task, class)."""


def _column(name: str, kind: pa.DataType, description: str, *, null: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=null, metadata={"comment": description})


def _flags(about: str) -> pa.Field:
    return _column(
        "flags", pa.list_(pa.string()), f"What to know about {about}; an empty list for nothing.", null=False
    )


_KEYS = (
    _column(
        "source_key", pa.string(), "Pseudonym of where the study lies in the archive; the key of planning.", null=False
    ),
    _column("study_key", pa.string(), "Pseudonym of StudyInstanceUID; null if no header could be read."),
    _column("patient_key", pa.string(), "Pseudonym of PatientID; null if it is missing."),
)

_MADE_WITH = (
    _column("model_digest", pa.string(), "Which model: 12 digits over its weights and card.", null=False),
    _column("config_digest", pa.string(), "Which reading configuration: 12 digits over its values.", null=False),
    _column("software_version", pa.string(), "SpineMet's version.", null=False),
    _column("run_id", pa.string(), "The run that wrote the row; a row of `runs`.", null=False),
    _column(
        "wave", pa.string(), "The commit that wrote the row; a row counts once `studies` has its wave.", null=False
    ),
    _column("committed_at", pa.timestamp("us", tz="UTC"), "When that commit was prepared.", null=False),
)

_VERTEBRA = (
    *_KEYS,
    _column("vertebra", pa.int32(), "Place of the vertebra in the study, 0 is the most cranial.", null=False),
    _column("level", pa.string(), "C1 ... S1, or ?1, ?2, ... for a vertebra whose name is not known.", null=False),
)

_CLASS = (
    _column("task", pa.string(), "The model's task.", null=False),
    _column("class", pa.string(), "A class of that task.", null=False),
)

STUDIES = pa.schema(
    [
        *_KEYS,
        _column("series_key", pa.string(), "Pseudonym of the chosen series' SeriesInstanceUID; null if none was."),
        _column("state", pa.string(), "screened, excluded (sound, does not qualify) or failed (broke).", null=False),
        _column("reason", pa.string(), "Why it was not screened, one word of a closed list; null when screened."),
        _column("detail", pa.string(), "The reason as a sentence, free of identifiers."),
        _column(
            "layout", pa.string(), "How the study lies in the archive: prefix (a folder), zip and so on.", null=False
        ),
        _column(
            "objects", pa.int32(), "Objects of the study as the archive lists them (1 for a zip or tar).", null=False
        ),
        _column("size_bytes", pa.int64(), "Bytes of those objects.", null=False),
        _column("series_count", pa.int32(), "Series found in the study."),
        _column("slice_count", pa.int32(), "Slices of the volume that was read."),
        _column("slice_spacing_mm", pa.float64(), "Distance between neighbouring slices, from their positions."),
        _column("row_spacing_mm", pa.float64(), "Distance between neighbouring rows."),
        _column("column_spacing_mm", pa.float64(), "Distance between neighbouring columns."),
        _column("kernel", pa.string(), "ConvolutionKernel of the chosen series."),
        _column("kvp", pa.float64(), "KVP of the chosen series."),
        _column("contrast", pa.bool_(), "Whether the chosen series names a ContrastBolusAgent, and not a word for no."),
        _column("manufacturer", pa.string(), "Manufacturer."),
        _column("manufacturer_model", pa.string(), "ManufacturerModelName."),
        _column("age", pa.int32(), "Age in full years at the study; over 89 is 90; null if unknown."),
        _column("sex", pa.string(), "PatientSex: F, M or O; null if unknown."),
        _column("study_date", pa.date32(), "StudyDate under the run's date policy."),
        _column("localizer", pa.string(), "What found the vertebrae: masks, geometric or totalsegmentator."),
        _column("levels_imaged", pa.int32(), "Vertebrae in view, whole or cut; null unless screened."),
        _column("levels_evaluable", pa.int32(), "Vertebrae that are whole and classified; null unless screened."),
        _flags("the reading"),
        _column("seconds_headers", pa.float64(), "Seconds to read the headers."),
        _column("seconds_volume", pa.float64(), "Seconds to fetch and decode the volume."),
        _column("seconds_segmentation", pa.float64(), "Seconds to read the study's own segmentation."),
        _column("seconds_localize", pa.float64(), "Seconds to find the vertebrae."),
        _column("seconds_slices", pa.float64(), "Seconds to cut the slices."),
        _column("seconds_views", pa.float64(), "Seconds to make the straightened views."),
        _column("seconds_model", pa.float64(), "Seconds of the model for this study."),
        *_MADE_WITH,
    ],
    metadata={"description": "The ledger: one row per study x model x configuration, whatever became of the study."},
)

_POINTS = "null if the model gives none, and for a vertebra called normal, to which SINS does not apply."

VERTEBRAE = pa.schema(
    [
        *_VERTEBRA,
        _column(
            "level_confidence",
            pa.float64(),
            "Probability that the name is right, a grade if a segmentation names it; 0 if unnamed.",
            null=False,
        ),
        _column("confidence", pa.float64(), "Probability that there is a vertebral body at all.", null=False),
        _column("completeness", pa.string(), "whole, or cut by the field of view.", null=False),
        _column(
            "evaluable", pa.bool_(), "Whether it is whole and classified: the denominator of a prevalence.", null=False
        ),
        _column("slices", pa.int32(), "Slices given to the model.", null=False),
        _column(
            "bone_quality",
            pa.string(),
            "The most probable class: normal, blastic, mixed or lytic; null if unclassified.",
        ),
        _column("p_normal", pa.float64(), "Probability of bone quality normal; the four add up to 1."),
        _column("p_only_blastic", pa.float64(), "Probability of bone quality blastic (blastic alone)."),
        _column("p_mixed", pa.float64(), "Probability of bone quality mixed."),
        _column("p_only_lytic", pa.float64(), "Probability of bone quality lytic (lytic alone)."),
        _column("p_blastic", pa.float64(), "Probability of any blastic part, alone or mixed."),
        _column("p_lytic", pa.float64(), "Probability of any lytic part, alone or mixed."),
        _column("posterolateral", pa.string(), "The most probable class of posterolateral involvement."),
        _column("p_posterolateral_none", pa.float64(), "Probability of no posterolateral involvement."),
        _column("p_posterolateral_unilateral", pa.float64(), "Probability of unilateral involvement."),
        _column("p_posterolateral_bilateral", pa.float64(), "Probability of bilateral involvement."),
        _column("sins_location", pa.int32(), f"SINS points for the level; {_POINTS}"),
        _column("sins_bone", pa.int32(), f"SINS points for the bone lesion: lytic 2, mixed 1, blastic 0; {_POINTS}"),
        _column("sins_posterolateral", pa.int32(), f"SINS points: bilateral 3, unilateral 1, none 0; {_POINTS}"),
        _column("sins_partial", pa.int32(), "Sum of the three; null if one is unknown."),
        _column("sins_min", pa.int32(), "The least SINS total that agrees with what is known."),
        _column("sins_max", pa.int32(), "The greatest: pain, alignment and collapse are not read from the image."),
        *(_column(measure.name, pa.float64(), measure.description) for measure in MEASURES),
        _column("center_x_mm", pa.float64(), "Body centre, LPS: positive to the patient's left.", null=False),
        _column("center_y_mm", pa.float64(), "Body centre, LPS: positive to posterior.", null=False),
        _column("center_z_mm", pa.float64(), "Body centre, LPS: positive to superior.", null=False),
        _column(
            "canal_mm",
            pa.float64(),
            "Place along the spinal canal from its cranial end; a row of `pictures`.",
            null=False,
        ),
        _column("height_mm", pa.float64(), "Body height, endplate to endplate; if cut, the visible part.", null=False),
        _flags("this vertebra"),
        *_MADE_WITH,
    ],
    metadata={"description": "One row per vertebra of a screened study x model x configuration."},
)

CALLS = pa.schema(
    [
        *_VERTEBRA,
        *_CLASS,
        _column("class_number", pa.int32(), "Place of the class in its task; 0 is the negative class.", null=False),
        _column("probability", pa.float64(), "Probability of the class for this vertebra.", null=False),
        *_MADE_WITH,
    ],
    metadata={"description": "One row per classified vertebra x task x class: everything that the model said."},
)

SLICES = pa.schema(
    [
        *_VERTEBRA,
        _column("slice", pa.int32(), "Place in the vertebra, 0 is the most cranial.", null=False),
        _column("offset_mm", pa.float64(), "Height over the body centre, positive to superior.", null=False),
        *_CLASS,
        _column("probability", pa.float64(), "Probability of the class on this slice alone.", null=False),
        *_MADE_WITH,
    ],
    metadata={"description": "One row per slice x task x class; written only with `--slices`."},
)

PICTURES = pa.schema(
    [
        *_KEYS,
        _column(
            "sagittal_png",
            pa.binary(),
            "Straightened sagittal view, 8-bit grey PNG, 1 mm pixels, anterior left.",
            null=False,
        ),
        _column(
            "coronal_png",
            pa.binary(),
            "Straightened coronal view, 8-bit grey PNG, 1 mm pixels, right side left.",
            null=False,
        ),
        _column("canal_column", pa.int32(), "Column of the canal in the sagittal view.", null=False),
        *_MADE_WITH,
    ],
    metadata={"description": "One row per screened study x model x configuration: the straightened spine."},
)

RUNS = pa.schema(
    [
        _column("run_id", pa.string(), "The run.", null=False),
        _column(
            "state",
            pa.string(),
            "running (or killed), done, stopped (by a signal or at its deadline) or failed.",
            null=False,
        ),
        _column("asked_by", pa.string(), "Account that started the run.", null=False),
        _column("started_at", pa.timestamp("us", tz="UTC"), "When it started.", null=False),
        _column("finished_at", pa.timestamp("us", tz="UTC"), "When it ended; null while running, and when killed."),
        _column("archive_key", pa.string(), "Pseudonym of the archive's place.", null=False),
        _column("pseudonym_key_id", pa.string(), "Which pseudonym key was used; does not reveal the key.", null=False),
        _column("date_policy", pa.string(), "exact, shifted or year.", null=False),
        _column("study_limit", pa.int64(), "The largest number of studies requested; null for all."),
        _column("listed", pa.int64(), "Studies that planning saw in the archive."),
        _column("planned", pa.int64(), "Of those, studies that the ledger did not have."),
        _column("waiting", pa.int64(), "Studies left for a later run: still being written, or not yet separable."),
        _column("screened", pa.int64(), "Studies of this run that were screened."),
        _column("excluded", pa.int64(), "Studies of this run that were excluded."),
        _column("failed", pa.int64(), "Studies of this run that failed."),
        _column("vertebrae", pa.int64(), "Vertebrae that this run wrote."),
        _column("reasons", pa.string(), "JSON: studies of this run by reason."),
        _column("chosen", pa.bool_(), "Whether anything but new studies was selected (--study, --since, --rescreen)."),
        _column("evaluable", pa.int64(), "Vertebrae of this run that are whole and were classified."),
        *(
            _column(name, pa.int64(), f"Of those, vertebrae called {name}.")
            for name in (*BONE_QUALITY[1:], *POSTEROLATERAL[1:])
        ),
        _column("hu_vertebrae", pa.int64(), "Of those, vertebrae whose trabecular HU were measured."),
        _column("mean_hu", pa.float64(), "The mean of these HU."),
        _column("drift", pa.string(), "What left the control limits of the last runs; null for nothing."),
        _column("studies_per_hour", pa.float64(), "Studies of this run by its wall-clock time; null for none."),
        _column("model_digest", pa.string(), "Which model.", null=False),
        _column("config_digest", pa.string(), "Which reading configuration.", null=False),
        _column("config", pa.string(), "JSON: that configuration.", null=False),
        _column("software_version", pa.string(), "SpineMet's version.", null=False),
    ],
    metadata={"description": "One row per run of the job: who started it, when, what it was asked for and its counts."},
)

SCHEMAS: dict[str, pa.Schema] = {
    "studies": STUDIES,
    "vertebrae": VERTEBRAE,
    "calls": CALLS,
    "slices": SLICES,
    "pictures": PICTURES,
    "runs": RUNS,
}
"""The tables of a results place, by name."""


def describe(table: str) -> list[tuple[str, str, str]]:
    """(column, type, description) of each column of `table`, in order."""
    return [(column.name, _type_name(column), column.metadata[b"comment"].decode()) for column in SCHEMAS[table]]


def dictionary() -> str:
    """The data dictionary of all tables as Markdown, a section per table."""
    sections = []
    for name, schema in SCHEMAS.items():
        rows = [f"| `{column}` | {kind} | {description} |" for column, kind, description in describe(name)]
        head = [f"### `{name}`", "", schema.metadata[b"description"].decode(), "", "| column | type | meaning |"]
        sections.append("\n".join([*head, "|---|---|---|", *rows]))
    return "\n\n".join(sections) + "\n"


def _type_name(column: pa.Field) -> str:
    name = f"list of {column.type.value_type}" if pa.types.is_list(column.type) else str(column.type)
    return f"{name}, or null" if column.nullable else name
