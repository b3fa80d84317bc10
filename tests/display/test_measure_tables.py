from pathlib import Path

from rich.console import Console

from spinemet.cohort.agreement import agreement
from spinemet.cohort.comparison import compare
from spinemet.cohort.density import density
from spinemet.cohort.population import Population
from spinemet.cohort.table1 import table1
from spinemet.cohort.views import open_cohort
from spinemet.display.measure_tables import render_agreement, render_comparison, render_density, render_table1
from tests.cohort.cases import Study, write_results


def _shown(table: object) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_each_measure_is_a_table_for_a_person(tmp_path: Path) -> None:
    levels = ("L1=lytic L2", "L1 L2", "L1=mixed L2")
    studies = [Study(f"p{n}", levels=levels[n % 3], sex="FM"[n % 2], age=None if n == 3 else 60 + n) for n in range(12)]
    for run, model in enumerate(("aaaaaaaaaaaa", "bbbbbbbbbbbb")):
        write_results(str(tmp_path), studies, model=model, wave=f"run-{run}/0")
    cohort = open_cohort(str(tmp_path), None, Population(model="aaaa"))
    described = _shown(render_table1(table1(cohort, "sex")))
    assert "SMD" in described
    assert "65.0 ± 3.7; 65.0 [" in described
    assert "age unknown" in described
    assert "SMD" not in _shown(render_table1(table1(cohort)))
    assert "142 [" not in _shown(render_density(density(cohort))), "equal HU have no interval"
    compared = _shown(render_comparison(compare(cohort, "sex", ["F", "M"])))
    assert "4/6 66.7 %" in compared
    assert "too few" in compared
    agreed = _shown(render_agreement(agreement(cohort, Population(model="bbbb"))))
    assert "24 vertebrae evaluable for both; equal: 100.0 %; Cohen's kappa 1.00" in agreed
