"""The network: the inputs of its parts, and tasks as configuration."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import densenet121

from spinemet.config import changed
from spinemet.model.backbone import CrossStitched, Trunk, Windows
from spinemet.model.checkpoint import untrained
from spinemet.model.spec import DenseNetSpec, ModelSpec, Window
from spinemet.model.tasks import Task


def hu(count: int, size: int = 32) -> torch.Tensor:
    return torch.randint(-200, 1200, (count, size, size), dtype=torch.int16, generator=torch.Generator().manual_seed(0))


def test_windows_scale_their_range_and_clip_the_rest() -> None:
    windows = Windows((Window(center=100, width=400), Window(center=0, width=2000)))
    image = windows(torch.tensor([[[-1024, -100, 100, 300, 3000]]], dtype=torch.int16))
    assert image[0, 0, 0].tolist() == [-2, -2, 0, 2, 2]
    assert image[0, 1, 0].tolist() == pytest.approx([-2, -0.2, 0.2, 0.6, 2])
    assert image.is_contiguous(memory_format=torch.channels_last)


def test_the_default_trunk_is_densenet_121() -> None:
    ours = Trunk(DenseNetSpec()).state_dict()
    theirs = {
        key: value for key, value in densenet121(weights=None).state_dict().items() if key.startswith("features.")
    }
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_a_new_binary_task_needs_only_configuration(spec: ModelSpec) -> None:
    collapse = Task(name="collapse", column="collapse", positive=("yes",))
    grown = untrained(changed(spec, tasks=(*spec.tasks, collapse)), seed=0)
    logits = grown(hu(3))
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "blastic": (3, 2),
        "lytic": (3, 2),
        "bone_quality": (3, 4),
        "posterolateral": (3, 3),
        "collapse": (3, 2),
    }


def test_bone_quality_depends_only_on_its_sub_tasks(spec: ModelSpec) -> None:
    model = untrained(spec, seed=0).eval()
    before = model(hu(3))
    with torch.no_grad():
        for name in ("blastic", "lytic"):
            head = model.heads[name]
            assert isinstance(head, torch.nn.Linear)
            head.weight.zero_()
            head.bias.copy_(torch.tensor([1.0, -1.0]))
    after = model(hu(3))
    assert torch.equal(after["posterolateral"], before["posterolateral"])
    assert not torch.allclose(after["bone_quality"], before["bone_quality"])
    assert torch.allclose(after["bone_quality"], after["bone_quality"][:1].expand(3, -1))


def test_coupled_trunks_start_differently_and_learn_from_all_tasks(spec: ModelSpec) -> None:
    soft = untrained(changed(spec, sharing="soft"), seed=0)
    trunks = soft.trunks()
    assert len(trunks) == 3  # bone quality has no head on a trunk
    assert not torch.equal(*(next(trunk.parameters()) for trunk in trunks[:2]))
    logits = soft(hu(3))
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "blastic": (3, 2),
        "lytic": (3, 2),
        "bone_quality": (3, 4),
        "posterolateral": (3, 3),
    }
    logits["posterolateral"].sum().backward()
    felt = [next(trunk.parameters()).grad for trunk in trunks]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in felt)
    assert isinstance(soft.trunk, CrossStitched)
    assert all(mix.grad is not None and mix.ndim == 1 for mix in soft.trunk.mixes)


def test_coupled_trunks_without_mixing_are_separate_trunks(spec: ModelSpec) -> None:
    made = CrossStitched(spec.backbone, 2).eval()
    for mix in made.mixes:
        mix.data.copy_(torch.eye(2).flatten())
    image = torch.rand(2, 3, 32, 32)
    for alone, found in zip(made.trunks, made(image), strict=True):
        assert torch.allclose(alone(image), found, atol=1e-6)


def test_the_first_weights_depend_only_on_the_seed(spec: ModelSpec) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second, other = untrained(spec, 1), untrained(spec, 1), untrained(spec, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_composed_bone_quality_of_a_slice_is_the_product_of_its_sub_tasks(spec: ModelSpec) -> None:
    model = untrained(changed(spec, composed=True), seed=0).eval()
    assert "bone_quality" not in model.heads
    found = {name: torch.softmax(logits, dim=1) for name, logits in model(hu(3)).items()}
    blastic, lytic = found["blastic"][:, 1], found["lytic"][:, 1]
    expected = torch.stack(
        [(1 - blastic) * (1 - lytic), blastic * (1 - lytic), blastic * lytic, (1 - blastic) * lytic], dim=1
    )
    torch.testing.assert_close(found["bone_quality"], expected)


def test_only_no_yes_tasks_can_be_composed() -> None:
    side = Task(name="side", column="side", classes=("none", "left", "right"))
    whole = Task(name="whole", column="whole", classes=("a", "b"), fuses=("side",))
    assert ModelSpec(tasks=(side, whole)).composed is False
    with pytest.raises(ValueError, match="task whole: expected no/yes tasks to compose"):
        ModelSpec(tasks=(side, whole), composed=True)
