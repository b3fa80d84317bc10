"""Walls that other bone hides are searched where the rest of the spine has them."""

import numpy as np
import pytest

from spinemet.spine.walls import L_MM, P_MM, body_walls


@pytest.mark.parametrize("rows", [slice(0, 0), slice(0, 30), slice(-30, None), slice(60, 90)])
def test_bone_beside_a_few_bodies_does_not_move_their_middle(rows: slice) -> None:
    bone = np.zeros((160, len(P_MM), len(L_MM)), np.float32)
    deep = (P_MM > -26) & (P_MM < -9)
    bone[:, deep[:, None] & (np.abs(L_MM) < 12)[None]] = 1.0
    bone[rows, deep[:, None] & ((L_MM > 0) & (L_MM < 26))[None]] = 1.0
    walls = body_walls(bone)
    assert np.abs(walls.middle_l).max() <= 2
    assert walls.right == pytest.approx(-12, abs=2)
