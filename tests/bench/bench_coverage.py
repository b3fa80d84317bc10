"""How often 95 % intervals hold the truth: of shares in clusters, also standardised, and of corrected prevalences.

Cohorts are simulated with known truth (tests/statistics/clusters.py). Seeds are fixed: the table is the same each time.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from spinemet.statistics.correction import Errors, correct
from spinemet.statistics.intervals import TOO_FEW, beta_interval, proportion_interval
from spinemet.statistics.standardisation import StandardSums
from tests.bench.figures import Figures
from tests.statistics.clusters import RISKS, SIZES, STANDARD, STRATA_RISKS, Patients, in_strata

COHORTS = 1000
PATIENTS = (20, 50, 100, 200)
PREVALENCES = (0.01, 0.02, 0.05, 0.1, 0.2)
CORRELATIONS = (0.0, 0.05, 0.2, 0.5)
EVALUATED, COHORT = (60, 200, 1000), 1000
"""Patients of an evaluation, half of them ill; patients of a cohort to correct."""
RIGHT = 0.9
"""Sensitivity and specificity."""


def run() -> Figures:
    """Share of intervals that hold the truth, by prevalence; and bias and coverage of corrected prevalences."""
    figures = Figures(
        "95 % intervals that hold the truth, % of simulated cohorts",
        ("what", "settings", "cohorts", "least", "mean", "most", "too few", "bias, points", "uncorrected holds"),
        f"prevalence: vertebrae of {' to '.join(str(PATIENTS[n]) for n in (0, -1))} patients, correlation 0 to 0.5, "
        f"risks: {', '.join(RISKS)}, vertebrae of a patient: {', '.join(SIZES)}. standardised: "
        f"30 to 200 patients in four strata. corrected: sensitivity and "
        f"specificity {RIGHT}, measured on so many patients, in cohorts of {COHORT:,} patients",
    )
    for prevalence in PREVALENCES:
        covered = [clustered(setting, number) for number, setting in enumerate(settings(prevalence))]
        shares, few = 100 * np.array([one for one, _ in covered]), 100 * np.mean([one for _, one in covered])
        figures.add(
            f"prevalence {100 * prevalence:g} %",
            len(shares),
            COHORTS,
            shares.min(),
            shares.mean(),
            shares.max(),
            float(few),
            "",
            "",
        )
    for several in (True, False):
        holds = [100 * standardised(*one, several) for one in product((30, 80, 200), STRATA_RISKS, (0.05, 0.3))]
        name = f"standardised, {'several vertebrae' if several else 'one vertebra'} a patient"
        figures.add(name, len(holds), COHORTS, min(holds), float(np.mean(holds)), max(holds), 0.0, "", "")
    for evaluated, prevalence in product(EVALUATED, (0.05, 0.2, 0.5)):
        holds, bias, uncorrected = corrected(evaluated, prevalence)
        name = f"corrected {100 * prevalence:g} %, {evaluated} evaluated"
        figures.add(name, 1, COHORTS, holds, holds, holds, 0.0, f"{bias:+.2f}", uncorrected)
    return figures


def settings(prevalence: float) -> list[Patients]:
    """Every kind of cohort of one mean risk."""
    return [
        Patients(patients, prevalence, correlation, risks, sizes)
        for patients, correlation, risks, sizes in product(PATIENTS, CORRELATIONS, RISKS, SIZES)
        if correlation or risks == RISKS[0]
    ]


def clustered(setting: Patients, seed: int) -> tuple[float, float]:
    """Share of the cohorts with an interval that holds the truth, of those with one; and share without one."""
    rng = np.random.default_rng(seed)
    truth = setting.prevalence(rng)
    found = [proportion_interval(*cohort) for cohort in zip(*setting.draw(COHORTS, rng), strict=True)]
    known = [one for one in found if one.method != TOO_FEW]
    return float(np.mean([one.low <= truth <= one.high for one in known])), 1 - len(known) / len(found)


def standardised(patients: int, risks: tuple[float, ...], correlation: float, several: bool) -> float:
    """Share of the cohorts, with a unit in each stratum, whose interval of a standardised share holds the truth."""
    rng, truth, found = np.random.default_rng(patients), float(STANDARD @ np.array(risks)), []
    while len(found) < COHORTS:
        positive, sizes = in_strata(patients, risks, correlation, several, rng)
        if sizes.any(axis=0).all():
            one = StandardSums.of(positive, sizes, STANDARD).interval
            found.append(one.low <= truth <= one.high)
    return float(np.mean(found))


def corrected(evaluated: int, prevalence: float) -> tuple[float, float, float]:
    """Percent of corrected intervals that hold the truth, mean error in points, percent of uncorrected ones."""
    rng = np.random.default_rng(evaluated)
    true = np.repeat([0, 1], evaluated // 2)
    holds, shares, uncorrected = 0, [], 0
    for _ in range(COHORTS):
        called = np.where(rng.random(len(true)) < RIGHT, true, 1 - true)
        errors = Errors.of(true, called, np.arange(len(true)), 2)
        positive = int(rng.binomial(COHORT, RIGHT * prevalence + (1 - RIGHT) * (1 - prevalence)))
        one = correct([1 - positive / COHORT, positive / COHORT], [COHORT, COHORT], errors)[1]
        holds += one.low <= prevalence <= one.high
        shares.append(one.share)
        low, high = beta_interval(positive, COHORT)
        uncorrected += low <= prevalence <= high
    percent = 100 / COHORTS
    return percent * holds, 100 * (float(np.mean(shares)) - prevalence), percent * uncorrected
