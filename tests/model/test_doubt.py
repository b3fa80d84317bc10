"""Doubts: what is unlike the training is unsure for the right reason, and conformal sets hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from spinemet.model.doubt import (
    AMBIGUOUS,
    CENTER_ROW,
    FEWEST,
    MEASURES,
    Doubts,
    appearance,
    fit_classes,
    fit_familiar,
    fit_ranges,
    fit_unexplained,
    in_context,
    unexplained_share,
)
from spinemet.reading import Doubt, VertebraCall
from spinemet.spine import slices
from spinemet.types import AIR_HU, BONE_QUALITY

PIXEL_MM = 1.15
SIZE = 96


def body(seed: int, hu: float = 150.0, noise: float = 20.0) -> np.ndarray:
    """Slices of a round body with a bright shell in soft tissue, seen by a scanner of 0.5 mm blur."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    radius = np.hypot(y - CENTER_ROW * SIZE, x - (SIZE - 1) / 2) * PIXEL_MM
    outer = 16 + rng.uniform(-2, 2)
    clean = np.where(radius < outer, hu + rng.uniform(-40, 40), 50.0)
    clean[(radius > outer - 2) & (radius < outer)] = 600.0
    still = gaussian_filter(clean, 0.5 / PIXEL_MM)
    return np.asarray(still + rng.normal(0, noise * rng.uniform(0.7, 1.3), (7, SIZE, SIZE)))


@pytest.fixture(scope="module")
def known() -> Doubts:
    measured = [appearance(body(seed), PIXEL_MM) for seed in range(150)]
    return Doubts(ranges=fit_ranges(measured), decides="bone_quality")


def doubt(known: Doubts, hu_NHW: np.ndarray) -> Doubt | None:
    return known.doubt(appearance(hu_NHW, PIXEL_MM), None, {}, "normal", "normal")


def test_the_body_lies_where_slices_are_cut() -> None:
    assert CENTER_ROW == slices.CENTER_ROW


def test_most_vertebrae_like_the_training_are_sure(known: Doubts) -> None:
    unsure = [doubt(known, body(seed)) is not None for seed in range(1000, 1200)]
    assert np.mean(unsure) < 0.08


def test_each_change_has_its_own_reason(known: Doubts) -> None:
    usual = body(2000)
    assert doubt(known, usual) is None
    outside = usual.copy()
    outside[:, :, :20] = AIR_HU
    changes = {
        Doubt.LOW_DENSITY: body(2000, hu=0.0),
        Doubt.HIGH_DENSITY: body(2000, hu=900.0),
        Doubt.SMOOTH: gaussian_filter(usual, (0, 1.7 / PIXEL_MM, 1.7 / PIXEL_MM)),
        Doubt.NARROW_VIEW: outside,
    }
    for reason, changed in changes.items():
        assert doubt(known, changed) is reason, reason
    assert doubt(known, body(2000, noise=90.0)) in {Doubt.SHARP, Doubt.NOISY}


def test_measures_know_their_units() -> None:
    flat = np.full((5, SIZE, SIZE), 123.0)
    found = appearance(flat, PIXEL_MM)
    assert (found["bone_hu"], found["noise_hu"], found["outside_share"]) == (123.0, 0.0, 0.0)
    grainy = flat + np.random.default_rng(0).normal(0, 30, flat.shape)
    assert appearance(grainy, PIXEL_MM)["noise_hu"] == pytest.approx(30 * np.sqrt(8 / 9), rel=0.1)
    assert set(found) == set(MEASURES)


@pytest.mark.parametrize(("size", "pixel_mm", "count"), [(32, 3.5, 3), (48, 2.3, 1), (224, 0.5, 12)])
def test_every_cut_can_be_measured(size: int, pixel_mm: float, count: int) -> None:
    hu_NHW = np.random.default_rng(0).normal(100, 50, (count, size, size))
    assert all(np.isfinite(value) for value in appearance(hu_NHW, pixel_mm).values())


# ---- features -------------------------------------------------------------------------------------------------


def test_features_in_no_direction_of_the_training_are_unfamiliar() -> None:
    rng = np.random.default_rng(0)
    mix_KF = rng.normal(size=(6, 40))

    def drawn(count: int) -> np.ndarray:
        return np.asarray(rng.normal(size=(count, 6)) @ mix_KF + rng.normal(0, 0.1, (count, 40)))

    familiar = fit_familiar(drawn(300))
    assert familiar is not None
    limit = fit_unexplained([unexplained_share(one, familiar) for one in drawn(100)])
    known = Doubts(unexplained=limit, decides="bone_quality")

    def reason(features_F: np.ndarray) -> Doubt | None:
        return known.doubt({}, unexplained_share(features_F, familiar), {}, "normal", "normal")

    assert [reason(one) for one in drawn(50)] == [None] * 50
    assert [reason(one) for one in 3 * rng.normal(size=(50, 40))] == [Doubt.UNFAMILIAR] * 50
    assert fit_familiar(drawn(3)) is None
    assert fit_unexplained([0.1] * (FEWEST - 1)) is None


# ---- conformal sets -------------------------------------------------------------------------------------------


def patients(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True classes and probabilities of a model that is often wrong and does not know it."""
    rng = np.random.default_rng(seed)
    true_V = rng.choice(4, count, p=(0.6, 0.2, 0.08, 0.12))
    logits_VC = rng.normal(0, 1.5, (count, 4))
    logits_VC[np.arange(count), true_V] += 2.5
    prob_VC = np.exp(2 * logits_VC)
    return true_V, prob_VC / prob_VC.sum(axis=1, keepdims=True)


def test_sets_hold_the_true_class_of_new_vertebrae_as_often_as_they_promise() -> None:
    beyond = {"normal": [], "diseased": []}
    for seed in range(40):
        limits = fit_classes(*patients(200, seed))
        assert limits is not None
        miss = (1 - limits.coverage) / 2
        true_V, prob_VC = patients(500, 1000 + seed)
        held_V = np.array([limits.plausible(one.tolist())[true] for one, true in zip(prob_VC, true_V, strict=True)])
        beyond["normal"].append(held_V[true_V == 0].mean() - (1 - miss))
        beyond["diseased"].append(held_V[true_V > 0].mean() - limits.coverage)
    assert np.mean(beyond["normal"]) > -0.005
    assert 0 < np.mean(beyond["diseased"]) < 0.15, "more would be sets that say nothing"


def test_a_model_that_misses_some_lesions_does_not_doubt_everything_normal() -> None:
    rng = np.random.default_rng(0)
    true_V = np.repeat([0, 1], [300, 100])
    diseased_V = np.where(true_V == 1, rng.beta(8, 1, 400), rng.beta(1, 12, 400))
    diseased_V[300:308] = 0.01  # 8 % of the lesions cannot be seen
    limits = fit_classes(true_V, np.stack([1 - diseased_V, diseased_V], axis=1))
    assert limits is not None
    assert limits.coverage == pytest.approx(0.8)
    sets = [limits.plausible((1 - p, p)) for p in diseased_V.tolist()]
    assert np.mean([all(one) or not any(one) for one in sets]) <= AMBIGUOUS
    assert np.mean([one == (True, False) for one in sets[:300]]) > 0.75


def test_a_set_with_normal_and_a_lesion_or_with_nothing_makes_a_call_unsure() -> None:
    known = Doubts(decides="bone_quality")
    for names, expected in {
        ("normal",): None,
        ("blastic", "mixed"): None,
        ("normal", "lytic"): Doubt.AMBIGUOUS,
        (): Doubt.AMBIGUOUS,
    }.items():
        assert known.doubt({}, None, {"bone_quality": names}, "normal", "normal") is expected
    assert known.doubt({}, None, {"posterolateral": ("none", "bilateral")}, "normal", "normal") is None


def test_few_vertebrae_fit_no_set() -> None:
    true_V = np.repeat([0, 3], [100, FEWEST - 1])
    assert fit_classes(true_V, np.full((len(true_V), 4), 0.25)) is None
    enough_V = np.repeat([0, 3], [100, FEWEST])
    assert fit_classes(enough_V, np.full((len(enough_V), 4), 0.25)) is not None


def test_plausible_names_the_classes_of_a_task_with_two_classes_too() -> None:
    rng = np.random.default_rng(0)
    true_V = rng.integers(0, 2, 200)
    yes_V = np.clip(0.7 * true_V + rng.uniform(0, 0.3, 200), 0, 1)
    limits = fit_classes(true_V, np.stack([1 - yes_V, yes_V], axis=1))
    assert limits is not None
    known = Doubts(classes={"lytic": limits}, decides="bone_quality")
    for yes, names in ((0.05, ("no",)), (0.95, ("yes",))):
        probabilities = {"lytic": {"no": 1 - yes, "yes": yes}, "bone_quality": dict.fromkeys(BONE_QUALITY, 0.25)}
        assert known.plausible(probabilities) == {"lytic": names}


def _call(label: str, hu: float | None, doubt: Doubt | None = None) -> VertebraCall:
    probabilities = {"bone_quality": {name: 0.7 if name == label else 0.1 for name in BONE_QUALITY}}
    return VertebraCall(probabilities, doubt=doubt, is_judged=True, bone_hu=hu)


@pytest.mark.parametrize(
    ("label", "hu", "others", "doubt"),
    [
        ("lytic", 40.0, [45.0, 50.0, 38.0], Doubt.THIN_BONE),  # thin everywhere
        ("mixed", 40.0, [45.0, 50.0, 38.0], None),  # sclerosis is no thin bone
        ("lytic", 40.0, [150.0, 140.0, 160.0], None),  # a hole in dense bone
        ("lytic", 10.0, [55.0, 60.0, 50.0], None),  # darker than the patient's thin bone
        ("lytic", 95.0, [100.0, 90.0, 110.0], None),  # no thin bone
        ("lytic", 40.0, [150.0], Doubt.THIN_BONE),  # too few others to tell
        ("lytic", None, [45.0, 50.0, 38.0], None),  # the model does not judge its calls
        ("normal", 40.0, [45.0, 50.0, 38.0], None),
        ("blastic", 40.0, [45.0, 50.0, 38.0], None),
    ],
)
def test_a_lytic_call_in_bone_that_is_thin_everywhere_is_unsure(
    label: str, hu: float | None, others: list[float], doubt: Doubt | None
) -> None:
    calls = [_call(label, hu), *(_call("normal", other) for other in others)]
    found = in_context(calls)
    assert [call.doubt for call in found] == [doubt, *[None] * len(others)]
    assert in_context(calls[:1], others)[0].doubt is doubt
    assert all(one.probabilities == call.probabilities for one, call in zip(found, calls, strict=True))


def test_an_earlier_doubt_stays() -> None:
    calls = [_call("lytic", 40.0, Doubt.SMOOTH), _call("lytic", 45.0), _call("lytic", 50.0)]
    assert [call.doubt for call in in_context(calls)] == [Doubt.SMOOTH, Doubt.THIN_BONE, Doubt.THIN_BONE]


@pytest.mark.parametrize(
    ("called", "hu", "doubt"),
    [
        ("lytic", 10.0, None),  # a destroyed body
        ("lytic", -60.0, Doubt.LOW_DENSITY),  # fat or gas
        ("normal", 10.0, Doubt.LOW_DENSITY),
        ("mixed", 10.0, Doubt.LOW_DENSITY),
        ("lytic", 60.0, None),
        ("normal", 60.0, None),
    ],
)
def test_a_lytic_body_may_be_darker_than_any_bone(called: str, hu: float, doubt: Doubt | None) -> None:
    known = Doubts(ranges={"bone_hu": (20.0, 900.0)}, decides="bone_quality")
    assert known.doubt({"bone_hu": hu}, None, {}, "normal", called) is doubt
