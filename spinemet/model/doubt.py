"""When a call is unsure: the vertebra is unlike those of the training, or the model cannot decide between classes.

Fitted at the end of a training (`training.validation.fit_doubts`), kept on the model's card, and applied
by `Predictor`. Four tests, each with a reason in `reading.Doubt`:

- Plain measures of the slices (MEASURES) outside the range of the training slices. Networks do not notice by
  themselves that an image is blurred or a bone is thin: their features then look more ordinary, not less.
- Features that the main directions of the training's features do not explain well. They find places that hold no
  vertebral body; among vertebrae they do not tell right calls from wrong ones, hence MARGIN.
- Thin bone (`in_context`): a vertebra of an osteoporotic patient looks like a lytic lesion; the patient's others tell.
- Conformal sets (Vovk 2005; Sadinle 2019, with a threshold per class group): the classes that cannot be ruled out.

N slices, H rows, W columns, V vertebrae, F features, K directions, C classes.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from pydantic import Field

from spinemet.config import FrozenModel
from spinemet.reading import Doubt, VertebraCall
from spinemet.types import AIR_HU, Array

QUANTILE = 0.005
"""Share of the training vertebrae beyond each end of a measure's range."""
DIRECTIONS = 32
MARGIN = 1.5
"""A vertebra is unfamiliar if its features leave this many times more unexplained than those of 99 % of the validation
vertebrae. Measured on phantoms and implants (demo network): at 1, 14 % of 28 real normals are unfamiliar, none of them
called wrongly; at 1.5 none is, and stacks 30 mm behind the body are in 97 %."""
MISSES = (0.05, 0.07, 0.1, 0.15, 0.2)
"""Each of the two questions of a conformal set (diseased or not, and which kind) misses at most one of these shares:
the first with which at most AMBIGUOUS of the validation vertebrae become ambiguous, else the last. A model that misses
a few lesions altogether would otherwise doubt all that it calls normal."""
AMBIGUOUS = 0.15
FEWEST = 19
"""Validation vertebrae of a group that the first threshold needs: 1 / MISSES[0] - 1."""
THIN_HU, FOCAL_HU, FEWEST_KNOWN = 80.0, 25.0, 3
"""A lytic call in bone below the first value is unsure, unless the vertebra is the second below the median of at least
so many of its patient. Set on the left-out real normals made thin (bench_bone.py): at 20 to 60 HU most were called
lytic; the implants of patients whose other bone is denser stay sure."""
_LYTIC, _FLUID_HU = "lytic", -20.0
"""A lytic lesion is soft tissue or fluid, darker than any bone; fat and gas are darker still."""
CENTER_ROW = 0.36
"""Row of the body centre as a share of the rows (spine/slices.py)."""
_CORE_MM = 8.0
_WINDOW_MM = 24.0
_BONE_HU = (-200.0, 1000.0)
"""Gas and metal would drown the edges of bone."""


# ---- plain measures -------------------------------------------------------------------------------------------


def bone_hu(hu_NHW: Array, pixel_mm: float) -> float:
    """Mean HU of the body's core, a disc of 8 mm radius in the middle half of the slices."""
    return float(_core(hu_NHW, pixel_mm).mean())


def noise_hu(hu_NHW: Array, pixel_mm: float) -> float:
    """Standard deviation in the core of what a mean of 3 x 3 pixels takes away, in HU."""
    from scipy.ndimage import uniform_filter

    middle_NHW = _middle(hu_NHW)
    return float(_core(middle_NHW - uniform_filter(middle_NHW, (0, 3, 3)), pixel_mm).std())


def sharpness(hu_NHW: Array, pixel_mm: float) -> float:
    """Log ratio of two powers around the body: of fine structures (0.18 to 0.30 per mm) to coarse ones (0.04 to 0.12).

    Coarse pixels do not reach 0.30 per mm; there both bands keep their place below the highest frequency.
    """
    row, column = _center(hu_NHW)
    half = int(_WINDOW_MM / pixel_mm)
    rows, columns = (slice(max(round(at) - half, 0), round(at) + half) for at in (row, column))
    window_NHW = np.clip(hu_NHW[:, rows, columns], *_BONE_HU)
    window_NHW = window_NHW - window_NHW.mean(axis=(1, 2), keepdims=True)
    height, width = window_NHW.shape[1:]
    power_HW = (np.abs(np.fft.fft2(window_NHW * np.outer(np.hanning(height), np.hanning(width)))) ** 2).mean(axis=0)
    per_mm_HW = np.hypot(*np.meshgrid(np.fft.fftfreq(height, pixel_mm), np.fft.fftfreq(width, pixel_mm), indexing="ij"))
    highest = 0.5 / pixel_mm

    def band(low: float, high: float) -> float:
        scale = min(1.0, 0.7 * highest / 0.30)
        return float(power_HW[(per_mm_HW >= low * scale) & (per_mm_HW < high * scale)].sum())

    return float(np.log((band(0.18, 0.30) + 1e-6) / (band(0.04, 0.12) + 1e-6)))


def outside_share(hu_NHW: Array, pixel_mm: float) -> float:
    """Share of the pixels without a measurement: outside the reconstruction circle or outside the volume."""
    return float((hu_NHW <= AIR_HU).mean())


def _center(hu_NHW: Array) -> tuple[float, float]:
    return CENTER_ROW * hu_NHW.shape[1], (hu_NHW.shape[2] - 1) / 2


def _middle(hu_NHW: Array) -> Array:
    quarter = len(hu_NHW) // 4
    return hu_NHW[quarter : len(hu_NHW) - quarter]


def _core(hu_NHW: Array, pixel_mm: float) -> Array:
    row, column = _center(hu_NHW)
    y_H1, x_W = np.arange(hu_NHW.shape[1])[:, None] - row, np.arange(hu_NHW.shape[2]) - column
    core_HW = np.hypot(y_H1, x_W) * pixel_mm <= max(_CORE_MM, pixel_mm)
    return np.asarray(_middle(hu_NHW)[:, core_HW])


MEASURES: dict[str, tuple[Callable[[Array, float], float], Doubt | None, Doubt | None]] = {
    "bone_hu": (bone_hu, Doubt.LOW_DENSITY, Doubt.HIGH_DENSITY),
    "sharpness": (sharpness, Doubt.SMOOTH, Doubt.SHARP),
    "noise_hu": (noise_hu, None, Doubt.NOISY),
    "outside_share": (outside_share, None, Doubt.NARROW_VIEW),
}
"""Name -> the measure of a stack and the doubt below and above its range; None for an end that raises none."""


def appearance(hu_NHW: npt.NDArray[np.number], pixel_mm: float) -> dict[str, float]:
    """Name of MEASURES -> its value for the slices of one vertebra."""
    hu = np.asarray(hu_NHW, np.float64)
    return {name: measure(hu, pixel_mm) for name, (measure, _, _) in MEASURES.items()}


# ---- what is kept ---------------------------------------------------------------------------------------------


class ClassLimits(FrozenModel):
    """The thresholds of one task's conformal sets. p0 is the probability of the negative class.

    The negative class is in the set if 1 - p0 is at most `negative`, another class of probability p if p0 is at most
    `positive` and 1 - p / (1 - p0) at most `kind`.
    """

    negative: float
    positive: float
    kind: float
    coverage: float = Field(gt=0, le=1)
    """The least share of vertebrae, like those of the validation patients, whose sets hold the true class."""

    def plausible(self, prob_C: Sequence[float]) -> tuple[bool, ...]:
        """Which classes are in the set, the negative one first."""
        healthy, diseased = prob_C[0], max(1 - prob_C[0], 1e-12)
        kinds = (healthy <= self.positive and 1 - p / diseased <= self.kind + 1e-9 for p in prob_C[1:])
        return (diseased <= self.negative, *kinds)


class Doubts(FrozenModel):
    """What a model knows; outside of it, its calls are unsure.

    ranges: name of MEASURES -> lowest and highest value. unexplained: highest value of `unexplained_share`; None
    without features. classes: task -> the thresholds of its conformal sets, of tasks with enough validation vertebrae.
    decides: the task whose sets make a call unsure.
    """

    ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)
    unexplained: float | None = None
    classes: dict[str, ClassLimits] = Field(default_factory=dict)
    decides: str

    def plausible(self, probabilities: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[str, ...]]:
        """Task of `classes` -> the classes in its conformal set, for one vertebra."""
        sets = {}
        for task, limits in self.classes.items():
            prob = probabilities[task]
            is_in = limits.plausible([*prob.values()])
            sets[task] = tuple(name for name, one in zip(prob, is_in, strict=True) if one)
        return sets

    def doubt(
        self,
        measured: Mapping[str, float],
        unexplained: float | None,
        plausible: Mapping[str, Sequence[str]],
        negative: str,
        called: str,
    ) -> Doubt | None:
        """The first reason to doubt a vertebra's call, None for none.

        measured: from `appearance`. unexplained: from `unexplained_share`. plausible: from the method. negative: the
        negative class of the task `decides`. called: its class called; that a lytic vertebra is dark is no doubt, and
        if the patient's others are as dark, `in_context` doubts it.
        """
        for name, (low, high) in self.ranges.items():
            _, below, above = MEASURES[name]
            reason = below if measured[name] < low else above if measured[name] > high else None
            if reason is Doubt.LOW_DENSITY and called == _LYTIC and measured[name] > _FLUID_HU:
                continue
            if reason is not None:
                return reason
        if self.unexplained is not None and unexplained is not None and unexplained > self.unexplained:
            return Doubt.UNFAMILIAR
        classes = plausible.get(self.decides)
        if classes is not None and (not classes or (negative in classes and len(classes) > 1)):
            return Doubt.AMBIGUOUS
        return None


def in_context(calls: Sequence[VertebraCall], others_hu: Sequence[float] = ()) -> list[VertebraCall]:
    """The calls of one patient's study, of which the lytic ones in bone that is thin everywhere are unsure.

    others_hu: `bone_hu` of vertebrae of the study that have no call here.
    """
    known = [*others_hu, *(call.bone_hu for call in calls if call.bone_hu is not None)]
    focal = statistics.median(known) - FOCAL_HU if len(known) >= FEWEST_KNOWN else -np.inf

    def is_thin(call: VertebraCall) -> bool:
        return (
            call.doubt is None
            and call.bone_hu is not None
            and call.label("bone_quality") == _LYTIC
            and focal < call.bone_hu < THIN_HU
        )

    return [replace(call, doubt=Doubt.THIN_BONE) if is_thin(call) else call for call in calls]


# ---- fitting --------------------------------------------------------------------------------------------------


def fit_ranges(measured: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """`Doubts.ranges` of the stacks that `measured` describes (see `appearance`); empty without a stack."""
    if not measured:
        return {}
    ends = {name: np.quantile([one[name] for one in measured], (QUANTILE, 1 - QUANTILE)) for name in MEASURES}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def fit_classes(true_V: npt.NDArray[np.int64], prob_VC: Array) -> ClassLimits | None:
    """The thresholds that keep the true class of these vertebrae in its set; None if a group has fewer than FEWEST."""
    healthy_V, negative_V = prob_VC[:, 0], true_V == 0
    if min(negative_V.sum(), (~negative_V).sum()) < FEWEST:
        return None
    own_V = prob_VC[np.arange(len(true_V)), true_V]
    kind_V = 1 - own_V / np.maximum(1 - healthy_V, 1e-12)
    for miss in MISSES:
        limits = ClassLimits(
            negative=_threshold(1 - healthy_V[negative_V], miss),
            positive=_threshold(healthy_V[~negative_V], miss),
            kind=_threshold(kind_V[~negative_V], miss),
            coverage=1 - 2 * miss,
        )
        sets_VC = np.array([limits.plausible(prob_C.tolist()) for prob_C in prob_VC])
        if (sets_VC[:, 0] == sets_VC[:, 1:].any(axis=1)).mean() <= AMBIGUOUS:
            break
    return limits


def _threshold(score_V: Array, miss: float) -> float:
    """The score that a new vertebra like these exceeds with a probability of at most `miss`."""
    rank = int(np.ceil((len(score_V) + 1) * (1 - miss) - 1e-9))
    return float(np.sort(score_V)[rank - 1])


def fit_familiar(features_VF: npt.NDArray[np.floating]) -> npt.NDArray[np.float32] | None:
    """(2 + K, F): mean and standard deviation of the training's features, and their main directions (orthonormal rows).

    None for too few vertebrae.
    """
    count, width = features_VF.shape
    kept = min(DIRECTIONS, width // 2, count // 4)
    if kept < 1:
        return None
    features = np.asarray(features_VF, np.float64)
    mean_F, spread_F = features.mean(axis=0), features.std(axis=0) + 1e-6
    _, _, directions = np.linalg.svd((features - mean_F) / spread_F, full_matrices=False)
    return np.concatenate([mean_F[None], spread_F[None], directions[:kept]]).astype(np.float32)


def unexplained_share(features_F: npt.NDArray[np.floating], familiar: npt.NDArray[np.floating]) -> float:
    """Mean square, in standard deviations of the training, of what the main directions leave of a vertebra's features.

    Rounded to 4 digits, since the last ones of a feature depend on the other slices of its batch. features_F: the mean
    over the vertebra's slices. familiar: from `fit_familiar`.
    """
    mean_F, spread_F, directions_KF = familiar[0], familiar[1], np.asarray(familiar[2:], np.float64)
    scaled_F = (np.asarray(features_F, np.float64) - mean_F) / spread_F
    return float(f"{((scaled_F - (directions_KF @ scaled_F) @ directions_KF) ** 2).mean():.4g}")


def fit_unexplained(shares: Sequence[float]) -> float | None:
    """`Doubts.unexplained` of the validation vertebrae with these `unexplained_share`s; None for fewer than FEWEST."""
    return MARGIN * float(np.quantile(shares, 0.99)) if len(shares) >= FEWEST else None
