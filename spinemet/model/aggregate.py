"""From the slices of a vertebra to the vertebra.

A label belongs to the vertebra, yet a lesion shows on some of its slices only, and the pedicles and laminae on fewer
still. So the plain mean dilutes small lesions, while the most suspicious slice alone grows with the number of slices.
`top` stands between them and does not depend on the number of slices; which rule serves a task is chosen on the
validation patients.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from spinemet.config import FrozenModel
from spinemet.types import FloatArray


class Rule(FrozenModel):
    """How slice probabilities become one; class 0 is the negative one.

    mean: of all slices. top: mean of the `share` of slices with the least probability of class 0. noisy_or: the
    vertebra is negative if every slice is; grows with the number of slices. vote: each slice votes for its most
    probable class; positive classes count once together they reach `share` of the votes.
    """

    kind: Literal["mean", "top", "noisy_or", "vote"] = "mean"
    share: float = Field(1 / 3, gt=0, le=1)


def aggregate(prob_NC: FloatArray, rule: Rule) -> npt.NDArray[np.float64]:
    """(C,) probabilities of the vertebra, summing to one, of its slices' (N, C) with N >= 1."""
    prob = np.asarray(prob_NC, np.float64)
    if prob.ndim != 2 or prob.shape[0] == 0:
        raise ValueError(f"expected (N, C) probabilities with at least one slice, found shape {prob.shape}")
    if rule.kind == "mean":
        return _normalized(prob.mean(axis=0))
    if rule.kind == "top":
        count = math.ceil(rule.share * len(prob) - 1e-9)
        suspicious = np.argsort(prob[:, 0], kind="stable")[:count]
        return _normalized(prob[suspicious].mean(axis=0))
    if rule.kind == "noisy_or":
        return _with_negative(float(np.prod(prob[:, 0])), prob[:, 1:].mean(axis=0))
    votes = np.bincount(prob.argmax(axis=1), minlength=prob.shape[1]) / len(prob)
    reached = votes[1:].sum() >= rule.share - 1e-9
    return _with_negative(0.0 if reached else 1.0, votes[1:])


def _normalized(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(values / values.sum())


def _with_negative(negative: float, positives: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`negative` for class 0 and the rest shared among the others in proportion to `positives`."""
    total = positives.sum()
    if total <= 0:
        return np.concatenate([[1.0], np.zeros_like(positives)])
    return np.concatenate([[negative], positives * ((1 - negative) / total)])
