import hashlib
import subprocess
import sys

import pytest

from spinemet.config import changed
from spinemet.model.card import ModelCard, caution, model_digest
from spinemet.model.spec import ModelSpec


def test_reading_a_card_does_not_import_torch() -> None:
    imports = "import sys, spinemet.model.card, spinemet.on_ray.screen; print(*{'torch', 'ray'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_card_of_an_earlier_version_keeps_its_digest() -> None:
    card = ModelCard(spec=ModelSpec(), seed=3, weights_sha256="ab", split={"train": ("0296ef1cedfcd137",)})
    earlier = card.model_dump_json(
        exclude={"trained_on", "offsets", "about", "doubts", "patients", "split_digest", "canary"}
    )
    assert model_digest(ModelCard.model_validate_json(earlier)) == hashlib.sha256(earlier.encode()).hexdigest()[:12]
    assert model_digest(changed(card, trained_on="phantoms")) != model_digest(card)


@pytest.mark.parametrize("nobody_said", ["", None])
def test_only_a_model_of_other_data_than_patients_needs_a_caution(nobody_said: str | None) -> None:
    assert caution(nobody_said) == ""
    assert caution("phantoms") == "The model was trained on phantoms: its calls on patients are not validated."
