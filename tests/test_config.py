from __future__ import annotations

from pathlib import Path

import pytest

from spinemet.config import StudyConfig, changed, config_digest, load_config
from spinemet.errors import BadInput


def test_defaults_need_no_file() -> None:
    assert load_config(None, StudyConfig) == StudyConfig()


def test_a_file_sets_the_values_in_it(tmp_path: Path) -> None:
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
        ("not toml", "not valid TOML"),
        ("[select]\nmax_spacing_mm = inf", "select.max_spacing_mm: expected a number, found inf or nan"),
        ("[slices]\nstep_mm = nan", "slices.step_mm: expected a number"),
        ("[select]\nusual_spacing_mm = [0.9, inf]", "select.usual_spacing_mm.1: expected a number"),
    ],
)
def test_an_error_names_the_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        load_config(path, StudyConfig)


def test_a_file_in_another_encoding_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes('localizer = "geometric" # für alle'.encode("latin-1"))
    with pytest.raises(BadInput, match=r"UTF-8 in the configuration file .*study\.toml"):
        load_config(path, StudyConfig)


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        load_config(tmp_path / "none.toml", StudyConfig)


def test_the_digest_changes_with_every_value_and_with_nothing_else() -> None:
    base = StudyConfig()
    assert config_digest(base) == config_digest(StudyConfig())
    assert config_digest(base) != config_digest(changed(base, slices=changed(base.slices, step_mm=4.0)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": 4.0}, "SliceConfig has no field step; its fields are size_px, pixel_mm, step_mm"),
        ({"size_px": 33}, "SliceConfig: size_px: .*multiple of 16, found 33"),
        ({"pixel_mm": -0.5, "step_mm": 2.0}, "SliceConfig: pixel_mm: .*greater than 0, found -0.5"),
    ],
)
def test_a_copy_with_an_unknown_name_or_a_bad_value_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        changed(StudyConfig().slices, **changes)


def test_a_copy_has_the_new_values_and_keeps_the_others() -> None:
    base = StudyConfig(localizer="geometric")
    copy = changed(base, slices=changed(base.slices, step_mm=4))
    assert (copy.localizer, copy.slices.step_mm, copy.slices.pixel_mm) == ("geometric", 4.0, 0.5)
    assert base.slices.step_mm == 3.0
    with pytest.raises(BadInput, match=r"StudyConfig: select\.min_slices: .*found 1"):
        changed(base, select={"min_slices": 1})


def test_no_code_copies_a_model_without_validation() -> None:
    root = Path(__file__).parents[1]
    files = [path for room in ("spinemet", "jobs", "tests") for path in (root / room).rglob("*.py")]
    assert len(files) > 100
    assert [path for path in files if ".model_" + "copy(" in path.read_text()] == []
