"""A model small enough for tests."""

from __future__ import annotations

import pytest

from spinemet.config import SliceConfig
from spinemet.model.checkpoint import ModelCard, untrained
from spinemet.model.multitask import MultiTask
from spinemet.model.spec import DenseNetSpec, ModelSpec


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    return ModelSpec(
        backbone=DenseNetSpec(growth_rate=8, block_config=(1, 1, 1, 1), init_features=8),
        slices=SliceConfig(size_px=32, pixel_mm=2.0),
    )


@pytest.fixture
def model(spec: ModelSpec) -> tuple[MultiTask, ModelCard]:
    return untrained(spec, seed=0).eval(), ModelCard(spec=spec, weights_sha256="0")
