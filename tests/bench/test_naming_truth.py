"""The benchmark of names compares each listed body with the right one of the truth."""

from __future__ import annotations

import numpy as np

from tests.bench.bench_naming import true_levels
from tests.bench.localizer_phantoms import Truth

ORDER = ["T11", "T12", "L1", "L2", "L3", "L4", "L5"]
TRUTH = [Truth(level, (0.0, 0.0, -30.0 * n)) for n, level in enumerate(["T12", "L1", "L2", "L3"])]


def _true(*heights: float, cut: tuple[int, ...] = ()) -> list[str]:
    places = np.array([(0.0, 0.0, z) for z in heights])
    return true_levels(places, [n in cut for n in range(len(heights))], TRUTH, ORDER)


def test_a_body_has_the_level_it_lies_at() -> None:
    assert _true(2, -28, -74, -90) == ["T12", "L1", "L2", "L3"]
    assert _true(-30, -60) == ["L1", "L2"]


def test_a_body_where_there_is_none_has_no_level() -> None:
    assert _true(40, 0) == ["-", "T12"]


def test_a_cut_body_at_an_end_is_counted_from_its_neighbour() -> None:
    assert _true(24, 0, -90, -112, cut=(0, 3)) == ["T11", "T12", "L3", "L4"]
    assert _true(12, 0, cut=(0,)) == ["T11", "T12"]
