from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from spinemet.archive.listing import study_at
from spinemet.cli import app, main
from spinemet.config import StudyConfig
from spinemet.spine.localize import localize
from spinemet.study import read_volume_of
from tests.cohort.cases import Study, write_results

Spinemet = Callable[..., "Ended"]


class Ended(NamedTuple):
    """Exit code and output of a command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def spinemet(capsys: pytest.CaptureFixture[str]) -> Spinemet:
    """The console script, run in this process so that its imports are loaded once."""

    def run(*arguments: str | Path) -> Ended:
        code = main([*map(str, arguments)])
        shown = capsys.readouterr()
        return Ended(code, shown.out, shown.err)

    return run


def test_the_console_script_is_installed() -> None:
    script = Path(sys.executable).with_name("spinemet")
    done = subprocess.run([script, "sql", "/nonexistent", "select 1"], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    assert all(
        name in shown
        for name in ("doctor", "phantom", "study", "volume", "weights", "cohort", "adjudicate", "sql", "report", "demo")
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["study", "/nonexistent/study"],
        ["volume", "/nonexistent/study", "out.nii.gz"],
        ["sql", "/nonexistent/results", "select 1"],
        ["cohort", "prevalence", "/nonexistent/results"],
        ["report", "/nonexistent/results", "out.html"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_missing_place_is_one_sentence_and_exit_code_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spinemet: Spinemet
) -> None:
    monkeypatch.chdir(tmp_path)
    done = spinemet(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("spinemet: ")
    assert "/nonexistent/" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_valid_model_is_refused(realct: Path, tmp_path: Path, spinemet: Spinemet) -> None:
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    done = spinemet("study", realct / "totalsegmentator" / "example_ct.nii.gz", "--model", tmp_path)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)


def test_hostile_and_other_files_of_weights_are_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spinemet: Spinemet
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = {
        "runs.pt": b"\x80\x02cos\nsystem\nX\x0d\x00\x00\x00touch HOSTILE\x85R.",
        "mkdir.pt": b"\x80\x02cposix\nmkdir\nX\x01\x00\x00\x00x\x85R.",
        "text.pt": b"cposix\nsystem\n(S'touch HOSTILE'\ntR.",
        "nothing.pt": b"",
        "cut.safetensors": b"\xff\x00\x00\x00\x00\x00\x00\x00{",
        "cut.pt": b"PK\3\4",
    }
    for name, content in hostile.items():
        (tmp_path / name).write_bytes(content)
        done = spinemet("weights", tmp_path / name, tmp_path / "out.safetensors")
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
        assert done.stderr.startswith(f"spinemet: expected DenseNet weights in {tmp_path / name}, found ")
    assert spinemet("weights", tmp_path / "cut.pt", tmp_path / "out.pt").returncode == 2
    assert {path.name for path in tmp_path.iterdir()} == set(hostile)


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\x00", bytes(range(256)) * 12, b"%PDF-1.7", bytes(400)])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_broken_study_is_said_in_one_place_and_ends_with_2(
    tmp_path: Path, spinemet: Spinemet, content: bytes, as_json: bool
) -> None:
    (tmp_path / "ct.nii").write_bytes(content)
    done = spinemet("study", tmp_path / "ct.nii", *(["--json"] if as_json else []))
    assert (done.returncode, done.stderr) == (2, "")
    assert re.search("expected a readable (NIfTI|gzip) file, found a broken one", done.stdout)


@pytest.mark.parametrize("name", [".", "spine.txt", "spine"])
def test_a_picture_needs_a_name_that_ends_in_png(tmp_path: Path, spinemet: Spinemet, name: str) -> None:
    done = spinemet("study", tmp_path, "--png", tmp_path / name)
    assert done.returncode == 2
    assert "expected a file name that ends in .png" in done.stderr
    assert not list(tmp_path.iterdir())


def test_real_lumbar_ct_as_json_picture_and_volume(realct: Path, tmp_path: Path, spinemet: Spinemet) -> None:
    ct, png = realct / "totalsegmentator" / "example_ct.nii.gz", tmp_path / "spine.png"
    done = spinemet("study", ct, "--localizer", "geometric", "--json", "--png", png)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["state"], answer["reason"]) == ("screened", None)
    found = {each["level"]: np.array(each["center_mm"]) for each in answer["vertebrae"]}
    bodies = localize(read_volume_of(study_at(str(ct)), StudyConfig()), _bodies(realct, ct), "masks")
    for body in bodies.vertebrae:
        if body.level in {"L1", "L2", "L3", "L4"}:
            assert np.linalg.norm(found[body.level] - body.center_mm) < 8
    assert png.read_bytes().startswith(b"\x89PNG")
    assert spinemet("volume", ct, tmp_path / "volume.nii.gz").returncode == 0
    before, after = nib.load(ct), nib.load(tmp_path / "volume.nii.gz")
    np.testing.assert_allclose(sorted(before.header.get_zooms()), sorted(after.header.get_zooms()), atol=1e-3)
    assert abs(float(before.get_fdata().mean()) - float(after.get_fdata().mean())) < 1


def _bodies(realct: Path, ct: Path):
    from spinemet.dicom.segmentation import labels_from_nifti

    volume = read_volume_of(study_at(str(ct)), StudyConfig())
    content = (realct / "totalsegmentator" / "totalseg_vertebrae_pp_refined.nii.gz").read_bytes()
    return labels_from_nifti(content, volume)


def test_a_real_thoracic_ct_shows_exactly_its_fourteen_bodies(realct: Path, spinemet: Spinemet) -> None:
    done = spinemet("study", realct / "lidc-0314" / "series.tar.xz", "--json")
    answer = json.loads(done.stdout)
    heights = [each["center_mm"][2] for each in answer["vertebrae"]]
    assert answer["state"] == "screened"
    assert heights == sorted(heights, reverse=True)
    # C6 (cut), C7 and T1 to T12 are in view; a person counted them by their rib pairs.
    assert len(heights) == 14


def test_the_doctor_says_whether_a_job_can_start(tmp_path: Path, spinemet: Spinemet) -> None:
    (tmp_path / "study.zip").write_bytes(b"PK")
    (tmp_path / "key").write_text("a key for the tests only")
    (tmp_path / "key").chmod(0o600)
    places = ["--archive", tmp_path, "--results", tmp_path / "results", "--key-file", tmp_path / "key"]
    done = spinemet("doctor", *places, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ready"]) == (0, True)
    levels = {each["subject"]: each["level"] for each in answer["findings"]}
    assert levels["archive"] == levels["results"] == levels["key"] == "ok"
    assert levels["model"] == levels["Ray"] == "skipped"
    assert not (tmp_path / "results").exists()
    wrong = spinemet("doctor", *places, "--model", tmp_path)
    assert wrong.returncode == 2
    assert "1 problem would stop a job" in wrong.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_results(str(folder), [Study("p1", levels="T12 L1=lytic L2"), Study("p2", levels="L1 L2=blastic")])
    return folder


def test_piped_answers_are_csv(results: Path, spinemet: Spinemet) -> None:
    done = spinemet("cohort", "prevalence", results, "--by", "level")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    lytic = next(row for row in rows if row["level"] == "L1" and row["finding"] == "lytic")
    assert (lytic["n_positive"], lytic["n_evaluable"]) == ("1", "2")


def test_an_answer_as_json_says_what_it_is_about(results: Path, spinemet: Spinemet, tmp_path: Path) -> None:
    women = tmp_path / "women.toml"
    women.write_text(spinemet("cohort", "define", results, "--where", "sex = 'F'", "--rule", "0.3").stdout)
    asked = spinemet("cohort", "prevalence", results, "--by", "", "--population", women, "--json")
    answer = json.loads(asked.stdout)
    assert answer["about"]["definition"] == women.read_text()
    assert answer["about"]["rule"] == answer["rows"][0]["rule"] == "p(lesion) >= 0.3"
    assert any("population" in sentence for sentence in answer["notes"])
    flow = json.loads(spinemet("cohort", "flow", results, "--json").stdout)
    assert flow["rows"][0]["step"] == "in the archive"


def test_lists_are_words_in_csv(results: Path, spinemet: Spinemet) -> None:
    asked = spinemet("sql", results, "select ['lossy', 'deskewed'] as flags, []::varchar[] as none")
    assert asked.stdout.splitlines() == ["flags,none", "lossy deskewed,"]


def test_prevalence_counts_any_task(results: Path, spinemet: Spinemet) -> None:
    asked = spinemet("cohort", "prevalence", results, "--by", "", "--task", "posterolateral")
    assert [line.split(",")[0] for line in asked.stdout.splitlines()] == ["finding", "any", "unilateral", "bilateral"]
    wrong = spinemet("cohort", "prevalence", results, "--task", "collapse")
    assert wrong.returncode == 2
    assert "posterolateral), found collapse" in wrong.stderr


def test_sql_answers_and_reports_mistakes(results: Path, spinemet: Spinemet) -> None:
    asked = spinemet("sql", results, "select count(*) as n from vertebrae")
    assert asked.stdout.split() == ["n", "5"]
    wrong = spinemet("sql", results, "select nothing from nowhere")
    assert (wrong.returncode, len(wrong.stderr.strip().splitlines())) == (2, 1)


def test_a_report_is_one_file(results: Path, tmp_path: Path, spinemet: Spinemet) -> None:
    done = spinemet("report", results, tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "<html" in page
    assert 'src="http' not in page
