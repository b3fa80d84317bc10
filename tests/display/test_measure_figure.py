from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from spinemet.display.measure_figure import Columns, measure_figure, write_measure
from spinemet.display.palette import LIGHT
from spinemet.errors import BadInput

TABLE = pd.DataFrame(
    [("F", "any", 0.4, 0.3, 0.5), ("F", "lytic", 0.1, np.nan, np.nan), ("M", "any", 0.6, 0.5, 0.7)],
    columns=["sex", "finding", "share", "low", "high"],
)
COLUMNS = Columns(["sex"], "share", "low", "high", "%", "Called", series="finding", scale=100)


def test_points_stand_at_their_values_with_bars_where_the_interval_is_known() -> None:
    axes = measure_figure(TABLE, COLUMNS).axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [round(float(line.get_xdata()[0])) for line in points] == [40, 10, 60]
    bars = [[round(float(x)) for x in line.get_xdata()] for line in axes.lines if line.get_marker() != "o"]
    assert bars == [[30, 50], [50, 70]]
    assert [line.get_markerfacecolor() for line in points][1] == "white", "without an interval the point is open"
    assert points[1].get_color() == LIGHT["lytic"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["F", "M"]
    heights = [float(line.get_ydata()[0]) for line in points]
    assert heights == sorted(heights), "the first row is at the top"


def test_it_is_written_as_png(tmp_path: Path) -> None:
    write_measure(tmp_path / "a.png", TABLE, COLUMNS)
    assert Image.open(tmp_path / "a.png").format == "PNG"
    with pytest.raises(BadInput, match="Cannot write the picture"):
        write_measure(tmp_path / "nowhere" / "a.png", TABLE, COLUMNS)


@pytest.mark.parametrize("rows", [0, 200])
def test_nothing_or_too_much_is_refused(rows: int) -> None:
    with pytest.raises(BadInput, match=f"found {rows}"):
        measure_figure(pd.concat([TABLE.iloc[:1]] * rows) if rows else TABLE.iloc[:0], COLUMNS)
