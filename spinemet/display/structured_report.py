"""One study's result as a DICOM Structured Report (TID 1500, Measurement Report), for a PACS or a viewer.

It belongs to the source study, so it holds the patient's identifiers. Per vertebra stand its level as a finding site
(SNOMED CT), the classes of the model with their probabilities, trabecular HU, and the source images through its body.
Terms without a standard code have the private coding scheme 99SPINEMET. The report is preliminary and unverified.

There is no segmentation: localisation knows a body's centre, axes and height, not its outline, and a box would pass for
one in a viewer. A unilateral involvement has no laterality, because the model does not tell the side.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spinemet import __version__
from spinemet.archive.listing import open_study
from spinemet.errors import BadInput
from spinemet.reading import Screened, VertebraCall
from spinemet.types import InstanceHeader, SeriesHeader, StudyRef, Vertebra

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept, MeasurementsAndQualitativeEvaluations
    from pydicom import Dataset

SCHEME = "99SPINEMET"
_TASKS = {"bone_quality": "Bone quality", "posterolateral": "Posterolateral involvement"}
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def structured_report(
    ref: StudyRef, reading: Screened, calls: Sequence[VertebraCall | None], model_digest: str
) -> bytes:
    """The DICOM file of the report on `reading`, the study at `ref`, with the `calls` of the model `model_digest`.

    Raises BadInput if the chosen series lacks a UID, or is no DICOM series: a report could not refer to it.
    """
    from highdicom import UID
    from highdicom.sr import Comprehensive3DSR, MeasurementReport, ObservationContext, ObserverContext
    from highdicom.sr import DeviceObserverIdentifyingAttributes as Device
    from pydicom.sr.codedict import codes

    headers = _headers(ref, reading.chosen)
    groups = [
        _group(vertebra, call, reading.chosen, headers, model_digest)
        for vertebra, _, call in reading.with_calls(calls)
        if call is not None
    ]
    device = ObserverContext(codes.DCM.Device, Device(UID(), name="SpineMet", model_name=model_digest))
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=device),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    report = Comprehensive3DSR(
        evidence=list(headers.values()),
        content=content[0],
        series_instance_uid=UID(),
        series_number=9000,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="SpineMet",
        is_complete=True,
    )
    report.SeriesDescription = "SpineMet measurements (preliminary)"
    report.SoftwareVersions = __version__
    stream = io.BytesIO()
    report.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _headers(ref: StudyRef, series: SeriesHeader) -> "Mapping[str, Dataset]":
    """Name of each object of the series -> its header without pixels."""
    from pydicom import dcmread

    names = dict.fromkeys(one.name for one in series.instances)
    if not names:
        raise BadInput("expected a DICOM series for a structured report, found none (is it a NIfTI volume?).")
    with open_study(ref) as objects:
        headers = {
            name: dcmread(io.BytesIO(content), stop_before_pixels=True, force=True)
            for name, content in objects.read_many(names)
        }
    for header in headers.values():
        if lacking := [keyword for keyword in _REQUIRED if not header.get(keyword)]:
            raise BadInput(f"a structured report refers to its images by UID, but an image has no {lacking[0]}.")
    return headers


def _group(
    vertebra: Vertebra,
    call: VertebraCall,
    series: SeriesHeader,
    headers: "Mapping[str, Dataset]",
    model_digest: str,
) -> "MeasurementsAndQualitativeEvaluations":
    """What is known of one vertebra, as the rows of TID 1501."""
    from highdicom import UID
    from highdicom.sr import (
        AlgorithmIdentification,
        FindingSite,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    labels = {task: label for task in _TASKS if (label := call.label(task)) is not None}
    evaluations = [
        QualitativeEvaluation(_private(task, _TASKS[task]), _private(f"{task}-{label}", label))
        for task, label in labels.items()
    ]
    if call.doubt is not None:
        evaluations.append(
            QualitativeEvaluation(_private("unsure", "Call is unsure"), _private(call.doubt, call.doubt))
        )
    measurements = [
        Measurement(
            _private(f"p-{task}-{name}", f"Probability of {_TASKS[task].lower()} {name}"),
            float(value),
            codes.UCUM.NoUnits,
        )
        for task in labels
        for name, value in call.probabilities[task].items()
    ]
    measurements.append(
        Measurement(
            _private("level-confidence", "Probability that the level is right"),
            float(vertebra.level_confidence),
            codes.UCUM.NoUnits,
        )
    )
    if (density := vertebra.measures.get("trabecular_hu")) is not None:
        measurements.append(
            Measurement(
                codes.DCM.AttenuationCoefficient,
                float(density),
                codes.UCUM.HounsfieldUnit,
                derivation=codes.SCT.Mean,
            )
        )
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(UID(), vertebra.level),
        finding_type=codes.SCT.Vertebra,
        finding_sites=[FindingSite(_site(vertebra.level))],
        algorithm_id=AlgorithmIdentification("SpineMet", __version__, parameters=[f"model {model_digest}"]),
        measurements=measurements,
        qualitative_evaluations=evaluations,
        source_images=[
            SourceImageForMeasurementGroup(headers[name].SOPClassUID, headers[name].SOPInstanceUID, frames or None)
            for name, frames in _images(vertebra, series)
        ],
    )


def _images(vertebra: Vertebra, series: SeriesHeader) -> Iterator[tuple[str, list[int]]]:
    """The objects whose slices meet the body at its axis, with frame numbers from 1 of a multi-frame object."""
    placed = [one for one in series.instances if one.ImagePositionPatient and one.ImageOrientationPatient]
    away = np.array([_distance(one, vertebra) for one in placed])
    chosen: dict[str, list[int]] = {}
    for place in np.flatnonzero(away <= max(vertebra.height_mm / 2, away.min(initial=0.0))):
        one = placed[place]
        chosen.setdefault(one.name, []).extend([] if one.frame is None else [one.frame + 1])
    yield from chosen.items()


def _distance(image: InstanceHeader, vertebra: Vertebra) -> float:
    """Millimetres between the plane of a slice and the centre of a body."""
    assert image.ImageOrientationPatient is not None
    assert image.ImagePositionPatient is not None
    row, column = np.reshape(image.ImageOrientationPatient, (2, 3))
    return float(abs(np.cross(row, column) @ (np.array(vertebra.center_mm) - image.ImagePositionPatient)))


def _site(level: str) -> Any:
    """The SNOMED CT code of a level; that of any vertebra for one without a name or without a code (T13, L6)."""
    from pydicom.sr.codedict import codes

    return codes.SCT.Sacrum if level == "S1" else getattr(codes.SCT, f"{level}Vertebra", None) or codes.SCT.Vertebra


def _private(value: str, meaning: str) -> "CodedConcept":
    from highdicom.sr import CodedConcept

    return CodedConcept(value.replace("_", "-"), SCHEME, meaning)
