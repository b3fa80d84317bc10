"""The conformance table keeps its promises, and spinemet/dicom/README.md shows the table of today's reader."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bench.bench_conformance import run
from tests.bench.figures import Figures

README = Path(__file__).parents[2] / "spinemet" / "dicom" / "README.md"
LOSSLESS = ("Explicit VR", "Implicit VR", "Deflated", "RLE", "Lossless, Non-Hierarchical", "JPEG-LS Lossless")


@pytest.fixture(scope="module")
def figures(realct: Path) -> Figures:
    return run()


def test_every_form_of_the_phantom_is_within_2_hu_and_a_hundredth_of_a_millimetre(figures: Figures) -> None:
    phantoms = [str(row[2]) for row in figures.rows if str(row[0]).startswith("phantom")]
    assert len(phantoms) == 9
    for words in phantoms:
        hu, mm = (float(number) for number in re.findall(r"([\d.]+) (?:HU|mm)", words))
        assert hu < 2
        assert mm < 0.01


def test_every_lossless_form_of_the_slice_is_equal_to_the_bit(figures: Figures) -> None:
    slices = [row for row in figures.rows if "TransferSyntax" in str(row[0])]
    equal = [row for row in slices if row[2] == "equal to the bit"]
    assert len(equal) == 9
    assert {row[0] for row in slices if str(row[1]).startswith(LOSSLESS)} <= {row[0] for row in equal}


def test_the_readme_shows_the_table(figures: Figures) -> None:
    shown = README.read_text().splitlines()
    # Results of lossy decoders differ between versions of the libraries, as does which decoders exist.
    firm = [row for row in figures.rows if not re.search("lossy|undecodable", str(row[2]))]
    missing = [row for row in Figures("", figures.columns, rows=firm).markdown().splitlines() if row not in shown]
    assert not missing, "run `make bench ONLY=conformance`"
