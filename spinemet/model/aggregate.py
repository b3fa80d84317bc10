"""From the probabilities of a vertebra's slices to those of the vertebra.

A label belongs to the vertebra, but a lesion shows only on some of its slices, and the pedicles and laminae on even
fewer. So the mean over all slices dilutes small lesions, while the most suspicious slice alone gets more suspicious
with the number of slices. `top` lies between the two and does not depend on the number of slices. Training chooses the
rule of each task on the validation patients.

In a composed model bone quality follows from the vertebra's blastic and lytic probabilities, not from its slices': both
kinds of a mixed vertebra often show on different slices.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from spinemet.config import FrozenModel
from spinemet.model.spec import ModelSpec
from spinemet.types import FloatArray


class Rule(FrozenModel):
    """How the slices' probabilities become one; class 0 is the negative one.

    mean: of all slices. top: mean of the `share` of slices that have the lowest probability of class 0.
    """

    kind: Literal["mean", "top"] = "mean"
    share: float = Field(1 / 3, gt=0, le=1)


def aggregate(prob_NC: FloatArray, rule: Rule) -> npt.NDArray[np.float64]:
    """(C,) probabilities of the vertebra, with the sum 1, from its slices' (N, C) with N >= 1."""
    prob = np.asarray(prob_NC, np.float64)
    if prob.ndim != 2 or prob.shape[0] == 0:
        raise ValueError(f"expected (N, C) probabilities with at least one slice, found shape {prob.shape}")
    if rule.kind == "top":
        count = math.ceil(rule.share * len(prob) - 1e-9)
        prob = prob[np.argsort(prob[:, 0], kind="stable")[:count]]
    mean = prob.mean(axis=0)
    return np.asarray(mean / mean.sum())


def compose(parts: Sequence[FloatArray], offsets: FloatArray) -> npt.NDArray[np.float64]:
    """(..., C) probabilities with logits that are the sum of the log probabilities `parts`, (..., C) each, and the
    classes' `offsets`, (C,)."""
    logits = sum((np.log(np.maximum(np.asarray(part, np.float64), 1e-12)) for part in parts), np.asarray(offsets))
    power = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(power / power.sum(axis=-1, keepdims=True))


def vertebra_probabilities(
    slices_NC: Mapping[str, FloatArray],
    spec: ModelSpec,
    rules: Mapping[str, Rule],
    offsets: Mapping[str, Sequence[float]],
) -> dict[str, npt.NDArray[np.float64]]:
    """Task -> (C,) probabilities of the vertebra, from its slices' (N, C).

    rules: of each task; mean for a task not in there. offsets: of the classes of composed tasks (see `compose`); 0 for
    a task not in there.
    """
    found: dict[str, npt.NDArray[np.float64]] = {}
    for task in spec.tasks:
        if task.fuses and spec.composed:
            parts = [found[name][means] for name, means in spec.parts(task).items()]
            found[task.name] = compose(parts, np.asarray(offsets.get(task.name, (0.0,) * len(task.classes))))
        else:
            found[task.name] = aggregate(slices_NC[task.name], rules.get(task.name, Rule()))
    return found
