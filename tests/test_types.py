from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spinemet.types import Flag, Volume

finite = st.floats(-200, 200)


@given(
    points=hnp.arrays(np.float64, (5, 3), elements=finite),
    origin=hnp.arrays(np.float64, 3, elements=finite),
    spacing=hnp.arrays(np.float64, 3, elements=st.floats(0.3, 5.0)),
    angle=st.floats(-3.0, 3.0),
)
def test_indices_and_lps_are_inverse(points: np.ndarray, origin: np.ndarray, spacing: np.ndarray, angle: float) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = origin
    volume = Volume(np.zeros((2, 2, 2), np.int16), affine)
    np.testing.assert_allclose(volume.to_lps(volume.to_index(points)), points, atol=1e-8)
    np.testing.assert_allclose(volume.spacing_mm, spacing)


@pytest.mark.parametrize("flag", Flag)
def test_a_flag_is_its_word_and_has_a_sentence(flag: Flag) -> None:
    assert flag == flag.value == f"{flag}" == flag.name.lower()
    assert flag.meaning.endswith(".")
    assert pickle.loads(pickle.dumps(flag)) is Flag(flag.value) is flag
