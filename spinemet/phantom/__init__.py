"""CT studies with known truth, written as DICOM."""

from spinemet.phantom.volume import phantom_scan, phantom_volume

__all__ = ["phantom_scan", "phantom_volume"]
