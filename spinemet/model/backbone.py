"""The convolutional trunks: DenseNets that turn HU slices into features. N slices, H rows, W columns."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet

from spinemet.model.spec import DenseNetSpec, Window


class Windows(nn.Module):
    """Turns HU into one channel per window, scaled to [-2, 2]: about the range that ImageNet weights expect."""

    center: Tensor
    width: Tensor

    def __init__(self, windows: tuple[Window, ...]) -> None:
        super().__init__()
        self.register_buffer("center", torch.tensor([w.center for w in windows]), persistent=False)
        self.register_buffer("width", torch.tensor([w.width for w in windows]), persistent=False)

    def forward(self, hu_NHW: Tensor) -> Tensor:
        """(N, windows, H, W) float32 in channels-last memory of (N, H, W) HU, int16 or float."""
        image_NHWC = (hu_NHW.float().unsqueeze(-1) - self.center) * (4 / self.width)
        return image_NHWC.clamp_(-2, 2).permute(0, 3, 1, 2)


class Trunk(nn.Module):
    """A DenseNet whose features are averaged over the image; `width` features per slice."""

    def __init__(self, spec: DenseNetSpec) -> None:
        super().__init__()
        net = DenseNet(spec.growth_rate, spec.block_config, spec.init_features, num_classes=1)
        self.features = net.features
        self.width: int = net.classifier.in_features

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """(N, width) features of (N, 3, H, W) images; H and W at least 32."""
        return _pooled(self.features(image_NCHW))

    def stages(self) -> list[nn.Sequential]:
        """The layers in five parts; each of the first four ends after the image was halved."""
        layers = list(self.features.named_children())
        ends = [n for n, (name, _) in enumerate(layers, start=1) if name.startswith(("pool", "transition"))]
        modules = [layer for _, layer in layers]
        return [nn.Sequential(*modules[start:end]) for start, end in pairwise([0, *ends, len(modules)])]


class CrossStitched(nn.Module):
    """Soft sharing: one trunk per task, which gets a learned mix of all trunks after every halving of the image.

    Cross-stitch units (Misra et al. 2016, arXiv 1604.03539), here with one weight per pair of tasks. The trunks start
    with different weights and share little; training learns how much. A penalty on the distance between trunks would
    need a strength and a term in the loss.
    """

    def __init__(self, spec: DenseNetSpec, count: int) -> None:
        super().__init__()
        trunks = [Trunk(spec) for _ in range(count)]
        self.trunks = nn.ModuleList(trunks)
        self.width = trunks[0].width
        own = 0.9 if count > 1 else 1.0
        mix = torch.full((count, count), (1 - own) / max(count - 1, 1)).fill_diagonal_(own)
        # Flat, because vectors get no weight decay: it would pull the outputs of the trunks to 0.
        self.mixes = nn.ParameterList(nn.Parameter(mix.flatten().clone()) for _ in range(len(trunks[0].stages()) - 1))

    def forward(self, image_NCHW: Tensor) -> list[Tensor]:
        """One (N, width) tensor of features per trunk, of (N, 3, H, W) images."""
        count = len(self.trunks)
        stages = zip(*(trunk.stages() for trunk in self.trunks if isinstance(trunk, Trunk)), strict=True)
        flows = [image_NCHW] * count
        for n, layers in enumerate(stages):
            flows = [layer(flow) for layer, flow in zip(layers, flows, strict=True)]
            if n < len(self.mixes):
                mix = self.mixes[n].view(count, count)
                flows = [
                    sum((mix[to, own] * flows[own] for own in range(1, count)), mix[to, 0] * flows[0])
                    for to in range(count)
                ]
        return [_pooled(flow) for flow in flows]


def _pooled(features_NCHW: Tensor) -> Tensor:
    return torch.relu(features_NCHW).mean(dim=(2, 3))
