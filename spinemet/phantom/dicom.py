"""Phantom scans as DICOM objects: CT series, localizers, a secondary capture, and the vertebra labels as a SEG."""

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, RLELossless, SecondaryCaptureImageStorage

from spinemet.anatomy import LEVELS
from spinemet.phantom.plan import SCANNERS, StudyPlan
from spinemet.types import LabelMap, Volume

INTERCEPT = -1024
"""Stored values are HU + 1024 in 12 bits, as most scanners do."""


def patient_and_study(plan: StudyPlan) -> Dataset:
    """The attributes shared by all objects of a study; tests search outputs for these invented names and numbers."""
    header = Dataset()
    header.PatientName = plan.patient.name
    header.PatientID = plan.patient.patient_id
    header.PatientBirthDate = f"{plan.patient.birth_date:%Y%m%d}"
    header.PatientSex = plan.patient.anatomy.sex
    header.PatientAge = f"{plan.age:03d}Y"
    header.StudyInstanceUID = plan.uid("study")
    header.StudyDate = f"{plan.day:%Y%m%d}"
    header.StudyTime = "101500"
    header.StudyID = f"{plan.number + 1}"
    header.AccessionNumber = f"ACC{plan.patient.number:05d}{plan.number}"
    header.StudyDescription = f"CT {plan.region}"
    header.ReferringPhysicianName = "REFERRER^PHANTOM"
    header.InstitutionName = "Phantom General Hospital"
    header.Manufacturer = plan.manufacturer
    header.ManufacturerModelName = SCANNERS[plan.manufacturer][0]
    header.FrameOfReferenceUID = plan.uid("frame")
    header.PositionReferenceIndicator = ""
    return header


def _series_header(plan: StudyPlan, sop_class: str, series: int, description: str) -> Dataset:
    """The attributes shared by all images of a series, without geometry; 12 bits unsigned."""
    header = patient_and_study(plan)
    header.SOPClassUID = UID(sop_class)
    header.Modality = "CT"
    header.SeriesInstanceUID = plan.uid("series", series)
    header.SeriesNumber = series
    header.SeriesDescription = description
    header.SeriesDate = header.AcquisitionDate = header.ContentDate = header.StudyDate
    header.SeriesTime = header.AcquisitionTime = header.ContentTime = header.StudyTime
    header.AcquisitionNumber = 1
    header.PatientPosition = "HFS"
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    return header


def _image(plan: StudyPlan, header: Dataset, number: int, pixels: npt.NDArray[np.uint16]) -> Dataset:
    """One uncompressed image of the series of `header`; they share the header's elements."""
    # Sharing halves the time per object. An image may only set elements that the header does not have.
    image = Dataset({element.tag: element for element in header})
    image.SOPInstanceUID = plan.uid("object", header.SeriesNumber, number)
    image.InstanceNumber = number
    image.Rows, image.Columns = pixels.shape
    image.PixelData = np.ascontiguousarray(pixels, "<u2").tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.ImplementationClassUID = UID(plan.uid("implementation"))
    return image


def ct_series(plan: StudyPlan, which: int, volume: Volume) -> list[Dataset]:
    """The axial CT Image Storage objects of reconstruction `which`, cranial slice first, not yet compressed."""
    scan = plan.scans[which]
    stored = (volume.hu_DHW.astype(np.int32) - INTERCEPT).clip(0, 4095).astype(np.uint16)
    description = f"{plan.region} {scan.spacing[0]:g} mm {plan.kernels[which]}"
    header = _series_header(plan, CTImageStorage, which + 2, description)
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.BodyPartExamined = {"thoracic": "CHEST", "whole": "SPINE"}.get(plan.region, "LSPINE")
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.PixelSpacing = [round(float(v), 6) for v in scan.spacing[1:]]
    header.SliceThickness = round(scan.thickness, 3)
    header.KVP = plan.kvp
    header.XRayTubeCurrent = 220
    header.ConvolutionKernel = plan.kernels[which]
    header.ReconstructionDiameter = round(scan.spacing[2] * scan.shape[2], 3)
    header.GantryDetectorTilt = 0
    if plan.contrast_agent:
        header.ContrastBolusAgent = plan.contrast_agent
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = INTERCEPT, 1, "HU"
    header.WindowCenter, header.WindowWidth = 400, 1800
    images = []
    for number, d in enumerate(range(stored.shape[0] - 1, -1, -1), start=1):
        image = _image(plan, header, number, stored[d])
        x, y, z = volume.affine[:3, 3] + d * volume.affine[:3, 0]
        image.ImagePositionPatient = [round(float(v), 4) for v in (x, y, z)]
        image.SliceLocation = round(float(z), 4)
        images.append(image)
    return images


def localizer_series(plan: StudyPlan, volume: Volume) -> list[Dataset]:
    """Scout views: from the front and, in every second patient, from the side as well."""
    views = [(2, 1), (1, 2)][: 1 + plan.patient.number % 2]
    return [_scout(plan, volume, number, *view) for number, view in enumerate(views, start=1)]


def _scout(plan: StudyPlan, volume: Volume, number: int, across: int, through: int) -> Dataset:
    """A projection along axis `through` of (D, H, W); its columns run along axis `across`."""
    thick = np.clip(volume.hu_DHW.astype(np.float32) + 1000, 0, None).mean(axis=through)[::-1]
    pixels = np.clip(thick * 0.8, 0, 4095).astype(np.uint16)
    image = _image(plan, _series_header(plan, CTImageStorage, 1, "Topogram"), number, pixels)
    spacing = volume.spacing_mm
    image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    corner = volume.affine[:3, 3] + (volume.hu_DHW.shape[0] - 1) * volume.affine[:3, 0]
    image.ImagePositionPatient = [round(float(v), 4) for v in corner]
    image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1] if across == 2 else [0, 1, 0, 0, 0, -1]
    image.PixelSpacing = [round(spacing[0], 6), round(spacing[across], 6)]
    image.SliceThickness = 1
    image.KVP = plan.kvp
    image.ConvolutionKernel = "T20f"
    image.RescaleIntercept, image.RescaleSlope = INTERCEPT, 1
    image.WindowCenter, image.WindowWidth = 0, 1200
    return image


def secondary_capture(plan: StudyPlan) -> Dataset:
    """A dose screen: a secondary capture with the modality CT, as real scanners write it."""
    pixels = np.zeros((128, 256), np.uint16)
    pixels[20:24, 20:236] = pixels[60:62, 20:160] = pixels[90:92, 20:200] = 3000
    image = _image(plan, _series_header(plan, SecondaryCaptureImageStorage, 99, "Dose report"), 1, pixels)
    image.ConversionType = "WSD"
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    return image


def segmentation(plan: StudyPlan, source: list[Dataset], labels: LabelMap) -> Dataset:
    """The vertebra labels of the first series as a multi-segment binary SEG; segments are labelled "T1 vertebra".

    source: the uncompressed objects of that series, cranial first.
    """
    import highdicom as hd

    stack = labels.labels_DHW[::-1]
    present = [int(value) for value in np.unique(stack) if value]
    numbers = np.zeros(256, np.uint8)
    numbers[present] = np.arange(1, len(present) + 1)
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=n,
            segment_label=f"{LEVELS[value - 1]} vertebra",
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=getattr(codes.SCT, f"{LEVELS[value - 1]}Vertebra"),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for n, value in enumerate(present, start=1)
    ]
    seg: Dataset = hd.seg.Segmentation(
        source_images=source,
        pixel_array=numbers[stack],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=plan.uid("series", 300),
        series_number=300,
        sop_instance_uid=plan.uid("object", 300, 1),
        instance_number=1,
        manufacturer="SpineMet",
        manufacturer_model_name="Phantom",
        software_versions="1",
        device_serial_number="1",
        content_label="VERTEBRAE",
        content_creator_name="READER^PHANTOM",
    )
    # Equal seeds give equal bytes, so highdicom's times of day and random UIDs are replaced.
    seg.SeriesDescription = "Spine Segmentation"
    seg.ContentDate = seg.InstanceCreationDate = seg.StudyDate
    seg.ContentTime = seg.InstanceCreationTime = seg.StudyTime
    organization = plan.uid("dimensions")
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    seg.pop("ContributingEquipmentSequence", None)
    return seg


def encode(images: list[Dataset], transfer_syntax: str) -> Iterator[bytes]:
    """The objects as files, compressed without loss to `transfer_syntax`. The data sets are changed in place."""
    for image in images:
        if transfer_syntax != ExplicitVRLittleEndian:
            # gdcm encodes RLE 15 times as fast as pydicom itself (0.9 against 13.6 ms for 256 x 256).
            plugin = "gdcm" if transfer_syntax == RLELossless else ""
            image.compress(transfer_syntax, encoding_plugin=plugin, generate_instance_uid=False)
        yield encode_one(image)


def encode_one(image: Dataset) -> bytes:
    """One object as a DICOM file."""
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
