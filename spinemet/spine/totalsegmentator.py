"""Makes label maps with TotalSegmentator (Wasserthal et al. 2023, an optional extra); masks.py does the rest.

Weights come only from the folder in TOTALSEG_WEIGHTS_PATH: nothing is downloaded, and the package's usage statistics
are off before it runs. Written for its Python API of 2.18.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from spinemet.anatomy import LEVEL_INDEX, TOTALSEGMENTATOR_LEVELS
from spinemet.errors import BadInput
from spinemet.types import LabelMap, Volume

_WEIGHTS = ("Dataset292_TotalSegmentator_part2_vertebrae_1532subj", "Dataset298_TotalSegmentator_total_6mm_1559subj")
"""The vertebrae at 1.5 mm, and the coarse model that finds their place first."""


def segment(volume: Volume) -> LabelMap:
    """The vertebrae that TotalSegmentator finds in `volume`, whole, on the volume's own grid.

    Runs on the GPU if there is one. Raises BadInput if the package or its weights are missing.
    """
    import nibabel
    import torch

    run = _package()
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    image = nibabel.Nifti1Image(volume.hu_DHW, to_ras @ volume.affine)
    names = [f"vertebrae_{level}" for level in TOTALSEGMENTATOR_LEVELS.values()]
    device = "gpu" if torch.cuda.is_available() else "cpu"
    found = run(image, None, ml=True, task="total", roi_subset=names, device=device, quiet=True)
    numbers = np.asarray(found.dataobj)
    labels = np.zeros(numbers.shape, np.uint8)
    for number, level in TOTALSEGMENTATOR_LEVELS.items():
        labels[numbers == number] = 1 + LEVEL_INDEX[level]
    return LabelMap(labels, volume.affine)


def _package() -> Any:
    """The package's entry point, ready to run offline and silently."""
    try:
        from totalsegmentator.config import set_config_key, setup_totalseg
        from totalsegmentator.python_api import totalsegmentator
    except ImportError as error:
        raise BadInput("TotalSegmentator is not installed: install spinemet[totalsegmentator].") from error
    place = os.environ.get("TOTALSEG_WEIGHTS_PATH", "")
    missing = [name for name in _WEIGHTS if not place or not (Path(place) / name).is_dir()]
    if missing:
        raise BadInput(f"TOTALSEG_WEIGHTS_PATH must name a folder that holds {' and '.join(missing)}.")
    setup_totalseg()
    # On by default: it would report every study to the authors' server.
    set_config_key("send_usage_stats", False)
    return totalsegmentator
