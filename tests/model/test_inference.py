"""A folded trunk computes the same features as the trunk it was made from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spinemet.model.backbone import Trunk
from spinemet.model.checkpoint import untrained
from spinemet.model.inference import FoldedTrunk, autocast, fold, use_free_cores
from spinemet.model.multitask import MultiTask
from spinemet.model.spec import DenseNetSpec, ModelSpec

SMALL = DenseNetSpec(growth_rate=8, block_config=(2, 3, 1, 2), init_features=16)


def trained(seed: int) -> Trunk:
    """A trunk with every kind of normalisation: scales below, above and equal to 0, learned means and variances."""
    torch.manual_seed(seed)
    trunk = Trunk(SMALL).eval()
    for norm in (module for module in trunk.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight, 0.5, 1.0)
        norm.weight.data[::5] = 0.0
        nn.init.normal_(norm.bias, 0.0, 0.5)
        nn.init.normal_(norm.running_mean, 0.0, 0.5)
        nn.init.uniform_(norm.running_var, 0.2, 3.0)
    return trunk


@pytest.mark.parametrize(("seed", "size"), [(0, 32), (1, 64), (2, 96)])
@torch.inference_mode()
def test_folded_features_equal_those_of_the_trunk(seed: int, size: int) -> None:
    trunk = trained(seed)
    image_NCHW = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(seed))
    expected = trunk(image_NCHW)
    torch.testing.assert_close(FoldedTrunk(trunk, torch.float32)(image_NCHW), expected, rtol=1e-4, atol=1e-5)
    exact = FoldedTrunk(trunk.double(), torch.float64)(image_NCHW.double())
    torch.testing.assert_close(exact, trunk(image_NCHW.double()), rtol=1e-5, atol=1e-6, check_dtype=False)


@torch.inference_mode()
def test_folded_bfloat16_is_as_precise_as_autocast() -> None:
    trunk = trained(3)
    image_NCHW = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    expected = trunk(image_NCHW)
    with torch.autocast("cpu", torch.bfloat16):
        usual = (trunk(image_NCHW) - expected).norm()
    found = (FoldedTrunk(trunk, torch.bfloat16)(image_NCHW) - expected).norm()
    assert found < 1.5 * usual
    assert found < 0.03 * expected.norm()


@torch.inference_mode()
def test_folded_probabilities_equal_those_of_the_float32_model() -> None:
    model = untrained(ModelSpec(backbone=SMALL), 0).eval()
    hu_NHW = torch.randint(-300, 1500, (4, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    expected = {name: logits.softmax(dim=1) for name, logits in model(hu_NHW).items()}
    fold(model, torch.bfloat16)
    with autocast(torch.device("cpu")):
        for name, logits in model(hu_NHW).items():
            torch.testing.assert_close(logits.softmax(dim=1), expected[name], rtol=0, atol=0.02)


def test_coupled_trunks_stay_as_they_are() -> None:
    model = MultiTask(ModelSpec(backbone=SMALL, sharing="soft"))
    trunk = model.trunk
    fold(model, torch.float32)
    assert model.trunk is trunk


@pytest.mark.parametrize(
    ("cores", "part", "load", "chosen", "expected"),
    [
        (4, 4, 0.2, "", 2),
        (4, 4, 3.4, "", 1),
        (2, 2, 9.0, "", 1),
        (64, 64, 30.0, "", 2),
        (64, 1, 0.0, "", 1),
        (64, 4, 30.0, "", 2),
        (2, 2, 9.0, "2", 2),
    ],
    ids=[
        "idle",
        "one core free",
        "overloaded",
        "others on a large machine",
        "a container of one core",
        "a container beside others",
        "the user chose",
    ],
)
def test_a_busy_machine_gets_fewer_threads(
    monkeypatch: pytest.MonkeyPatch, cores: int, part: int, load: float, chosen: str, expected: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("spinemet.model.inference.usable_cores", lambda: part)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        use_free_cores()
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
