"""From slice stacks to calls: loads a model once and classifies many vertebrae at a time. Does not use Ray."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spinemet.config import SliceConfig
from spinemet.errors import BadInput, Reason, StudyFailed
from spinemet.model.checkpoint import FAMILIAR, ModelCard, load_model, model_digest
from spinemet.model.doubt import appearance, in_context, unexplained_share
from spinemet.model.inference import autocast, best_device, fold, has_fast_bf16, use_free_cores
from spinemet.model.multitask import MultiTask
from spinemet.reading import VertebraCall
from spinemet.types import SliceStack

BATCH = 32
CPU_BATCH = 8
"""The features of 8 slices stay in a CPU's cache: 15 % faster than 32, and fewer repeats in the last pass."""


CANARY_TOLERANCE = 0.1
"""Between float32 and bfloat16, CPU and GPU, probabilities differ by a tenth of this."""


class Predictor:
    """A loaded model that classifies slices, on the GPU if there is one.

    Every forward pass has the same number of slices (BATCH, on a CPU CPU_BATCH); repeats fill up the last one. Kernels
    are chosen by shape, so a slice's probabilities do not depend on the other slices, and the result tables do not
    depend on how studies are batched.
    """

    def __init__(self, model: MultiTask, card: ModelCard, device: str | torch.device | None = None) -> None:
        self.card = card
        self.device = torch.device(device) if device is not None else best_device()
        self._model = copy.deepcopy(model).eval().to(self.device)
        self._batch = BATCH
        if self.device.type == "cpu":
            self._batch = CPU_BATCH
            fold(self._model, torch.bfloat16 if has_fast_bf16(self.device) else torch.float32)
        familiar = getattr(self._model, FAMILIAR, None)
        self._familiar = None if familiar is None else familiar.cpu().numpy()
        self._features: list[npt.NDArray[np.float32]] = []
        self._model.trunk.register_forward_hook(self._keep_features)
        # In float32 the last bit of a sum depends on the slice's place in the batch; float64 rounds that off.
        self._model.heads.double()

    @classmethod
    def load(cls, uri: str) -> Predictor:
        """The predictor of the model saved at `uri`. Raises BadInput as `load_model` does."""
        use_free_cores()
        predictor = cls(*load_model(uri))
        predictor._check_canary(uri)
        return predictor

    def canary(self) -> dict[str, tuple[float, ...]]:
        """Task -> the probabilities of `canary_slices`, one slice after the other; for the model's card."""
        found = self.predict_slices(canary_slices(self.slices))
        return {task: tuple(prob_NC.ravel().tolist()) for task, prob_NC in found.items()}

    def _check_canary(self, uri: str) -> None:
        kept = self.card.canary
        found = self.canary() if kept else {}
        apart = max((float(np.abs(np.subtract(found[task], kept[task])).max()) for task in kept), default=0.0)
        if not apart <= CANARY_TOLERANCE:
            raise BadInput(
                f"the model at {uri} calls test slices otherwise than where it was trained (probabilities differ by up "
                f"to {apart:.2f}): its folder, this machine or its torch is not sound. Nothing was classified."
            )

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the weights and the card."""
        return model_digest(self.card)

    @property
    def slices(self) -> SliceConfig:
        """How slices must be cut for this model."""
        return self.card.spec.slices

    def predict(self, stacks: Sequence[SliceStack]) -> list[VertebraCall]:
        """One call per stack of a study, in order.

        Raises BadInput if a stack has no slice or is not cut as `slices` says.
        """
        return self.predict_studies([stacks])[0]

    def predict_studies(self, studies: Sequence[Sequence[SliceStack]]) -> list[list[VertebraCall]]:
        """The calls of several studies, classified together; each is judged within its own study."""
        stacks = [stack for study in studies for stack in study]
        for stack in stacks:
            self._check(stack)
        if not stacks:
            return [[] for _ in studies]
        hu_NHW = np.concatenate([stack.hu_NHW for stack in stacks])
        slices = self.predict_slices(hu_NHW)
        calls = iter(self.calls(hu_NHW, slices, self.features(), [len(stack.hu_NHW) for stack in stacks]))
        return [in_context([next(calls) for _ in study]) for study in studies]

    def calls(
        self,
        hu_NHW: npt.NDArray[np.int16],
        slices: Mapping[str, npt.NDArray[np.float32]],
        features_NF: npt.NDArray[np.float32],
        sizes: Sequence[int],
    ) -> list[VertebraCall]:
        """One call per vertebra: each has the next `size` of the slices, which `predict_slices` and `features` saw.

        No call is judged within its study yet: see `doubt.in_context`.
        """
        ends = list(accumulate(sizes))
        return [
            self._call(hu_NHW[a:b], {task: prob_NC[a:b] for task, prob_NC in slices.items()}, features_NF[a:b])
            for a, b in zip([0, *ends], ends, strict=False)
        ]

    def features(self) -> npt.NDArray[np.float32]:
        """(N, F) features of the slices of the last `predict_slices`; with coupled trunks, those of all trunks."""
        return np.concatenate(self._features)

    def _keep_features(self, module: torch.nn.Module, given: object, found: Tensor | list[Tensor]) -> None:
        features = torch.cat(found, dim=1) if isinstance(found, list) else found
        self._features.append(features.float().cpu().numpy())

    def predict_slices(self, hu_NHW: npt.NDArray[np.int16]) -> dict[str, npt.NDArray[np.float32]]:
        """Task -> (N, C) float32 probabilities of (N, H, W) HU slices; N may be 0.

        Raises StudyFailed if the network gives values that are not numbers: softmax would make calls of them.
        """
        tasks = self.card.spec.tasks
        parts: dict[str, list[npt.NDArray[np.float32]]] = {
            task.name: [np.zeros((0, len(task.classes)), np.float32)] for task in tasks
        }
        self._features = []
        with torch.inference_mode(), autocast(self.device):
            for start in range(0, len(hu_NHW), self._batch):
                batch = hu_NHW[start : start + self._batch]
                logits = self._model(torch.from_numpy(_filled(batch, self._batch)).to(self.device))
                self._features[-1] = self._features[-1][: len(batch)]
                for name, logits_NC in logits.items():
                    if not torch.isfinite(logits_NC).all():
                        raise StudyFailed(Reason.INTERNAL, "the model gave values that are not numbers.")
                    tempered_NC = logits_NC / self.card.temperatures.get(name, 1.0)
                    parts[name].append(torch.softmax(tempered_NC, dim=1)[: len(batch)].float().cpu().numpy())
        return {name: np.concatenate(pieces) for name, pieces in parts.items()}

    def _call(
        self,
        hu_NHW: npt.NDArray[np.int16],
        slices_NC: dict[str, npt.NDArray[np.float32]],
        features_NF: npt.NDArray[np.float32],
    ) -> VertebraCall:
        vertebra = self.card.of_vertebra(slices_NC)
        tasks = self.card.spec.tasks
        probabilities = {
            task.name: dict(zip(task.classes, vertebra[task.name].tolist(), strict=True)) for task in tasks
        }
        if (doubts := self.card.doubts) is None:
            return VertebraCall(probabilities, slices_NC)
        plausible = doubts.plausible(probabilities)
        unexplained = None if self._familiar is None else unexplained_share(features_NF.mean(axis=0), self._familiar)
        measured = appearance(hu_NHW, self.slices.pixel_mm)
        negative = self.card.spec.task(doubts.decides).classes[0]
        decided = probabilities[doubts.decides]
        called = max(decided, key=lambda name: decided[name])
        doubt = doubts.doubt(measured, unexplained, plausible, negative, called)
        return VertebraCall(
            probabilities, slices_NC, doubt, is_judged=True, plausible=plausible, bone_hu=measured["bone_hu"]
        )

    def _check(self, stack: SliceStack) -> None:
        wanted = self.slices
        count, height, width = stack.hu_NHW.shape
        if count == 0:
            raise BadInput(f"expected at least one slice of {stack.level}, found none.")
        if (height, width) != (wanted.size_px, wanted.size_px) or abs(stack.pixel_mm - wanted.pixel_mm) > 1e-3:
            raise BadInput(
                f"expected slices of {wanted.size_px} x {wanted.size_px} pixels of {wanted.pixel_mm} mm (this model), "
                f"found {height} x {width} of {stack.pixel_mm} mm."
            )


def canary_slices(slices: SliceConfig) -> npt.NDArray[np.int16]:
    """(CPU_BATCH, H, W) slices from -400 to 999 HU that look like nothing, and are the same on every machine."""
    n, y, x = np.indices((CPU_BATCH, slices.size_px, slices.size_px))
    return np.asarray((x * x * 31 + y * y * 17 + x * y * (n + 3) + 7919 * n) % 1400 - 400, np.int16)


def _filled(batch: npt.NDArray[np.int16], size: int) -> npt.NDArray[np.int16]:
    if len(batch) == size:
        return np.ascontiguousarray(batch)
    return np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
