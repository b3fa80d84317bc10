"""DenseNet weights as people have them: of torchvision, RadImageNet, MONAI, torchxrayvision and of networks like these.

All four have the layers of torchvision. Their names differ in what is in front (`features.`, RadImageNet `backbone.0.`,
any wrapper's `module.` or `state_dict.model.`) and in dense layers: `norm1`, but `norm.1` in torchvision's published
file and `layers.norm1` in MONAI. torchxrayvision has one input channel.
"""

import math
import re
from collections.abc import Collection, Mapping

import safetensors.torch
import torch
from torch import Tensor, nn

from spinemet.errors import BadInput
from spinemet.files import read_bytes, write_bytes
from spinemet.model.torch_files import Unusable, read_tensors

_FIRST = "features.conv0.weight"
_NORM = "features.norm0"
_LAYER = re.compile(r"((?:.*?\.)?)((?:conv0|norm0|norm5|denseblock\d+|transition\d+)\..+)")


def read_densenet(uri: str) -> tuple[dict[str, Tensor], list[str]]:
    """The layers of the DenseNet in the file `uri` by torchvision's names, and the names of the tensors left out.

    uri: local path or s3:// URI. Raises BadInput if there is no file, no DenseNet in it, or more than one.
    """
    try:
        content = read_bytes(uri)
    except BadInput as error:
        raise BadInput(f"expected pretrained weights at {uri}, found none.") from error
    try:
        return _densenet(read_tensors(content))
    except Unusable as error:
        raise BadInput(f"expected DenseNet weights in {uri}, found {error}.") from error


def load_pretrained(trunk: nn.Module, uri: str) -> str:
    """Fill a `Trunk` with the weights in `uri`; returns a sentence on what was used.

    A file with one input channel gives each of the trunk's three a third of its filters. The first batch norm of a
    network that saw images of about ±1024 is scaled to ours of ±2. Raises BadInput as `read_densenet` does, or if the
    network in the file has another shape.
    """
    found, left_out = read_densenet(uri)
    own = {name: value for name, value in trunk.state_dict().items() if not _counts(name)}
    if misfit := _misfit(found, own):
        raise BadInput(f"expected DenseNet weights with the shape of this recipe in {uri}, found {misfit}.")
    for name, value in own.items():
        value.copy_(found[name])
    done = f"used {len(found)} tensors of {uri}"
    if (channels := own[_FIRST].shape[1] // found[_FIRST].shape[1]) > 1:
        own[_FIRST] /= channels
        done += f", the only input channel for all {channels}"
    if _reach(found) > 16:
        own[f"{_NORM}.running_mean"] /= 512
        own[f"{_NORM}.running_var"] /= 512**2
        done += ", the first batch norm scaled from images of about ±1024 to ±2"
    return f"{done}; left out: {_some(left_out)}."


def convert(uri: str, out: str) -> str:
    """Write the DenseNet in `uri` to `out` as safetensors, by torchvision's names; returns a sentence on it.

    The numbers stay as they are, the head is left out. Raises BadInput as `read_densenet` does.
    """
    found, left_out = read_densenet(uri)
    apart = {name: value.clone(memory_format=torch.contiguous_format) for name, value in found.items()}
    write_bytes(out, safetensors.torch.save(apart))
    return f"wrote {len(found)} tensors to {out}; left out: {_some(left_out)}."


def _densenet(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    networks: dict[str, dict[str, str]] = {}
    for name in tensors:
        if layer := _LAYER.fullmatch(name):
            ours = re.sub(r"(denselayer\d+)\.layers\.", r"\1.", layer[2])
            ours = re.sub(r"\b(norm|conv)\.([12])\.", r"\1\2.", ours)
            networks.setdefault(layer[1], {})[f"features.{ours}"] = name
    # Other networks have layers of these names too, but not both.
    networks = {
        front: names
        for front, names in networks.items()
        if _FIRST in names and any(name.startswith("features.denseblock") for name in names)
    }
    if not networks:
        raise Unusable(f"{len(tensors)} tensors: {_some(tensors)}" if tensors else "no tensors")
    if len(networks) > 1:
        raise Unusable(f"{len(networks)} of them, below {_some(networks)}; save one in a file of its own")
    (names,) = networks.values()
    used = set(names.values())
    layers = {ours: tensors[name] for ours, name in names.items() if not _counts(ours)}
    return layers, [name for name in tensors if name not in used]


def _counts(name: str) -> bool:
    """Whether this is a batch norm's counter of batches, which changes nothing and old files lack."""
    return name.endswith("num_batches_tracked")


def _misfit(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """What in `found` does not fit the trunk's `own` tensors; None if all does."""
    if missing := sorted(own.keys() - found.keys()):
        return f"{len(found)} of {len(own)} tensors, without {_some(missing)}"
    if surplus := sorted(found.keys() - own.keys()):
        return f"{len(surplus)} tensors more: {_some(surplus)}"
    for name, value in own.items():
        given = found[name]
        grey = name == _FIRST and given.shape == (value.shape[0], 1, *value.shape[2:])
        if given.shape != value.shape and not grey:
            return f"{name} of {_shape(given)}, not {_shape(value)}"
        if not given.is_floating_point() or not given.float().isfinite().all():
            return f"values in {name} that are no finite floating-point numbers"
        if name.endswith("running_var") and (given < 0).any():
            return f"negative variances in {name}"
    return None


def _reach(found: Mapping[str, Tensor]) -> float:
    """What the values of the images that a network saw reached at least.

    The square of a filter's answer is at most the squares of its weights times those of the pixels that it sees. So the
    first batch norm tells: its averages would need hundreds of steps of training to forget the scale.
    """
    filters = found[_FIRST].float().flatten(1)
    squares_F = found[f"{_NORM}.running_var"].float() / filters.square().sum(dim=1).clamp(min=1e-12)
    return math.sqrt(max(float(squares_F.quantile(0.9)), 0) / filters.shape[1])


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"


def _some(names: Collection[str]) -> str:
    """The first names, without characters that a terminal could take for commands; `nothing` if there are none."""
    shown = [re.sub(r"[^\w.-]", "?", name, flags=re.ASCII)[:60] or "(no name)" for name in [*names][:4]]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(shown) + more or "nothing"
