"""DICOM objects to series, volumes and label maps."""
