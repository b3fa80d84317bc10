from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from spinemet.cli import main
from spinemet.cohort.omop import export_omop
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from tests.cohort.cases import Study, write_results

IMAGE_OCCURRENCE = {
    "image_occurrence_id", "person_id", "procedure_occurrence_id", "visit_occurrence_id", "anatomic_site_concept_id",
    "wadors_uri", "local_path", "image_occurrence_date", "image_study_uid", "image_series_uid", "modality_concept_id",
}  # fmt: skip
IMAGE_FEATURE = {
    "image_feature_id", "person_id", "image_occurrence_id", "image_feature_event_field_concept_id",
    "image_feature_event_id", "image_feature_concept_id", "image_feature_type_concept_id", "image_finding_concept_id",
    "image_finding_id", "anatomic_site_concept_id", "alg_system", "alg_datetime",
}  # fmt: skip
"""OHDSI/ImageWG, inst/csv: OMOP_CDM_Medical_Imaging_Ex_Field_Level.csv."""


@pytest.fixture
def results(tmp_path: Path) -> str:
    return write_results(
        str(tmp_path / "results"),
        [
            Study("p1", levels="T12=lytic L1=cut L2", name="a"),
            Study("p1", levels="T12=lytic", name="b"),
            Study("p2", levels="T11=blastic", name="c"),
            Study("p3", when=None, levels="T11=blastic", name="d"),
            Study(None, levels="T11", name="e"),
        ],
    )


@pytest.fixture
def tables(results: str, tmp_path: Path) -> dict[str, pd.DataFrame]:
    export_omop(open_cohort(results), str(tmp_path / "out"))
    return {path.stem: pd.read_csv(path) for path in (tmp_path / "out").glob("*.csv")}


def test_the_imaging_tables_have_the_columns_of_the_specification(tables: dict[str, pd.DataFrame]) -> None:
    assert set(tables["image_occurrence"].columns) == IMAGE_OCCURRENCE
    assert set(tables["image_feature"].columns) == IMAGE_FEATURE
    assert (len(IMAGE_OCCURRENCE), len(IMAGE_FEATURE)) == (11, 12)
    required = tables["image_feature"][["image_feature_id", "person_id", "image_occurrence_id", "alg_system"]]
    assert required.notna().all(axis=None)
    assert tables["image_occurrence"]["image_occurrence_date"].tolist() == ["2024-05-02"] * 3


def test_every_feature_leads_to_its_value_its_image_and_its_person(tables: dict[str, pd.DataFrame]) -> None:
    joined = (
        tables["image_feature"]
        .merge(
            tables["measurement"],
            left_on=["image_feature_event_id", "person_id"],
            right_on=["measurement_id", "person_id"],
        )
        .merge(tables["image_occurrence"], on=["image_occurrence_id", "person_id"])
        .merge(tables["person"], on="person_id")
    )
    assert len(joined) == len(tables["image_feature"]) == 4 * 4
    said = joined.set_index(["person_source_value", "image_study_uid", "measurement_source_value"])
    assert said.loc[("p1", "a", "bone_quality of T12"), "value_source_value"] == "lytic"
    assert said.loc[("p2", "c", "p_lesion of T11"), "value_as_number"] == pytest.approx(1 - 0.11)
    assert said.loc[("p1", "a", "trabecular_hu of L2"), ["value_as_number", "unit_source_value"]].tolist() == [
        142,
        "[hnsf'U]",
    ]


def test_what_a_site_must_map_is_listed(tables: dict[str, pd.DataFrame]) -> None:
    codes = set(tables["concepts"]["code"])
    assert {"bone_quality", "T12", "lytic", "none", "[hnsf'U]", "CT", "algorithm"} <= codes
    assert not tables["concepts"].duplicated().any()
    assert not tables["concepts"].isna().any(axis=None)


def test_studies_without_a_date_are_left_out_and_counted(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "omop", results, str(tmp_path / "again")]) == 0
    assert "1 studies have no date, which OMOP needs: they are left out." in capsys.readouterr().err
    about = json.loads((tmp_path / "again" / "about.json").read_text())
    assert about["undated"] == 1
    assert about["rows"]["image_occurrence"] == 3
    with pytest.raises(BadInput, match="expected a new or empty folder"):
        export_omop(open_cohort(results), str(tmp_path / "again"))
