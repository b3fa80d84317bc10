"""The external check: calls straight from studies equal those from crops, and every label is accounted for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from jobs.evaluate import main
from spinemet.dicom.pseudonym import KEY_VARIABLE
from spinemet.errors import BadInput, Reason
from spinemet.evaluation.evaluate import evaluate, measured
from spinemet.evaluation.external import (
    CUT,
    LEARNED_FROM,
    MATCHED,
    NO_STUDY,
    NOT_FOUND,
    NOT_READ,
    OVERRULED,
    STRAY,
    called_studies,
    run_external,
)
from spinemet.evaluation.groups import GROUPS
from spinemet.evaluation.pages import evaluation_page
from spinemet.model.checkpoint import ModelCard, save_model, untrained
from spinemet.model.doubt import Doubts
from spinemet.model.marks import UNMARKED, Marks, Matching, mark
from spinemet.model.predictor import Predictor
from spinemet.model.spec import DenseNetSpec, ModelSpec
from spinemet.phantom.archive import write_archive
from spinemet.reading import NotScreened, State
from spinemet.training.crops import read_crops
from tests.readings import SLICES, reading
from tests.training.crops import NAMES, label_table, write_crops

SPEC = ModelSpec(
    backbone=DenseNetSpec(growth_rate=4, block_config=(1, 1, 1, 1), init_features=8), slices=SLICES, fusion_width=4
)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    place = str(tmp_path_factory.mktemp("external"))
    doubts = Doubts(decides="bone_quality", ranges={"bone_hu": (-50, 150)})
    save_model(place, untrained(SPEC, 0), ModelCard(spec=SPEC, doubts=doubts))
    return Predictor.load(place)


def test_studies_and_crops_of_the_same_studies_give_the_same_tables(predictor: Predictor, tmp_path: Path) -> None:
    readings = [reading(patient, ["T12", "L1", "?1"], hu=100 * n) for n, patient in enumerate("abc")]
    rows = [{"patient": one, "level": level, "bone_quality": "lytic"} for one in "abc" for level in ("T12", "L1")]
    rows.append({"patient": "b", "study": "9.b", "level": "L1", "slice": "-30", "bone_quality": "normal"})
    labels = label_table(*rows)
    write_crops(str(tmp_path), readings, labels)
    expected = evaluate(predictor, read_crops(str(tmp_path)), "all")
    tables = called_studies(predictor, labels, [None, *readings], NAMES, UNMARKED).tables()
    for unit, table in (("vertebra", expected.vertebrae), ("slice", expected.slices)):
        keys = ["patient", "level", *(["offset_mm"] if unit == "slice" else [])]
        ours, theirs = (
            one.drop(columns=["vertebra", *GROUPS], errors="ignore").sort_values(keys).reset_index(drop=True)
            for one in (tables[unit], table)
        )
        pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)
    assert set(tables["vertebra"]["kernel"]) == {"B60f"}
    doubts = tables["vertebra"].groupby("patient")[["unsure", "certainty"]].agg(list)
    assert doubts.loc[NAMES.patient_key("a")].tolist() == [["", ""], ["sure", "sure"]]
    assert doubts.loc[NAMES.patient_key("c")].tolist() == [["high_density"] * 2, ["unsure"] * 2]
    parts = expected.groups.query("task == 'bone_quality' and measure == 'observed_share'")
    assert parts.set_index("value_of_group")["n"].to_dict() == {"sure": 4, "unsure": 2}
    assert "Sure and unsure calls: bone_quality per vertebra" in evaluation_page(expected).markdown()


def test_every_label_has_a_fate(predictor: Predictor) -> None:
    rows = [
        {"patient": "a", "level": "T12", "bone_quality": "lytic"},
        {"patient": "a", "level": "L1", "bone_quality": "lytic"},
        {"patient": "a", "study": "9.a", "level": "L1", "bone_quality": "normal"},
        {"patient": "a", "level": "L5", "bone_quality": "normal"},
        {"patient": "a", "study": "9.a", "level": "T12", "slice": "400", "bone_quality": "normal"},
        {"patient": "a", "level": "T11", "bone_quality": "normal"},
        {"patient": "b", "level": "T12", "bone_quality": "normal"},
        {"patient": "c", "level": "T12", "bone_quality": "normal"},
        {"patient": "c", "level": "L1"},
    ]
    labels = label_table(*rows)
    broken = NotScreened(State.FAILED, Reason.TRUNCATED, chosen=reading("b").chosen)
    calls = called_studies(predictor, labels, [reading("a", cut=["T11"]), broken, reading("stranger")], NAMES, UNMARKED)
    found = {
        (labels["patient"].iloc[n], labels["study"].iloc[n], labels["level"].iloc[n], labels["slice"].iloc[n]): fate
        for n, fate in calls.fates.items()
    }
    assert found == {
        ("a", "", "T12", ""): MATCHED,
        ("a", "", "L1", ""): OVERRULED,
        ("a", "9.a", "L1", ""): MATCHED,
        ("a", "", "L5", ""): NOT_FOUND,
        ("a", "9.a", "T12", "400"): STRAY,
        ("a", "", "T11", ""): CUT,
        ("b", "", "T12", ""): NOT_READ + Reason.TRUNCATED.meaning,
        ("c", "", "T12", ""): NO_STUDY,
    }
    facts = calls.facts()
    assert facts == {"labels": 8, "labels_matched": 2, "studies_not_read": 1, "unlabelled": 0}
    assert calls.unmatched()["labels"].sum() == 6


def test_a_label_of_a_patient_keeps_its_best_fate_and_a_study_counts_once(predictor: Predictor) -> None:
    labels = label_table({"patient": "a", "level": "L1", "bone_quality": "lytic"})
    without, with_level = reading("a", ["T12"], "9.1"), reading("a", ["T12", "L1"], "9.2")
    for order in ([without, with_level, with_level], [with_level, without]):
        calls = called_studies(predictor, labels, order, NAMES, UNMARKED)
        assert list(calls.fates.values()) == [MATCHED]
        assert len(calls.tables()["vertebra"]) == 1
        assert calls.studies == 2
    unnamed = replace(with_level, chosen=replace(with_level.chosen, StudyInstanceUID="", SeriesInstanceUID=""))
    assert called_studies(predictor, labels, [unnamed, unnamed], NAMES, UNMARKED).studies == 2


def test_without_a_labelled_vertebra_the_reasons_are_said(predictor: Predictor) -> None:
    labels = label_table({"patient": "a", "level": "S1", "bone_quality": "lytic"})
    with pytest.raises(BadInput, match=f"found none: 1 labels, {NOT_FOUND}"):
        called_studies(predictor, labels, [reading("a")], NAMES, UNMARKED).tables()


def test_the_job_measures_an_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "the key of all tests")
    write_archive(str(tmp_path), 1, 3)
    save_model(str(tmp_path / "model"), untrained(SPEC, 0), ModelCard(spec=SPEC))
    paths = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--archive", str(tmp_path / "archive")]
    assert main([*paths, "--labels", str(tmp_path / "labels.csv")]) == 0
    text = (tmp_path / "out" / "evaluation.md").read_text()
    assert "By kind of scan: bone_quality per vertebra" in text
    assert "| few |" in text
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert content["facts"]["labels_matched"] > 5
    assert (
        content["facts"]["labels_matched"] + sum(row["labels"] for row in content["unmatched"])
        == (content["facts"]["labels"])
    )
    assert {row["group"] for row in content["groups"]} == set(GROUPS)
    capsys.readouterr()
    assert main(paths) == 2
    assert "--archive and --labels" in capsys.readouterr().err


def test_training_patients_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    split = {"train": [NAMES.patient_key("p")], "test": [NAMES.patient_key("q")]}
    save_model(str(tmp_path / "model"), untrained(SPEC, 0), ModelCard(spec=SPEC), split, NAMES.key_id)
    (tmp_path / "labels.csv").write_text("patient,level,bone_quality\np,L1,lytic\nq,L1,lytic\n")
    places = (
        str(tmp_path / "model"),
        str(tmp_path / "nowhere"),
        str(tmp_path / "labels.csv"),
        str(tmp_path / "out"),
        NAMES,
    )
    with pytest.raises(BadInput, match="on 1 of the 2 patients"):
        run_external(*places)
    with pytest.raises(BadInput, match="nowhere"):
        run_external(*places, split="test")


def test_a_training_patient_with_another_name_in_the_labels_is_left_out_and_counted(predictor: Predictor) -> None:
    rows = [{"patient": f"case {one}", "study": f"9.{one}", "level": "L1", "bone_quality": "lytic"} for one in "ab"]
    marks = Marks(Matching.MATCHED, "w", {mark(NAMES.patient_key("a"), "w"): "train"})
    calls = called_studies(
        predictor, label_table(*rows), [reading(one, study=f"9.{one}") for one in "ab"], NAMES, marks
    )
    assert calls.unmatched().to_dict("records") == [{"reason": LEARNED_FROM, "labels": 1}]
    assert calls.tables()["vertebra"]["archive_patient"].tolist() == [NAMES.patient_key("b")]


def test_the_page_fits_a_terminal(predictor: Predictor) -> None:
    levels = ["T12", "L1", "L2", "L3"]
    labels = label_table(
        *({"patient": f"p{n}", "level": level, "bone_quality": "lytic" if n % 2 else "normal"}
          for n in range(12) for level in levels)
    )  # fmt: skip
    calls = called_studies(predictor, labels, [reading(f"p{n}", levels) for n in range(12)], NAMES, UNMARKED)
    tables = calls.tables()
    found = replace(
        measured(predictor, tables, {"split": "all", **calls.facts()}),
        unmatched=calls.unmatched(),
    )
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(evaluation_page(found).render())
    assert "…" not in console.export_text()
