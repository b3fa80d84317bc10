"""A model is measured on patients it did not learn from, and the tables agree with its predictions."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import recall_score

from jobs.evaluate import main
from spinemet.cohort.evaluated import read_evaluation
from spinemet.cohort.views import open_cohort
from spinemet.config import changed
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput
from spinemet.evaluation.evaluate import Evaluation, named_points, run_evaluate
from spinemet.evaluation.pages import evaluation_page
from spinemet.files import join, read_bytes
from spinemet.model.card import load_card
from spinemet.model.checkpoint import ModelCard, save_model, untrained
from spinemet.model.points import load_points
from spinemet.model.predictor import Predictor
from spinemet.model.spec import DenseNetSpec, ModelSpec
from spinemet.training.crops import read_crops
from spinemet.types import BONE_QUALITY, SliceStack
from tests.cohort.cases import Study, write_results
from tests.readings import SLICES, reading
from tests.training.crops import NAMES, label_table, write_crops

LEVELS = ["T11", "T12", "L1", "L2"]
PATIENTS = [f"p{n}" for n in range(6)]
TRAIN, TEST = PATIENTS[:3], PATIENTS[3:]
SPEC = ModelSpec(
    backbone=DenseNetSpec(growth_rate=4, block_config=(1, 1, 1, 1), init_features=8), slices=SLICES, fusion_width=4
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `crops` of six patients and a `model` whose card says that it learned from three of them."""
    folder = tmp_path_factory.mktemp("evaluate")
    rows = [
        {"patient": patient, "level": level, "bone_quality": BONE_QUALITY[(m + n) % 4]}
        | ({"posterolateral": "none"} if patient == "p5" else {})
        for m, patient in enumerate(PATIENTS)
        for n, level in enumerate(LEVELS)
    ]
    readings = [reading(patient, LEVELS, hu=100 * n) for n, patient in enumerate(PATIENTS)]
    write_crops(str(folder / "crops"), readings, label_table(*rows))
    saved(folder, "model", 0, train=TRAIN, test=TEST)
    return folder


def saved(place: Path, name: str, seed: int, names: Pseudonymizer = NAMES, **parts: list[str]) -> str:
    """A model at `place` / `name` that is marked with the patients of each part."""
    split = {part: [names.patient_key(patient) for patient in patients] for part, patients in parts.items()}
    save_model(str(place / name), untrained(SPEC, seed), ModelCard(spec=SPEC), split, names.key_id)
    return str(place / name)


@pytest.fixture(scope="module")
def found(place: Path) -> Evaluation:
    return run_evaluate(str(place / "model"), str(place / "crops"), str(place / "out"))


def test_measures_agree_with_the_models_calls(place: Path, found: Evaluation) -> None:
    assert found.facts["patients"] == len(TEST)
    assert set(found.vertebrae["patient"]) == set(map(NAMES.patient_key, TEST))
    predictor, crops = Predictor.load(str(place / "model")), read_crops(str(place / "crops"))
    true, called = [], []
    for _, rows in crops.table[crops.table["patient"].isin(list(map(NAMES.patient_key, TEST)))].groupby("vertebra"):
        stack = SliceStack("L1", crops.hu_NHW[rows.index], rows["offset_mm"].to_numpy(), SLICES.pixel_mm)
        called.append(predictor.predict([stack])[0].label("bone_quality"))
        true.append(rows["bone_quality"].iloc[0])
    assert found.vertebrae["bone_quality_called"].tolist() == called
    assert found.vertebrae["bone_quality_true"].tolist() == true
    expected = recall_score(true, called, labels=BONE_QUALITY, average=None)
    for label, value in zip(BONE_QUALITY, expected, strict=True):
        assert found.value("bone_quality", "sensitivity", label)[0] == pytest.approx(value)
    assert found.value("bone_quality", "macro_sensitivity")[0] == pytest.approx(np.mean(expected))


def test_missing_labels_do_not_count(found: Evaluation) -> None:
    rows = found.measures.query("task == 'posterolateral' and unit == 'vertebra'").set_index(["measure", "label"])
    assert rows.loc[("sensitivity", "none"), "n"] == len(LEVELS)
    assert rows.loc[("sensitivity", "none"), "patients"] == 1
    assert np.isnan(rows.loc[("sensitivity", "bilateral"), "value"])
    assert found.vertebrae["posterolateral_true"].isna().sum() == 2 * len(LEVELS)


@pytest.mark.parametrize("where", ["local", "s3"])
def test_the_written_files_hold_the_evaluation(place: Path, s3_bucket: str, where: str) -> None:
    out = str(place / "written") if where == "local" else join(s3_bucket, "evaluation")
    found = run_evaluate(str(place / "model"), str(place / "crops"), out)
    for name in ("measures", "confusions", "vertebrae", "slices"):
        stored = pd.read_parquet(BytesIO(read_bytes(join(out, f"{name}.parquet"))))
        pd.testing.assert_frame_equal(stored.fillna(""), getattr(found, name).fillna(""), check_dtype=False)
    content = json.loads(read_bytes(join(out, "evaluation.json")))
    assert content["facts"] == found.facts
    assert len(content["measures"]) == len(found.measures)
    assert "NaN" not in read_bytes(join(out, "evaluation.json")).decode()
    assert read_bytes(join(out, "confusion.png")).startswith(b"\x89PNG")
    assert "| bone_quality | mixed |" in read_bytes(join(out, "evaluation.md")).decode()


def test_two_evaluations_are_equal(place: Path, found: Evaluation) -> None:
    again = run_evaluate(str(place / "model"), str(place / "crops"), str(place / "again"))
    pd.testing.assert_frame_equal(again.measures, found.measures)


def test_training_patients_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"on 3 of the 6 patients"):
        run_evaluate(str(place / "model"), str(place / "crops"), str(tmp_path), split="all")


def test_a_training_patient_with_another_name_in_the_labels_is_found_by_the_archives(place: Path) -> None:
    labels = label_table({"patient": "case 1", "study": "1.2", "level": "L1", "bone_quality": "lytic"})
    write_crops(str(place / "renamed"), [reading("p0", ["L1"], study="1.2")], labels)
    with pytest.raises(BadInput, match=r"on 1 of the 1 patients"):
        run_evaluate(str(place / "model"), str(place / "renamed"), str(place / "no"), split="all")


@pytest.mark.parametrize("kind", ["another key", "no marks", "an earlier version's card"])
def test_where_nobody_can_tell_whom_the_model_knows_test_is_refused_and_all_says_so(place: Path, kind: str) -> None:
    if kind == "another key":
        model = saved(place, kind, 0, Pseudonymizer(b"the key of another site", "exact"), train=TRAIN, test=TEST)
    else:
        model = str(place / kind)
        card = ModelCard(spec=SPEC, split={"train": ("0296ef1cedfcd137",)} if "card" in kind else {})
        save_model(model, untrained(SPEC, 0), card)
    reason = "another pseudonym key" if kind == "another key" else "no marks"
    with pytest.raises(BadInput, match=f"{reason}.*--split all"):
        run_evaluate(model, str(place / "crops"), str(place / "no"))
    found = run_evaluate(model, str(place / "crops"), str(place / "all"), split="all")
    assert reason in str(found.facts["cannot_tell"])
    assert "Nobody can tell whether the model learned" in (place / "all" / "evaluation.md").read_text()


def test_split_all_measures_every_patient_of_new_crops(place: Path, tmp_path: Path) -> None:
    labels = label_table(*({"patient": "q", "level": level, "bone_quality": "lytic"} for level in LEVELS))
    write_crops(str(tmp_path / "crops"), [reading("q", LEVELS)], labels)
    with pytest.raises(BadInput, match="name 1 patients, but none that the model's training set aside"):
        run_evaluate(str(place / "model"), str(tmp_path / "crops"), str(tmp_path / "out"))
    found = run_evaluate(str(place / "model"), str(tmp_path / "crops"), str(tmp_path / "out"), split="all")
    assert found.facts["vertebrae"] == len(LEVELS)


def test_a_slice_uses_its_own_label_and_its_vertebra_the_vertebras_label(place: Path, tmp_path: Path) -> None:
    row = {"patient": "q", "study": "9.q", "level": "L1"}
    labels = label_table({**row, "bone_quality": "lytic"}, {**row, "slice": "0", "bone_quality": "normal"})
    write_crops(str(tmp_path / "crops"), [reading("q", ["L1"])], labels)
    found = run_evaluate(str(place / "model"), str(tmp_path / "crops"), str(tmp_path / "out"), split="all")
    assert found.slices["bone_quality_true"].tolist() == ["lytic", "normal", "lytic"]
    assert found.vertebrae["bone_quality_true"].tolist() == ["lytic"]
    assert found.slices["lytic_true"].tolist() == ["yes", "no", "yes"]


def test_crops_cut_another_way_are_refused(place: Path, tmp_path: Path) -> None:
    spec = changed(SPEC, slices=changed(SLICES, pixel_mm=1.0))
    save_model(str(tmp_path / "model"), untrained(spec, 0), ModelCard(spec=spec))
    with pytest.raises(BadInput, match=r"pixel_mm 3\.5.*needs.*pixel_mm 1\.0"):
        run_evaluate(str(tmp_path / "model"), str(place / "crops"), str(tmp_path / "out"))


def test_the_job_prints_the_table_and_bad_input_is_exit_code_2(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["--model", str(place / "model"), "--crops", str(place / "crops"), "--out", str(place / "job")]
    assert main(paths) == 0
    assert "Confusion of bone_quality per vertebra" in capsys.readouterr().out
    paths[1] = str(place / "nowhere")
    assert main(paths) == 2
    assert "expected a model" in capsys.readouterr().err


def test_the_table_fits_a_terminal_of_100_columns(found: Evaluation) -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(evaluation_page(found).render())
    assert "…" not in console.export_text()


def test_validation_patients_set_the_thresholds_and_test_patients_measure_them(place: Path) -> None:
    model = saved(place, "thresholds", 0, train=PATIENTS[:1], validation=PATIENTS[1:3], test=TEST)
    found = run_evaluate(model, str(place / "crops"), str(place / "operating"))
    points = found.operating.query("task == 'blastic' and wanted_specificity == 0.9").iloc[0]
    assert points["chosen_on"] == 2 * len(LEVELS)
    called = found.vertebrae["blastic_p_yes"] >= points["threshold"]
    truth = found.vertebrae["blastic_true"] == "yes"
    assert points["sensitivity"] == pytest.approx((called & truth).sum() / truth.sum())
    assert points["specificity"] == pytest.approx((~called & ~truth).sum() / (~truth).sum())
    any_lesion = found.operating.query("task == 'bone_quality' and label == 'any' and wanted_specificity == 0.9").iloc[
        0
    ]
    called = 1 - found.vertebrae["bone_quality_p_normal"] >= any_lesion["threshold"]
    truth = found.vertebrae["bone_quality_true"] != "normal"
    assert any_lesion["sensitivity"] == pytest.approx((called & truth).sum() / truth.sum())
    assert load_points(model, load_card(model)) == named_points(found.operating, SPEC.tasks)
    text = (place / "operating" / "evaluation.md").read_text()
    assert "| blastic | yes | 0.90 |" in text
    assert "Against the baseline" not in text
    assert (place / "operating" / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_operating_points_have_names_unless_they_never_call() -> None:
    rows = [
        ("blastic", "yes", 0.9, 0.7),
        ("blastic", "yes", 0.95, float("inf")),
        ("bone_quality", "any", 0.9, 0.4),
        ("bone_quality", "any", 0.95, 0.6),
        ("bone_quality", "lytic", 0.9, 0.2),
    ]
    table = pd.DataFrame(rows, columns=["task", "label", "wanted_specificity", "threshold"])
    assert named_points(table, SPEC.tasks) == {
        "specificity_90": {"blastic": 0.7, "bone_quality": 0.4},
        "specificity_95": {"bone_quality": 0.6},
    }
    assert named_points(table[:0], SPEC.tasks) == {}


def test_the_gain_is_the_difference_of_both_models_measures(place: Path, found: Evaluation) -> None:
    other = saved(place, "other", 5, train=TRAIN, test=TEST)
    alone = run_evaluate(other, str(place / "crops"), str(place / "alone"))
    both = run_evaluate(
        str(place / "model"), str(place / "crops"), str(place / "both"), baseline_uri=str(place / "other")
    )
    rows = both.differences.set_index(["task", "unit", "measure", "label"])
    for label in BONE_QUALITY:
        row = rows.loc[("bone_quality", "vertebra", "sensitivity", label)]
        ours, theirs = (one.value("bone_quality", "sensitivity", label)[0] for one in (found, alone))
        assert row["value"] == pytest.approx(ours)
        assert row["difference"] == pytest.approx(ours - theirs)
    same = run_evaluate(
        str(place / "model"), str(place / "crops"), str(place / "same"), baseline_uri=str(place / "model")
    )
    known = same.differences.dropna(subset="difference")
    assert (known[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert "## Against the baseline" in (place / "both" / "evaluation.md").read_text()


def test_a_baseline_that_learned_from_the_patients_is_refused(place: Path) -> None:
    baseline = saved(place, "spoilt", 0, train=TEST[:1])
    with pytest.raises(BadInput, match=r"on 1 of the patients measured"):
        run_evaluate(str(place / "model"), str(place / "crops"), str(place / "no"), baseline_uri=baseline)


def test_the_folder_of_an_evaluation_gives_the_errors_that_it_shows(place: Path) -> None:
    found = run_evaluate(str(place / "model"), str(place / "crops"), str(place / "correcting"))
    studies = [Study("a", levels="L1=lytic L2"), Study("b", levels="L1 L2")]
    cohort = open_cohort(write_results(str(place / "results"), studies, model=str(found.facts["model"])))
    evaluated = read_evaluation(cohort, str(place / "correcting"))
    shares = evaluated.errors("bone_quality", BONE_QUALITY, "vertebra").shares_CC
    sensitivity = [found.value("bone_quality", "sensitivity", name)[0] for name in BONE_QUALITY]
    assert shares.diagonal() == pytest.approx(sensitivity)
    of_patients = found.measures.query("unit == 'patient' and task == 'bone_quality'").set_index(["label", "measure"])
    any_lesion = evaluated.errors("bone_quality", BONE_QUALITY, "patient", "any").shares_CC
    assert any_lesion[1, 1] == of_patients.loc[("any", "sensitivity"), "value"]
    assert "## Per patient" in (place / "correcting" / "evaluation.md").read_text()
