"""A label of a slice reaches the slices of the stack that show it, and no others.

The vertebrae of these readings lie at height 0 and have slices at 3, 0 and -3 mm.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinemet.reading import Screened
from spinemet.training.matching import match_labels
from spinemet.types import SeriesHeader
from tests.readings import reading
from tests.training.crops import cropped, label_table, with_slices


def row(word: str | None, at: str = "", level: str = "L1", **more: str) -> dict[str, str]:
    said = {} if word is None else {"bone_quality": word}
    return {"patient": "p1", "study": "1.2", "level": level, "slice": at, **said, **more}


def said(one: Screened, *rows: dict[str, str], column: str = "bone_quality") -> tuple[list[object], list[object]]:
    """(label of the vertebra, labels of its slices) in the crops of `one`."""
    found = cropped(one, label_table(*rows)).to_pydict()
    return found[column], found[f"slice_{column}"]


ONE = reading("p1", ["L1"], study="1.2")


def test_a_height_labels_the_nearest_slice_and_leaves_the_vertebra_its_label() -> None:
    assert said(ONE, row("lytic"), row("normal", "4"), row("mixed", "-0.7")) == (
        ["lytic"] * 3,
        ["normal", "mixed", None],
    )


def test_slices_may_be_labelled_without_the_vertebra() -> None:
    assert said(ONE, row("lytic", "0")) == ([None] * 3, [None, "lytic", None])
    assert match_labels(ONE, label_table(row("lytic", "0"))).vertebrae[0].row is None


def test_of_thin_labelled_slices_the_nearest_counts() -> None:
    labels = [row(word, str(z)) for z, word in ((4, "normal"), (2.5, "lytic"), (1.4, "mixed"), (0.5, "blastic"))]
    assert said(ONE, *labels)[1] == ["lytic", "blastic", None]


def test_a_thick_labelled_slice_labels_all_slices_it_covers() -> None:
    thick = replace(ONE, spacing_mm=(6.2, 0.7, 0.7))
    assert said(thick, row("lytic", "0"))[1] == ["lytic"] * 3
    assert said(thick, row("lytic", "0"), row("normal", "6"))[1] == ["lytic"] * 3
    assert said(thick, row("lytic", "0"), row("normal", "5"))[1] == ["normal", "lytic", "lytic"]


def test_a_label_beside_the_stack_or_of_another_vertebra_or_study_reaches_nothing() -> None:
    for one in (row("lytic", "4.6"), row("lytic", "0", level="L2"), row("lytic", "0", study="1.3")):
        found = match_labels(ONE, label_table(one))
        assert not found.vertebrae
        assert not found.strays


def test_each_column_takes_the_nearest_slice_with_a_label_in_it() -> None:
    labels = [row("lytic", "0.5"), row(None, "0", posterolateral="none"), row(None, "3")]
    assert said(ONE, *labels)[1] == [None, "lytic", None]
    assert said(ONE, *labels, column="posterolateral")[1] == [None, "none", None]


def test_a_sop_instance_uid_means_the_height_of_that_slice() -> None:
    one = with_slices(ONE, {"1.2.3.1": 3.5, "1.2.3.2": -3.5})
    assert said(one, row("lytic", "1.2.3.2"))[1] == [None, None, "lytic"]


def test_a_uid_of_another_series_counts_in_the_same_frame_of_reference() -> None:
    one = with_slices(ONE, {"1.2.3.1": 3.0})
    other = with_slices(ONE, {"1.2.4.1": -3.0}).chosen
    labels = [row("lytic", "1.2.4.1")]
    seen = replace(one, series_seen=((one.chosen, None), (other, None)))
    assert said(seen, *labels)[1] == [None, None, "lytic"]
    elsewhere: SeriesHeader = replace(other, FrameOfReferenceUID="9")
    seen = replace(one, series_seen=((one.chosen, None), (elsewhere, None)))
    assert match_labels(seen, label_table(*labels)).strays == (0,)


def test_a_uid_of_no_slice_or_of_several_is_a_stray() -> None:
    one = with_slices(ONE, {"1.2.3.1": 3.0, "1.2.3.2": 0.0})
    first, second = one.chosen.instances
    same = replace(one.chosen, instances=(first, replace(second, SOPInstanceUID="1.2.3.1")))
    labels = label_table(row("normal", "1.2.3.1"), row("lytic", "1.2.3.9"), row("lytic"))
    assert match_labels(one, labels).strays == (1,)
    found = match_labels(replace(one, chosen=same, series_seen=()), labels)
    assert found.strays == (0, 1)
    assert found.vertebrae[0].row is not None


def test_a_tilted_slice_is_measured_along_its_own_normal() -> None:
    """At 60 degrees, the distance along the vertebra's axis is twice the distance along the normal."""
    one = with_slices(ONE, {"1.2.3.1": 0.0})
    (header,) = one.chosen.instances
    sine = np.sqrt(0.75)
    tilted = replace(
        header, ImagePositionPatient=(1.0, 2.0, 4.0), ImageOrientationPatient=(1.0, 0.0, 0.0, 0.0, 0.5, sine)
    )
    chosen = replace(one.chosen, instances=(tilted,))
    one = replace(one, chosen=chosen, series_seen=())
    assert said(one, row("lytic", "1.2.3.1"))[1] == ["lytic", None, None]


def test_heights_are_measured_along_the_patients_z_axis() -> None:
    cosine, sine = 0.5, np.sqrt(0.75)
    bent = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])  # middles of slices 1.5 mm apart in z
    moved = replace(ONE.spine.vertebrae[0], center_mm=(5.0, -20.0, 100.0), axes=bent)
    one = replace(ONE, spine=replace(ONE.spine, vertebrae=(moved,)))
    assert said(one, row("normal", "101.5"), row("mixed", "100.6"), row("lytic", "97"))[1] == [
        "normal",
        "mixed",
        "lytic",
    ]
    assert said(one, row("lytic", "0"), row("normal")) == (["normal"] * 3, [None] * 3)


heights = st.lists(st.floats(-20, 20).map(lambda z: round(z, 1)), min_size=1, max_size=6, unique=True)


@settings(max_examples=30)
@given(heights, st.floats(0.5, 8))
def test_every_slice_gets_the_nearest_label_within_reach_only(labelled: list[float], spacing: float) -> None:
    one = replace(ONE, spacing_mm=(spacing, 1.0, 1.0))
    labels = label_table(*(row("lytic", str(z)) for z in labelled))
    found = match_labels(one, labels).vertebrae
    reach = max(spacing, 3.0) / 2
    for n, height in enumerate((3.0, 0.0, -3.0)):
        nearest = min(abs(z - height) for z in labelled)
        taken = found[0].slices["bone_quality"][n] if found else None
        if taken is None:
            assert nearest > reach - 1e-6
        else:
            assert abs(float(labels["slice"].iloc[taken]) - height) == pytest.approx(nearest)
            assert nearest <= reach + 2e-3
