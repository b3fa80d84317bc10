"""Models on disk: the round trip, and the errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from spinemet.config import changed
from spinemet.errors import BadInput
from spinemet.model.aggregate import Rule
from spinemet.model.checkpoint import CARD, WEIGHTS, ModelCard, load_card, load_model, model_digest, save_model
from spinemet.model.multitask import MultiTask

Pair = tuple[MultiTask, ModelCard]


def test_a_model_comes_back_as_it_was(model: Pair, tmp_path: Path) -> None:
    net, card = model
    card = changed(card, rules={"lytic": Rule(kind="top")}, split={"test": ("p1",)}, seed=3)
    written = save_model(str(tmp_path / "m"), net, card)
    back, read = load_model(str(tmp_path / "m"))
    assert read == written == load_card(str(tmp_path / "m"))
    assert not back.training
    hu = torch.zeros(2, 32, 32, dtype=torch.int16)
    assert all(torch.equal(a, b) for a, b in zip(net(hu).values(), back(hu).values(), strict=True))


def test_a_model_goes_to_s3_and_back(model: Pair, s3_bucket: str) -> None:
    save_model(f"{s3_bucket}/runs/a/model", *model)
    assert load_model(f"{s3_bucket}/runs/a/model")[1].spec == model[1].spec


def test_the_digest_follows_weights_and_card(model: Pair, tmp_path: Path) -> None:
    net, card = model
    first = model_digest(save_model(str(tmp_path / "a"), net, card))
    assert first == model_digest(save_model(str(tmp_path / "b"), net, card))
    assert first != model_digest(save_model(str(tmp_path / "c"), net, changed(card, seed=1)))
    with torch.no_grad():
        next(net.parameters()).add_(1)
    assert first != model_digest(save_model(str(tmp_path / "d"), net, card))


def test_a_place_without_a_model_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BadInput, match=r"expected a model .* found none"):
            load_model(str(place))
    file = tmp_path / "file.txt"
    file.write_text("hello")
    with pytest.raises(BadInput, match="expected a model"):
        load_model(str(file))


@pytest.mark.parametrize("text", ["not JSON", "{}", '{"spec": {"tasks": []}}'])
def test_an_invalid_card_is_refused(model: Pair, tmp_path: Path, text: str) -> None:
    save_model(str(tmp_path), *model)
    (tmp_path / CARD).write_text(text)
    with pytest.raises(BadInput, match="expected a SpineMet model card") as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_damaged_missing_or_foreign_weights_are_refused(model: Pair, tmp_path: Path) -> None:
    save_model(str(tmp_path), *model)
    good = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(good[:-4])
    with pytest.raises(BadInput, match="is damaged, or its weights do not belong to"):
        load_model(str(tmp_path))
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(BadInput, match=r"expected a file at .*safetensors, found none"):
        load_model(str(tmp_path))
    (tmp_path / WEIGHTS).write_bytes(good)
    card = json.loads((tmp_path / CARD).read_text())
    card["spec"]["backbone"]["growth_rate"] = 12
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(BadInput, match="do not fit the model"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperatures", {"bone_quality": 0}),
        ("temperatures", {"bone_quality": float("nan")}),
        ("temperatures", {"lytic": float("inf")}),
        ("temperatures", {"lytic": -1.0}),
        ("offsets", {"bone_quality": [0.0, float("nan"), 0.0, 0.0]}),
    ],
)
def test_a_card_with_values_that_cannot_be_is_refused(model: Pair, tmp_path: Path, field: str, value: object) -> None:
    save_model(str(tmp_path), *model)
    card = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps({**card, field: value}))
    with pytest.raises(BadInput, match=f"expected a SpineMet model card in .*{field}"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(("name", "value"), [("center", "NaN"), ("width", "Infinity"), ("width", "0")])
def test_windows_that_cannot_be_are_refused(model: Pair, tmp_path: Path, name: str, value: str) -> None:
    save_model(str(tmp_path), *model)
    card = json.loads((tmp_path / CARD).read_text())
    card["spec"]["windows"][0][name] = float(value)
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(BadInput, match=rf"spec\.windows\.0\.{name}"):
        load_model(str(tmp_path))


def test_weights_that_are_not_numbers_are_refused_at_load(model: Pair, tmp_path: Path) -> None:
    net, card = model
    name, weights = next(iter(net.named_parameters()))
    with torch.no_grad():
        weights[0, 0, 1, 1] = float("nan")
    save_model(str(tmp_path), net, card)
    with pytest.raises(BadInput, match=f"expected numbers in {name}"):
        load_model(str(tmp_path))


def test_weights_of_another_type_are_refused(model: Pair, tmp_path: Path) -> None:
    net, card = model
    save_model(str(tmp_path), net.half(), card)
    with pytest.raises(BadInput, match=r"expected torch\.float32 in .*, found torch\.float16"):
        load_model(str(tmp_path))
