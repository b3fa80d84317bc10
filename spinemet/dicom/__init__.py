"""Reads DICOM and NIfTI: from objects to series, volumes and label maps."""
