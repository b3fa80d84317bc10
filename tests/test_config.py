from __future__ import annotations

from pathlib import Path

import pytest

from spinemet.config import StudyConfig, config_digest, load_config
from spinemet.errors import BadInput


def test_defaults_need_no_file() -> None:
    assert load_config(None, StudyConfig) == StudyConfig()


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('localizer = "geometric"\n[slices]\nsize_px = 96\n')
    config = load_config(path, StudyConfig)
    assert (config.localizer, config.slices.size_px, config.slices.pixel_mm) == ("geometric", 96, 0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slicez = 3", "slicez"),
        ("[slices]\nsize_px = 33", "slices.size_px"),
        ('localizer = "guess"', "localizer"),
        ("not toml", "syntax"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        load_config(path, StudyConfig)


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="found none"):
        load_config(tmp_path / "none.toml", StudyConfig)


def test_the_digest_changes_with_every_value_and_with_nothing_else() -> None:
    base = StudyConfig()
    changed = base.model_copy(update={"slices": base.slices.model_copy(update={"step_mm": 4.0})})
    assert config_digest(base) == config_digest(StudyConfig())
    assert config_digest(base) != config_digest(changed)
