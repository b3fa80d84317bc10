"""The dependencies are declared where they are used, and the lock holds a version and hashes for each."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGE = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
DEV = {canonicalize_name(Requirement(text).name) for text in PROJECT["optional-dependencies"]["dev"]}

NOT_IMPORTED_BY_NAME = {
    *("pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg", "python-gdcm"),  # pydicom finds its decoders by itself
    "openpyxl",  # pandas.read_excel
    "tensorboard",  # torch.utils.tensorboard
}
TOOLS = {"ruff", "mypy", "import-linter", "pytest-timeout", "pytest-xdist", "pytest-rerunfailures"}
BROUGHT_ALONG = {"botocore": "boto3", "packaging": "pytest"}


def imported(*folders: str) -> set[str]:
    """Distributions that the Python files below `folders` import."""
    modules: set[str] = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(str(node.module).partition(".")[0])
    names = packages_distributions()
    # lifelines made the figures of tests/statistics/make_lifelines.py, once.
    modules -= {*sys.stdlib_module_names, "spinemet", "jobs", "tests", "totalsegmentator", "lifelines"}
    found = {canonicalize_name(names[module][0]) for module in modules}
    return {BROUGHT_ALONG.get(name, name) for name in found}


def locked() -> dict[str, tuple[str, int]]:
    """Package -> its version and how many hashes it has in requirements.lock."""
    found = {}
    for entry in re.split(r"^(?=[a-z0-9])", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)[1:]:
        name, version = entry.split()[0].split("==")
        assert name not in found, f"{name} is locked in several versions"
        found[name] = version, len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry))
    return found


def test_the_package_declares_what_it_imports_and_nothing_else() -> None:
    assert imported("spinemet", "jobs") == PACKAGE - NOT_IMPORTED_BY_NAME


def test_the_tests_declare_what_they_alone_import() -> None:
    stubs = {name for name in DEV if name.startswith("types-") or name.endswith("-stubs")}
    assert imported("tests") - PACKAGE == DEV - TOOLS - stubs
    assert not DEV & PACKAGE


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]])
def test_the_lock_holds_every_dependency_in_a_version_that_is_allowed(text: str) -> None:
    declared = Requirement(text)
    version, _ = locked()[canonicalize_name(declared.name)]
    assert declared.specifier.contains(version, prereleases=True), "run `make lock`"


def test_every_package_of_the_lock_has_a_hash_and_none_names_an_index() -> None:
    assert all(hashes for _, hashes in locked().values())
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_the_image_and_the_makefile_install_from_the_lock_with_one_version_of_uv() -> None:
    makefile, dockerfile = (ROOT / "Makefile").read_text(), (ROOT / "cluster" / "Dockerfile").read_text()
    uv = re.search(r"UV_VERSION := (\S+)", makefile), re.search(r"ARG UV=(\S+)", dockerfile)
    assert uv[0] and uv[1] and uv[0][1] == uv[1][1]  # noqa: PT018
    assert "--require-hashes --requirement $(LOCK)" in makefile
    assert "--constraints requirements.lock -r pyproject.toml" in dockerfile
