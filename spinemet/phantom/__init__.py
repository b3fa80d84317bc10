"""CT studies with known truth, written as DICOM.

`body/` draws a patient on the grid of `shapes.py`, `disease/` changes the bone, `scan.py` makes the CT volume and the
truth. `plan.py` decides what an archive holds, `dicom.py` and `archive.py` write it.
"""
