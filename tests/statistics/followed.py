"""10,000 simulated patients with visits; numpy alone, so that the script beside it runs without SpineMet."""

import numpy as np

PATIENTS = 10_000


def visits(seed: int = 7, patients: int = PATIENTS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(P, 8) day of each visit, the first on day 0; (P, 8) whether it took place; (P,) day on which a lesion arose.

    Lesions arise after a Weibull time (shape 1.3, scale 2,000 days); patients come after 1 to 7 months of
    30 days, and one in six does not come back after each visit.
    """
    rng = np.random.default_rng(seed)
    gaps = 30 * rng.integers(1, 8, (patients, 8))
    gaps[:, 0] = 0
    came = np.cumprod(rng.random((patients, 8)) < 5 / 6, axis=1).astype(bool)
    came[:, 0] = True
    onset = np.ceil(2000 * rng.weibull(1.3, patients))
    return gaps.cumsum(axis=1), came, onset


def seen(seed: int = 7, patients: int = PATIENTS) -> tuple[np.ndarray, np.ndarray]:
    """(P,) the last day without the lesion, and the first with it (infinite: never seen)."""
    day, came, onset = visits(seed, patients)
    has = onset[:, None] <= day
    last = np.where(came & ~has, day, 0).max(axis=1).astype(float)
    first = np.where(came & has, day, np.inf).min(axis=1)
    return last, first
