"""The picture of what self-pacing admitted when."""

from __future__ import annotations

import pandas as pd

from spinemet.training.pacing_figure import pacing_figure
from spinemet.types import BONE_QUALITY


def test_it_is_drawn_for_any_run() -> None:
    usual = pd.DataFrame({"label": ["normal", "normal", "lytic", None], "epoch": [2, 4, 3, 2], "row": range(4)})
    never = usual.assign(epoch=0)
    pictures = [pacing_figure(table, BONE_QUALITY) for table in (usual, never)]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0] != pictures[1]
