"""Scales: every recipe at another size, with the differences between recipes kept."""

from __future__ import annotations

import pytest

from spinemet.errors import BadInput
from spinemet.training.recipes import ABLATION, recipe
from spinemet.training.scales import scaled


def test_a_smaller_scale_keeps_the_steps_between_the_recipes() -> None:
    small = {name: scaled(recipe(name), "small") for name in ABLATION}
    assert len({(one.model.slices, one.model.backbone, one.epochs, one.batch) for one in small.values()}) == 1
    whole, final = recipe("final"), small["final"]
    assert final.warmup_epochs / final.epochs == pytest.approx(whole.warmup_epochs / whole.epochs)
    assert final.pacing is not None
    assert final.pacing.warm_epochs == 1
    assert small["densenet121"].model.tasks == recipe("densenet121").model.tasks
    assert scaled(whole, "full") == whole
    with pytest.raises(BadInput, match=r"expected a scale \(full, small\), found huge"):
        scaled(whole, "huge")
