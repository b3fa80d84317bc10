"""CT studies with known truth, written as DICOM."""
