"""The tensors in a file of weights by name: safetensors, or whatever PyTorch saves; nothing is unpickled.

PyTorch writes a zip: a pickle and the numbers of each tensor. Before version 1.6 it wrote pickles in a row, then the
numbers. The pickle may hold tensors by name, a checkpoint with these somewhere inside, or a whole network.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import safetensors.torch
import torch
from torch import Tensor

from spinemet.model.pickles import Made, Named, Reference, RunsCode, read_pickle

MAX_NAME = 300
"""Characters of a tensor's name; a tensor with a longer one is left out."""
_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a file from before PyTorch 1.6."""
_NUMBERS = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_IN_MODULES = {"_parameters", "_buffers", "_modules"}
"""Attributes of a network whose entries are named as if they were attributes themselves."""


class Unusable(Exception):
    """The file is none of weights; the message names what it is: the end of a sentence with "found"."""


def read_tensors(content: bytes) -> dict[str, Tensor]:
    """All tensors in a file by name, with dots between the names of what holds them; empty if there are none.

    Raises Unusable.
    """
    try:
        if content.startswith(b"PK\3\4"):
            return _from_zip(content)
        if content.startswith(b"\x80"):
            return _from_pickles(content)
        if content[8:9] == b"{":
            return {name: value for name, value in safetensors.torch.load(content).items() if len(name) <= MAX_NAME}
    except Unusable:
        raise
    except RunsCode as error:
        raise Unusable(f"a hostile pickle, which would call {error} if it were unpickled") from error
    except Exception as error:  # broken bytes make zipfile, safetensors and pickletools raise any kind of error
        raise Unusable("a damaged file") from error
    if content.startswith(b"\x89HDF"):
        raise Unusable("an HDF5 file of Keras; use PyTorch's form of these weights")
    raise Unusable("neither a file of PyTorch nor safetensors")


def _from_zip(content: bytes) -> dict[str, Tensor]:
    with ZipFile(BytesIO(content)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
        if len(pickles) != 1:
            raise Unusable("a zip that PyTorch did not write; if the weights are in it, unpack it first")
        folder = pickles[0].removesuffix("data.pkl")
        own = [entry for name, entry in entries.items() if name.startswith((f"{folder}data", f"{folder}byteorder"))]
        # PyTorch compresses none of these. Together they are then no larger than the file.
        if any(entry.compress_type != ZIP_STORED for entry in own) or sum(one.file_size for one in own) > len(content):
            raise Unusable("a zip that PyTorch did not write")
        if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
            raise Unusable("numbers of a big-endian machine")
        tree, references = read_pickle(BytesIO(archive.read(pickles[0])))
        return _tensors(tree, {key: archive.read(f"{folder}data/{key}") for key in _kinds(references)}, len(content))


def _from_pickles(content: bytes) -> dict[str, Tensor]:
    file = BytesIO(content)
    if read_pickle(file)[0] != _MAGIC:
        raise Unusable("a pickle that PyTorch did not write")
    read_pickle(file)  # the version of the form, 1001 in every file
    if not read_pickle(file)[0]["little_endian"]:
        raise Unusable("numbers of a big-endian machine")
    tree, references = read_pickle(file)
    kinds = _kinds(references)
    storages = {}
    for key in read_pickle(file)[0]:
        size = int.from_bytes(file.read(8), "little") * _NUMBERS[kinds[key]].itemsize
        storages[key] = file.read(size)
        if len(storages[key]) != size:
            raise Unusable("a file that was cut off")
    return _tensors(tree, storages, len(content))


def _kinds(references: list[Reference]) -> dict[str, str]:
    """The key of each storage of numbers, and its class; a reference may also mean a class."""
    kinds: dict[str, str] = {}
    for one in references:
        match one.says:
            case ("storage", Named(kind), str(key), *_):
                kinds.setdefault(key, kind)
    return kinds


def _tensors(tree: Any, storages: Mapping[str, bytes], file_size: int) -> dict[str, Tensor]:
    """The tensors in what a pickle describes, as views of `storages`."""
    numbers: dict[tuple[str, str], Tensor] = {}
    found = {}
    for name, made in _walk(tree):
        match made.args:
            case (Reference(("storage", Named(kind), str(key), _, _, *view)), offset, tuple(shape), tuple(stride), *_):
                if any(view):
                    raise Unusable("a file of PyTorch 0.3 or older")
                if (key, kind) not in numbers:
                    data = bytearray(storages[key])
                    dtype = _NUMBERS[kind]
                    numbers[key, kind] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
                found[name] = numbers[key, kind].as_strided(shape, stride, offset)
    # Views may repeat numbers; PyTorch's do only if a network uses some twice.
    if sum(math.prod(one.shape) * one.itemsize for one in found.values()) > 4 * file_size:
        raise Unusable("tensors that are larger than the file")
    return found


def _walk(tree: Any) -> Iterator[tuple[str, Made]]:
    """Each tensor below `tree`, as the pickle says to make it, and its name; what has several names takes the first."""
    waiting: list[tuple[str, Any]] = [("", tree)]
    seen = set()
    while waiting:
        name, node = waiting.pop()
        if len(name) > MAX_NAME or id(node) in seen:
            continue
        seen.add(id(node))
        inside: list[tuple[str, Any]] = []
        match node:
            case Made(Named("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor")):
                yield name, node
            case Made(Named("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state")):
                inside = [(name, node.args[0])]
            case Made(Named("collections.OrderedDict"), args):  # Python 2 gave the items here
                inside = [(name, one) for one in (*args[:1], *node.parts)]
            case Made():
                inside = [(name, part) for part in node.parts]
            case dict():
                inside = _named(name, node.items())
            case list():
                inside = _named(name, [one for one in node if isinstance(one, list | tuple) and len(one) == 2])
        waiting += reversed(inside)


def _named(above: str, entries: Iterable[Any]) -> list[tuple[str, Any]]:
    """The entries whose keys are text, by their whole names."""
    short = [(key, value) for key, value in entries if isinstance(key, str) and len(key) <= MAX_NAME]
    return [(above if key in _IN_MODULES else f"{above}.{key}".lstrip("."), value) for key, value in short]
