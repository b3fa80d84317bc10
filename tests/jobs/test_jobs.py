"""The jobs share one way to parse, to fail and to explain themselves."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import typer

from spinemet.commands import one_command, run_command
from spinemet.errors import BadInput, JobFailed

JOBS = ("prepare", "train", "evaluate", "ablate", "screen", "coldstart")


@pytest.mark.parametrize("name", JOBS)
def test_help_names_every_exit_code_and_usage_errors_end_with_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(f"jobs.{name}").main
    assert main(["--help"]) == 0
    assert "Exit codes: 0 done, 1 the job failed, 2 bad input" in " ".join(capsys.readouterr().out.split())
    assert main([]) == 2
    assert "Missing option" in capsys.readouterr().err
    assert main(["--no-such-option"]) == 2


def test_every_job_is_listed_here_and_short() -> None:
    files = sorted((Path(__file__).parents[2] / "jobs").glob("*.py"))
    assert {path.stem for path in files} == set(JOBS)
    assert all(len(path.read_text().splitlines()) < 80 for path in files)


@pytest.mark.parametrize(
    ("raised", "code", "printed"),
    [
        (None, 0, ""),
        (BadInput("the input is bad."), 2, "work: the input is bad.\n"),
        (JobFailed("the store is gone."), 1, "work: the store is gone.\n"),
        (typer.Exit(3), 3, ""),
        (SystemExit(143), 143, ""),
    ],
)
def test_how_a_command_ends_is_its_exit_code(
    raised: BaseException | None, code: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        if raised is not None:
            raise raised

    assert run_command(one_command(work), "work", []) == code
    assert capsys.readouterr().err == printed


def test_a_mistake_in_the_code_is_not_hidden() -> None:
    def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(one_command(work), "work", [])


def test_seeds_of_an_ablation_are_whole_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.ablate import main

    assert main(["--crops", str(tmp_path), "--out", str(tmp_path / "out"), "--seeds", "0,one"]) == 2
    assert "expected whole numbers separated by commas, found '0,one'" in capsys.readouterr().err
