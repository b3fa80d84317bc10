"""Speed of DenseNet-121 as the predictor runs it, against the plain torchvision network."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.models import densenet121

from spinemet.model.checkpoint import ModelCard
from spinemet.model.multitask import MultiTask
from spinemet.model.predictor import Predictor
from spinemet.model.spec import ModelSpec
from tests.bench.figures import Figures, median_seconds

SLICES = 64


def run() -> Figures:
    """Slices per second at 224 pixels, the same slices for both."""
    spec = ModelSpec()
    predictor = Predictor(MultiTask(spec), ModelCard(spec=spec))
    size = spec.slices.size_px
    hu_NHW = np.random.default_rng(0).normal(100, 200, (SLICES, size, size)).astype(np.int16)
    plain = densenet121(weights=None).eval().to(predictor.device)
    image_NCHW = torch.rand(SLICES, 3, size, size)

    def forward() -> None:
        with torch.inference_mode():
            for start in range(0, SLICES, 32):
                plain(image_NCHW[start : start + 32].to(predictor.device)).cpu()

    ours = SLICES / median_seconds(lambda: predictor.predict_slices(hu_NHW))
    theirs = SLICES / median_seconds(forward)
    figures = Figures("DenseNet-121 at 224 pixels", ("network", "slices/s", "ratio"), f"on {predictor.device}")
    figures.add("torchvision, float32, channels first", theirs, 1.0)
    figures.add("spinemet predictor (windows and heads included)", ours, ours / theirs)
    return figures
