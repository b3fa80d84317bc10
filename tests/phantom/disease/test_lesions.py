"""Lesions change the bone that their labels say they change, on the side they say, and mimics are what they claim."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinemet.phantom.body.anatomy import MOBILE, Pose, draw_anatomy, place_spine
from spinemet.phantom.body.vertebra import BoneChange
from spinemet.phantom.disease.lesions import build_lesion, draw_diseases
from spinemet.phantom.disease.mimics import MIMICS, Mimic
from spinemet.phantom.plan import METASTATIC_SHARE, derived_uid, plan_patient
from spinemet.phantom.scan import PhantomScan, ScanSettings, render
from spinemet.types import POSTEROLATERAL

PATIENT = replace(draw_anatomy(np.random.default_rng(4)), trabecular_hu=140.0)
POSES = {pose.level: pose for pose in place_spine(PATIENT)}
LEVEL = "L2"
POSE = POSES[LEVEL]


def scan_of(disease: BoneChange | None) -> PhantomScan:
    """Noise-free slices of one lumbar vertebra with `disease`."""
    x, y, z = POSE.center
    settings_ = ScanSettings((x, y + 15, z), (24, 96, 96), (2.0, 1.0, 1.0), 2.0, noise_hu=0.0)
    return render(PATIENT, settings_, {LEVEL: [disease]} if disease else {})


@pytest.fixture(scope="module")
def healthy() -> PhantomScan:
    return scan_of(None)


def changed(scan: PhantomScan, healthy: PhantomScan, pose: Pose = POSE) -> tuple[np.ndarray, np.ndarray]:
    """HU change of every voxel that changed by more than 60 HU, and its local coordinates (N, 3)."""
    difference = scan.volume.hu_DHW.astype(int) - healthy.volume.hu_DHW
    index = np.argwhere(np.abs(difference) > 60)
    local = (scan.volume.to_lps(index) - pose.center) @ pose.axes.T
    return difference[tuple(index.T)], local


@pytest.mark.parametrize("extent", [0.28, 0.6, 1.0])
@pytest.mark.parametrize("quality", ["lytic", "blastic", "mixed"])
def test_each_class_removes_or_adds_bone_and_mixed_does_both(healthy: PhantomScan, quality: str, extent: float) -> None:
    before = healthy.volume.hu_DHW.astype(int)
    after = scan_of(build_lesion(POSE, quality, "none", "left", extent, 11)).volume.hu_DHW.astype(int)
    lost_mm3 = 2.0 * ((before > 100) & (after < before - 60)).sum()
    gained_mm3 = 2.0 * ((after > 200) & (after > before + 60)).sum()
    least = 60.0
    assert (lost_mm3 > least) == (quality in {"lytic", "mixed"})
    assert (gained_mm3 > least) == (quality in {"blastic", "mixed"})


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("extent", POSTEROLATERAL)
def test_posterior_elements_change_on_the_labelled_sides_only(
    healthy: PhantomScan, extent: str, side: str, seed: int
) -> None:
    """Behind the body's posterior wall and off the midline, bone changes where the label says and nowhere else."""
    lesion = build_lesion(POSE, "lytic", extent, side, 0.5, seed, labelled_side=side if extent == "unilateral" else "")
    _, local = changed(scan_of(lesion), healthy)
    behind = local[local[:, 1] > POSE.size.depth * 0.42 + 3]
    lateral = POSE.size.canal_width / 4
    left, right = int((behind[:, 0] > lateral).sum()), int((behind[:, 0] < -lateral).sum())
    expected = {"none": (), "unilateral": (side,), "bilateral": ("left", "right")}[extent]
    for name, count in (("left", left), ("right", right)):
        assert (count > 40) if name in expected else (count < 12), (name, left, right)


@pytest.mark.parametrize("kind", MIMICS)
def test_every_mimic_shows_and_stays_in_the_body_or_on_its_rim(healthy: PhantomScan, kind: str) -> None:
    change, local = changed(scan_of(Mimic(kind, 5, 1)), healthy)
    assert change.size > 5
    size = POSE.size
    reach = np.array([size.width, size.depth, size.height]) / 2 + 9
    assert (np.abs(local) < reach).all()


def test_a_bone_island_is_small_and_dense(healthy: PhantomScan) -> None:
    scan = scan_of(Mimic("bone_island", 5, 1))
    _, local = changed(scan, healthy)
    assert (np.ptp(local, axis=0) < 13).all()
    assert scan.volume.hu_DHW.max() > 500


def test_disease_grows_without_therapy_and_hardens_with_it() -> None:
    order = {"lytic": 0, "mixed": 1, "blastic": 2}
    hardened = grown = appeared = 0
    for seed in range(60):
        diseases = draw_diseases(np.random.default_rng(seed), MOBILE, 3, metastatic=True, usual="lytic")
        for disease in diseases.values():
            for (before, back, extent), (after, back_after, extent_after) in zip(
                disease.stages[:-1], disease.stages[1:], strict=True
            ):
                if before == "normal":
                    appeared += after != "normal"
                    continue
                assert order[after] >= order[before]
                assert POSTEROLATERAL.index(back_after) >= POSTEROLATERAL.index(back)
                hardened += order[after] > order[before]
                grown += extent_after > extent
    assert min(hardened, grown, appeared) > 20


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_archive_holds_its_share_of_every_class(seed: int) -> None:
    """Over C3 to L5: about two thirds normal, each lesion class at least 7 %, half of the patients metastatic."""
    plans = [plan for number in range(80) for plan in plan_patient(seed, number, 64)]
    sick = {plan.patient.number: bool(plan.patient.diseases) for plan in plans}
    assert np.mean(list(sick.values())) == pytest.approx(METASTATIC_SHARE, abs=0.05)
    counts: Counter[str] = Counter()
    for plan in plans:
        for level in MOBILE:
            disease = plan.patient.diseases.get(level)
            counts[disease.stages[plan.number][0] if disease else "normal"] += 1
    total = counts.total()
    assert 0.58 < counts["normal"] / total < 0.76
    assert min(counts[name] / total for name in ("lytic", "blastic", "mixed")) > 0.07


def test_a_patient_follows_from_the_seed_and_the_number_alone() -> None:
    assert plan_patient(7, 3, 128) == plan_patient(7, 3, 128)
    assert plan_patient(7, 3, 128) != plan_patient(8, 3, 128)
    assert [plan.day for plan in plan_patient(7, 3, 128)] == sorted(plan.day for plan in plan_patient(7, 3, 128))


@given(st.lists(st.one_of(st.integers(), st.text(max_size=8)), max_size=5))
@settings(max_examples=50, deadline=None)
def test_derived_uids_are_valid_and_repeatable(parts: list[object]) -> None:
    uid = derived_uid(*parts)
    assert uid == derived_uid(*parts)
    assert len(uid) <= 64
    assert uid.startswith("2.25.")
    assert not uid.removeprefix("2.25.").startswith("0")
