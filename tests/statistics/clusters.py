"""Simulated patients with several vertebrae each, for tests and benchmarks of intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

IntArray = npt.NDArray[np.int64]
SIZES = ("even", "8 to 16", "skewed", "more if ill", "fewer if ill")
"""How many vertebrae a patient has: 12; 8 to 16; 2 to 24 and most with few; depending on the patient's own risk."""
RISKS = ("beta", "two kinds")
"""How the risk differs between patients: by the beta distribution, or some share one risk and the others have 0."""


@dataclass(frozen=True)
class Patients:
    """A kind of cohort: the mean risk of its patients, how alike the vertebrae of one are, and how many each has."""

    patients: int
    risk: float
    correlation: float
    risks: str = "beta"
    sizes: str = "8 to 16"

    def draw(self, cohorts: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """(cohorts, patients) positive vertebrae, and vertebrae."""
        risk = self._risk(cohorts, rng)
        sizes = self._sizes(risk, rng)
        return rng.binomial(sizes, risk), sizes

    def prevalence(self, rng: np.random.Generator) -> float:
        """The share of positive vertebrae in endlessly many patients; not the mean risk if sizes depend on it."""
        risk = self._risk(-(-300_000 // self.patients), rng)
        sizes = self._sizes(risk, rng)
        return float((sizes * risk).sum() / sizes.sum())

    def _risk(self, cohorts: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        shape, mean = (cohorts, self.patients), self.risk
        if not self.correlation:
            return np.full(shape, mean)
        if self.risks == "beta":
            spread = 1 / self.correlation - 1
            return rng.beta(mean * spread, (1 - mean) * spread, shape)
        share = mean / (mean + self.correlation * (1 - mean))
        return np.where(rng.random(shape) < share, mean / share, 0.0)

    def _sizes(self, risk: npt.NDArray[np.float64], rng: np.random.Generator) -> IntArray:
        if self.sizes == "even":
            return np.full(risk.shape, 12)
        if self.sizes == "8 to 16":
            return rng.integers(8, 17, risk.shape)
        if self.sizes == "skewed":
            return 1 + rng.geometric(1 / 8, risk.shape).clip(max=23)
        few, many = rng.integers(3, 12, risk.shape), rng.integers(14, 23, risk.shape)
        return np.where((risk > self.risk) == (self.sizes == "more if ill"), many, few)


STANDARD = np.array([0.3, 0.4, 0.2, 0.1])
"""Weights of four strata."""
STRATA_RISKS = ((0.01, 0.02, 0.05, 0.1), (0.05, 0.1, 0.2, 0.3), (0.2, 0.01, 0.01, 0.3))
"""Mean risks in the four strata; in the last, a stratum of few patients weighs much and has most of them."""


def in_strata(
    patients: int, risks: tuple[float, ...], correlation: float, several: bool, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """(patients, strata) positive vertebrae, and vertebrae.

    Half of the patients of `several` have vertebrae in two strata, with risks that go together; the others have one.
    """
    rows, first = np.arange(patients), rng.choice(4, patients, p=[0.1, 0.2, 0.4, 0.3])
    sizes = np.zeros((patients, 4), np.int64)
    if several:
        sizes[rows, (first + 1) % 4] = rng.integers(4, 12, patients) * (rng.random(patients) < 0.5)
    sizes[rows, first] = rng.integers(4, 12, patients) if several else 1
    spread, mean = 1 / correlation - 1, np.array(risks)
    risk = special.betaincinv(mean * spread, (1 - mean) * spread, rng.random(patients)[:, None])
    return rng.binomial(sizes, risk), sizes
