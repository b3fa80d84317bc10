"""One random network saved in the form of each library gives the same features to the last bit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models import DenseNet, resnet18

from spinemet.errors import BadInput
from spinemet.model.backbone import Trunk
from spinemet.model.spec import DenseNetSpec
from spinemet.model.weights import convert, load_pretrained, read_densenet
from tests.model.test_torch_files import FORMS, Opens, rezipped, saved

SPEC = DenseNetSpec(growth_rate=8, block_config=(1, 2, 1, 1), init_features=8)
State = dict[str, Tensor]


def network(channels: int = 3, spec: DenseNetSpec = SPEC) -> DenseNet:
    """A network of torchvision with random weights, also in its batch norms."""
    torch.manual_seed(channels)
    net = DenseNet(spec.growth_rate, spec.block_config, spec.init_features, num_classes=5)
    if channels != 3:
        net.features.conv0 = nn.Conv2d(channels, spec.init_features, 7, 2, 3, bias=False)
    for name, value in net.state_dict().items():
        if value.is_floating_point() and not name.endswith("weight"):
            value.uniform_(0.5, 1.5)
    return net.eval()


def renamed(state: State, *changes: tuple[str, str]) -> State:
    for pattern, replacement in changes:
        state = {re.sub(pattern, replacement, name): value for name, value in state.items()}
    return state


def radimagenet(net: DenseNet) -> State:
    """As its example makes a network: the children of torchvision's without the head, and a classifier."""
    made = nn.ModuleDict({"backbone": nn.Sequential(net.features), "classifier": nn.Linear(3, 2)})
    return made.state_dict()


LIBRARIES: dict[str, Callable[[DenseNet], Any]] = {
    "torchvision": lambda net: net.state_dict(),
    "torchvision as published": lambda net: {
        name: value
        for name, value in renamed(net.state_dict(), (r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2")).items()
        if not name.endswith("num_batches_tracked")
    },
    "RadImageNet": radimagenet,
    "MONAI": lambda net: renamed(
        net.state_dict(), (r"(denselayer\d+)", r"\1.layers"), ("classifier", "class_layers.out")
    ),
    "torchxrayvision, whole": lambda net: net,
    "Lightning": lambda net: {"epoch": 3, "state_dict": nn.ModuleDict({"model": net}).state_dict(), "loops": {}},
    "in parallel, whole": lambda net: {"net": nn.DataParallel(net)},
    "features alone": lambda net: net.features.state_dict(),
}


def features(trunk: nn.Module, channels: int = 3) -> Tensor:
    image = torch.randn(2, channels, 40, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return trunk.eval()(image)


def loaded(path: Path, content: bytes, spec: DenseNetSpec = SPEC) -> tuple[Trunk, str]:
    path.write_bytes(content)
    trunk = Trunk(spec)
    return trunk, load_pretrained(trunk, str(path))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_and_form_gives_equal_features(library: str, form: tuple[bool, int], tmp_path: Path) -> None:
    net = network()
    expected = torch.relu(features(net.features)).mean(dim=(2, 3))
    trunk, said = loaded(tmp_path / "weights", saved(LIBRARIES[library](net), form))
    assert torch.equal(features(trunk), expected)
    assert said.startswith("used 74 tensors")


def test_the_real_monai_gives_equal_features(tmp_path: Path) -> None:
    densenet = pytest.importorskip("monai.networks.nets.densenet")
    made = densenet.DenseNet(2, 3, 5, SPEC.init_features, SPEC.growth_rate, SPEC.block_config).eval()
    made.load_state_dict(LIBRARIES["MONAI"](network()))
    trunk, said = loaded(tmp_path / "weights", saved(made))
    assert torch.equal(features(trunk), torch.relu(features(made.features)).mean(dim=(2, 3)))
    assert said.endswith("left out: class_layers.out.weight, class_layers.out.bias.")


def test_densenet_121_of_a_s3_store_as_safetensors_and_converted(s3_bucket: str, tmp_path: Path) -> None:
    net = network(spec=DenseNetSpec())
    (tmp_path / "whole.pt").write_bytes(saved(net, (False, 2)))
    said = convert(str(tmp_path / "whole.pt"), f"{s3_bucket}/weights/densenet121.safetensors")
    assert said == (
        f"wrote 604 tensors to {s3_bucket}/weights/densenet121.safetensors; "
        "left out: classifier.weight, classifier.bias."
    )
    trunk = Trunk(DenseNetSpec())
    load_pretrained(trunk, f"{s3_bucket}/weights/densenet121.safetensors")
    assert torch.equal(features(trunk), torch.relu(features(net.features)).mean(dim=(2, 3)))


def test_one_input_channel_is_spread_over_all(tmp_path: Path) -> None:
    net = network(channels=1)
    three = network()
    three.load_state_dict(
        {**net.state_dict(), "features.conv0.weight": net.features.conv0.weight.expand(-1, 3, -1, -1) / 3}
    )
    trunk, said = loaded(tmp_path / "grey", saved(net))
    assert torch.equal(features(trunk), torch.relu(features(three.features)).mean(dim=(2, 3)))
    assert "the only input channel for all 3; left out: classifier.weight, classifier.bias." in said
    grey = torch.randn(2, 1, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(trunk(grey.expand(-1, 3, -1, -1)), torch.relu(net.features(grey)).mean(dim=(2, 3)))


def test_a_network_that_saw_images_of_1024_sees_the_same_in_ours_of_2(tmp_path: Path) -> None:
    """As those of torchxrayvision, which scales its images to ±1024."""
    net = network(channels=1)
    smooth = nn.functional.avg_pool2d(torch.rand(64, 1, 80, 80, generator=torch.Generator().manual_seed(2)), 5, 1)
    images = (smooth - smooth.amin()) / (smooth.amax() - smooth.amin()) * 2048 - 1024
    with torch.no_grad():
        net.features.norm0.momentum = None
        net.features.norm0.reset_running_stats()
        net.features.norm0.train()(net.features.conv0(images))
        net.eval()
        trunk, said = loaded(tmp_path / "grey", saved(net))
        expected = torch.relu(net.features(images)).mean(dim=(2, 3))
        torch.testing.assert_close(trunk.eval()(images.expand(-1, 3, -1, -1) / 512), expected, rtol=1e-3, atol=1e-3)
    assert "the first batch norm scaled from images of about ±1024 to ±2" in said
    assert "±1024" not in loaded(tmp_path / "three", saved(network()))[1]


def test_half_precision_and_other_networks_in_the_file_do_no_harm(tmp_path: Path) -> None:
    state = network().half().state_dict()
    other = {"decoder.conv0.weight": torch.ones(3), "\x1b[2J\nhead": torch.ones(1)}
    trunk, said = loaded(tmp_path / "weights", saved({**state, **other}))
    assert torch.equal(trunk.features.conv0.weight, state["features.conv0.weight"].float())
    assert said.endswith("left out: classifier.weight, classifier.bias, decoder.conv0.weight, ??2J?head.")


def broken(change: Callable[[State], State]) -> Callable[[], bytes]:
    def content() -> bytes:
        return saved(change(dict(network().state_dict())))

    return content


NORM = "features.norm5.running_mean"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda: saved(resnet18()),
            r"found 122 tensors: conv1.weight, bn1.weight, bn1.bias, bn1.running_mean and 118 more",
        ),
        (lambda: saved({"hello": 1}), "found no tensors"),
        (lambda: saved(torch.ones(3)), r"found 1 tensors: \(no name\)"),
        (
            lambda: saved({"student": network(), "teacher": network(1)}),
            r"found 2 of them, below student\.features\., teacher\.features\.; save one",
        ),
        (
            broken(lambda state: {name: value for name, value in state.items() if name != NORM}),
            f"found 73 of 74 tensors, without {NORM}",
        ),
        (
            lambda: saved(network(spec=DenseNetSpec(growth_rate=8, block_config=(1, 2, 2, 1), init_features=8))),
            r"found 10 tensors more: features.denseblock3.denselayer2.conv1.weight",
        ),
        (
            lambda: saved(network(spec=DenseNetSpec(growth_rate=8, block_config=(1, 2, 1, 1), init_features=16))),
            r"found features.conv0.weight of 16 x 3 x 7 x 7, not 8 x 3 x 7 x 7",
        ),
        (lambda: saved(network(channels=4)), r"found features.conv0.weight of 8 x 4 x 7 x 7, not 8 x 3 x 7 x 7"),
        (
            broken(lambda state: {**state, NORM: state[NORM] / 0}),
            f"found values in {NORM} that are no finite floating-point",
        ),
        (
            broken(lambda state: {**state, NORM: state[NORM].int()}),
            f"found values in {NORM} that are no finite floating-point",
        ),
        (
            broken(lambda state: {**state, "features.norm5.running_var": -state["features.norm5.running_var"]}),
            r"found negative variances in features\.norm5\.running_var",
        ),
        (lambda: saved(network())[:-1000], "found a damaged file"),
        (lambda: rezipped(saved(network()), {"data.pkl": b"\x80\x02."}), "found a damaged file"),
        (lambda: b"not weights", "found neither a file of PyTorch nor safetensors"),
        (lambda: safetensors.torch.save({"a.b": torch.ones(1)}), r"found 1 tensors: a\.b"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    content: Callable[[], bytes], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        loaded(tmp_path / "weights.pth", content())
    said = str(caught.value)
    assert "expected DenseNet weights" in said
    assert str(tmp_path / "weights.pth") in said
    assert "\n" not in said
    assert not re.search("Error|Exception", said)


def test_a_refused_file_leaves_the_trunk_as_it_was(tmp_path: Path) -> None:
    trunk = Trunk(SPEC)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    (tmp_path / "x").write_bytes(broken(lambda state: {**state, NORM: state[NORM] / 0})())
    with pytest.raises(BadInput):
        load_pretrained(trunk, str(tmp_path / "x"))
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_a_missing_file_and_a_hostile_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"expected pretrained weights at .*absent.pth, found none"):
        read_densenet(str(tmp_path / "absent.pth"))
    (tmp_path / "hostile.pt").write_bytes(saved({"net": network(), "more": Opens(tmp_path / "ran")}))
    convert(str(tmp_path / "hostile.pt"), str(tmp_path / "clean.safetensors"))
    assert not (tmp_path / "ran").exists()
    assert len(safetensors.torch.load_file(tmp_path / "clean.safetensors")) == 74
