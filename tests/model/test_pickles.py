"""Pickles read without unpickling: what comes out, and that nothing runs."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from spinemet.model import pickles
from spinemet.model.pickles import Made, Named, RunsCode, read_pickle


class Calls:
    """Unpickling it calls a function."""

    def __init__(self, what: Callable[..., Any], *args: object) -> None:
        self.call = (what, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def read(content: bytes) -> Any:
    return read_pickle(io.BytesIO(content))[0]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_comes_back_as_it_was(protocol: int) -> None:
    tied = ["é", b"bytes", 1.5]
    data = {"a": tied, "b": (None, True, False, -1, 300, 70_000, 2**80), "c": {"again": tied}, "d": (), "e": [[]]}
    found = read(pickle.dumps(data, protocol))
    if protocol == 2:  # has no instruction for bytes: it calls a function
        assert isinstance(found["a"].pop(1), Made)
        tied.pop(1)
    assert found == data
    assert found["a"] is found["c"]["again"]


def test_sets_become_lists_and_keys_that_are_no_text_are_left_out() -> None:
    assert read(pickle.dumps([{3}, frozenset({4}), {1: "a", "b": 2}], 4)) == [[3], [4], {"b": 2}]


@pytest.mark.parametrize("protocol", [2, 4])
def test_an_object_is_its_class_s_name_and_its_attributes(protocol: int) -> None:
    made = read(pickle.dumps(OrderedDict(x=date(2020, 1, 1), y=1), protocol))
    assert made.maker == Named("collections.OrderedDict")
    (entries,) = made.parts
    assert (entries["y"], entries["x"].maker) == (1, Named("datetime.date"))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_object_runs_nothing(tmp_path: Path, protocol: int) -> None:
    hostile = pickle.dumps({"weights": Calls(Path.touch, tmp_path / "ran")}, protocol)
    assert isinstance(read(hostile)["weights"], Made)
    assert not (tmp_path / "ran").exists()
    pickle.loads(hostile)
    assert (tmp_path / "ran").exists()  # so the file was one that runs


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("what", [os.system, os.mkdir, eval, exec, open, __import__, subprocess.run, shutil.rmtree])
def test_what_only_a_hostile_pickle_calls_is_named(what: Callable[..., Any], protocol: int) -> None:
    with pytest.raises(RunsCode, match=rf"^\w+\.{what.__name__}$"):
        read(pickle.dumps([Calls(what, "x")], protocol))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02]0.",
        b"\x80\x02]]s.",
        b"\x80\x02K\x01t.",
        b"\x80\x02h\x07.",
        b"\x80\x02(K\x01u.",
        b"\x80\x04\x93.",
        b"\x80\x02\x82\x01.",
        b"cfoo\nbar\n(S'true'\ntR.",
        b"\x80\x02}(X\xff\xff\xff\xff.",
        pickle.dumps([1, 2])[:-1],
        b"c" + b"a" * 1000 + b"\nb\n.",
    ],
)
def test_what_is_no_sound_pickle_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="expected a sound pickle"):
        read(content)


def test_a_pickle_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_INSTRUCTIONS", 1000)
    assert len(read(pickle.dumps([0] * 900, 2))) == 900
    with pytest.raises(ValueError, match="expected a sound pickle"):
        read(pickle.dumps([0] * 1000, 2))


def test_damaged_pickles_raise_nothing_but_value_errors() -> None:
    chance = random.Random(0)
    whole = pickle.dumps(OrderedDict(a=[1, (2, 3)], b={"c": date(2020, 1, 1)}, d={4, 5}), 4)
    refused = 0
    for _ in range(3000):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        try:
            read(bytes(content))
        except ValueError:
            refused += 1
    assert 500 < refused < 3000
