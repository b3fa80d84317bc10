"""The tensors of files in every form that PyTorch writes, and of files that nobody should open."""

from __future__ import annotations

import io
import pickle
import random
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from spinemet.model.torch_files import Unusable, read_tensors

FORMS = [(True, 2), (True, 4), (False, 2), (False, 4)]
"""Whether it is a zip, and the protocol of its pickle."""


def saved(what: Any, form: tuple[bool, int] = (True, 2)) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the source of a class is not saved
        torch.save(what, file, _use_new_zipfile_serialization=form[0], pickle_protocol=form[1])
    return file.getvalue()


def rezipped(content: bytes, changes: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The zip `content` with other entries, by the ends of their names."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for name in old.namelist():
            kept = [data for end, data in changes.items() if name.endswith(end)]
            new.writestr(name, kept[0] if kept else old.read(name))
    return file.getvalue()


class Opens:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.path,)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Linear(2, 2)))


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("form", FORMS)
def test_whatever_holds_the_tensors_they_come_out_by_name(form: tuple[bool, int]) -> None:
    net = small()
    state = net.state_dict()
    assert_same(read_tensors(saved(state, form)), state)
    assert_same(read_tensors(saved(net, form)), state)
    checkpoint = {"epoch": 3, "net": {"best": state}, "optimizer": torch.optim.Adam(net.parameters()).state_dict()}
    assert_same(read_tensors(saved(checkpoint, form)), {f"net.best.{name}": value for name, value in state.items()})
    wrapped = nn.DataParallel(net)
    assert_same(read_tensors(saved(wrapped, form)), wrapped.state_dict())


@pytest.mark.parametrize("form", FORMS)
def test_views_and_every_kind_of_number(form: tuple[bool, int]) -> None:
    whole = torch.arange(24.0).view(4, 6)
    tensors = {"turned": whole.T, "part": whole[1:3, ::2], "empty": torch.zeros(0, 3), "one": torch.tensor(2.5)}
    tensors |= {
        str(kind).removeprefix("torch."): torch.arange(5).to(kind)
        for kind in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
    }
    assert_same(read_tensors(saved(tensors, form)), tensors)


def test_safetensors_and_torchscript() -> None:
    state = small().state_dict()
    assert_same(read_tensors(safetensors.torch.save(state)), state)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(small().eval(), torch.zeros(1, 1, 3, 4)), file)
    assert_same(read_tensors(file.getvalue()), state)


def test_a_file_of_python_2_gives_the_items_with_the_class() -> None:
    """As torchvision's oldest files: an OrderedDict called with a list of pairs, and byte strings for text."""
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x01kU\x03cpuK\x02NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\x00K\x02\x85K\x01\x85tR"
    tree = b"\x80\x02ccollections\nOrderedDict\n]]U\x03w.1a" + tensor + b"aa\x85R."
    # the first APPEND puts the name, the second the tensor into the pair, the third the pair into the list
    parts = [pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    content = b"".join(parts) + tree + pickle.dumps(["k"], 2) + struct.pack("<q2f", 2, 1.5, -2)
    assert_same(read_tensors(content), {"w.1": torch.tensor([1.5, -2])})


@pytest.mark.parametrize("form", FORMS)
def test_a_hostile_file_runs_nothing_and_its_tensors_can_be_read(form: tuple[bool, int], tmp_path: Path) -> None:
    content = saved({"x": Opens(tmp_path / "ran"), "w": torch.ones(2)}, form)
    assert_same(read_tensors(content), {"w": torch.ones(2)})
    assert not (tmp_path / "ran").exists()
    torch.load(io.BytesIO(content), weights_only=False)
    assert (tmp_path / "ran").exists()  # so the file was one that runs


def changed_pickle(old: bytes, new: bytes) -> bytes:
    """A saved tensor, whose pickle has other bytes in one place."""
    content = saved({"w": torch.ones(3)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        tree = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    assert tree.count(old) == 1, tree
    return rezipped(content, {"data.pkl": tree.replace(old, new)})


SHAPE = b"K\x00K\x03\x85"
"""Offset 0 and shape (3,) in the pickle of a saved tensor."""


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "neither a file of PyTorch nor safetensors"),
        (b"hello, I am no weights", "neither"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (pickle.dumps({"w": [1.0]}), "a pickle that PyTorch did not write"),
        (b"\x80\x02cos\nsystem\nU\x04true\x85R.", r"a hostile pickle, which would call os\.system if"),
        (saved({"w": torch.ones(3)})[:-40], "damaged"),
        (saved({"w": torch.ones(3)}, (False, 2))[:-4], "cut off"),
        (saved({"w": torch.ones(3)}, (False, 2))[:60], "damaged"),
        (safetensors.torch.save({"w": torch.ones(3)})[:-1], "damaged"),
        (rezipped(saved({"w": torch.ones(3)}), {}, zipfile.ZIP_DEFLATED), "a zip that PyTorch did not write"),
        (rezipped(saved({"w": torch.ones(3)}), {"byteorder": b"big"}), "big-endian"),
        (rezipped(saved({"w": torch.ones(3)}), {"data/0": b"12345678"}), "damaged"),
        (changed_pickle(SHAPE, b"K\x01K\x03\x85"), "damaged"),
        (changed_pickle(SHAPE, b"K\x00J\xff\xff\xff\xff\x85"), "damaged"),
        (changed_pickle(SHAPE, b"K\x00\x8a\x09" + b"\xff" * 8 + b"\x00\x85"), "damaged"),
        (changed_pickle(SHAPE + b"q\x08K\x01", b"K\x00J\xff\xff\xff\x7f\x85q\x08K\x00"), "larger than the file"),
        (changed_pickle(b"X\x01\x00\x00\x000", b"X\x05\x00\x00\x00../.."), "damaged"),
    ],
)
def test_other_files_are_refused_and_named(content: bytes, found: str) -> None:
    with pytest.raises(Unusable, match=found):
        read_tensors(content)


def test_a_zip_without_weights_and_one_whose_parts_overlap() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("DenseNet121.pt", b"x")
    with pytest.raises(Unusable, match="unpack it first"):
        read_tensors(file.getvalue())
    content = bytearray(saved({"w": torch.ones(3)}))
    entry = content.rindex(b"/data/0") - len("archive") - 46  # in the table of contents
    assert content[entry:].startswith(b"PK\1\2")
    content[entry + 20 : entry + 28] = struct.pack("<II", 2**30, 2**30)  # its size
    with pytest.raises(Unusable, match="a zip that PyTorch did not write"):
        read_tensors(bytes(content))


def test_loops_and_repeats_end() -> None:
    loop: dict[str, Any] = {"w": torch.ones(1)}
    loop["again"] = loop
    assert list(read_tensors(saved(loop))) == ["w"]
    wide: dict[str, Any] = {"w": torch.ones(1)}
    for _ in range(100):  # 2 ** 100 paths lead to the tensor
        wide = {"a": wide, "b": wide}
    assert len(read_tensors(saved(wide))) == 1
    assert read_tensors(saved({"x" * 10_000: torch.ones(1)})) == {}


@pytest.mark.parametrize("form", [*FORMS, None])
def test_damaged_files_are_refused_in_words(form: tuple[bool, int] | None) -> None:
    chance = random.Random(1)
    state = {"a": torch.ones(2, 2), "b": nn.Linear(1, 1)}
    whole = safetensors.torch.save({"a": torch.ones(2, 2)}) if form is None else saved(state, form)
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        try:
            read_tensors(bytes(content[: chance.choice([None, chance.randrange(len(content))])]))
        except Unusable:
            refused += 1
    assert 100 < refused < 400
