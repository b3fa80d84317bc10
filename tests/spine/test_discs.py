"""The chain of discs on artificial evidence."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spinemet.spine.discs import DiscEvidence, disc_chain


def _evidence(size: int, discs: dict[int, float], rng: np.random.Generator | None = None) -> DiscEvidence:
    score = np.full(size, -0.8)
    s = np.arange(size)
    for place, height in discs.items():
        score = np.maximum(score, -0.8 + (height + 0.8) * np.exp(-0.5 * ((s - place) / 1.5) ** 2))
    if rng is not None:
        score = score + rng.normal(0, 0.2, size)
    return DiscEvidence(score, np.full(size, 6.0), np.zeros(size), np.full(size, 0.5))


def _chain(evidence: DiscEvidence, depth: float = 34.0) -> list[int]:
    size = len(evidence.score)
    return [int(d) for d in disc_chain(evidence, np.full(size, depth), np.arange(size, dtype=float))]


@settings(max_examples=15, deadline=None)
@given(spacing=st.integers(22, 38), growth=st.floats(1.0, 1.05), seed=st.integers(0, 99))
def test_a_regular_column_is_found_in_noise(spacing: int, growth: float, seed: int) -> None:
    places = 15 + np.cumsum([0, *(spacing * growth**n for n in range(5))])
    size = int(places[-1]) + 20
    found = _chain(_evidence(size, {int(p): 2.0 for p in places}, np.random.default_rng(seed)), depth=spacing / 0.88)
    assert len(found) == len(places)
    assert np.abs(np.array(found) - places.astype(int)).max() <= 2


def test_a_missing_disc_never_drops_a_level() -> None:
    found = _chain(_evidence(220, {20: 2.0, 50: 2.0, 110: 2.0, 140: 2.0, 170: 2.0}))
    assert len(found) == 6
    assert abs(found[2] - 80) <= 6


def test_a_line_inside_a_body_is_not_a_disc() -> None:
    found = _chain(_evidence(180, {20: 2.0, 50: 2.0, 64: 1.0, 80: 2.0, 110: 2.0, 140: 2.0}))
    assert 64 not in found
    assert len(found) == 5


def test_no_evidence_gives_no_disc_and_one_peak_gives_one() -> None:
    assert _chain(_evidence(100, {})) == []
    assert len(_chain(_evidence(100, {50: 1.0}))) == 1


def test_spacing_is_measured_along_the_bodies() -> None:
    """In a lordosis the canal is shorter than the row of bodies: 24 mm along it may be 34 mm along them."""
    evidence = _evidence(120, {20: 2.0, 44: 2.0, 68: 2.0, 92: 2.0})
    assert len(disc_chain(evidence, np.full(120, 40.0), np.arange(120) * 34 / 24)) == 4


def test_a_fused_block_in_the_neck_is_not_counted_as_one_body_fewer() -> None:
    """Places as in a phantom whose C6 to T1 are fused, with false discs inside its bodies; evidence of 1.2 for fused
    ones. (With 0.4, as in that phantom, they are still miscounted.)"""
    score = np.full(230, -0.8)
    true = {37: 0.74, 53: 1.05, 70: 1.4, 85: 1.2, 98: 1.2, 114: 1.75, 135: 1.84, 158: 2.04, 181: 2.29, 204: 1.86}
    for place, evidence in ({55: 0.41, 74: 0.62, 93: 0.82} | true).items():
        score[place] = evidence
    flat = np.zeros(len(score))
    depth = np.interp(np.arange(len(score)), (37, 98, 204), (15.5, 17.0, 24.0))
    chain = disc_chain(DiscEvidence(score, flat + 4, flat, flat), depth, np.arange(len(score), dtype=float))
    assert chain.tolist() == list(true)
