from pathlib import Path

import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from spinemet.cohort.agreement import agreement
from spinemet.cohort.population import Population
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.types import BONE_QUALITY
from tests.cohort.cases import Study, write_results

FIRST, SECOND = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def _two_readers(place: str) -> str:
    calls = [("L1=lytic L2 L3=mixed", "L1=lytic L2=lytic L3=mixed"), ("L1 L2 L4", "L1 L3 L2=cut"), ("?1 T1", "?1 T1=?")]
    for reader, model in enumerate((FIRST, SECOND)):
        studies = [Study(f"p{n}", levels=pair[reader]) for n, pair in enumerate(calls * 3)]
        write_results(place, studies, model=model, wave=f"run-{reader + 1}/0")
    return place


def test_pairs_of_calls_are_of_levels_evaluable_for_both(tmp_path: Path) -> None:
    cohort = open_cohort(_two_readers(str(tmp_path)), None, Population(model=FIRST))
    table = agreement(cohort, Population(model="bbbb"))
    counts = table.pivot(index="first", columns="second", values="n_vertebrae").loc[
        list(BONE_QUALITY), list(BONE_QUALITY)
    ]
    found = {(one, two): n for (one, two), n in counts.stack().items() if n}
    assert found == {("lytic", "lytic"): 3, ("normal", "lytic"): 3, ("mixed", "mixed"): 3, ("normal", "normal"): 3}
    assert table["kappa"].iloc[0] == pytest.approx(cohens_kappa(counts.to_numpy()).kappa, rel=1e-9)
    assert table.loc[0, ["n_compared", "agreement", "model", "second_model"]].tolist() == [12, 0.75, FIRST, SECOND]
    assert table["kappa_low"].iloc[0] < table["kappa"].iloc[0] < table["kappa_high"].iloc[0]


def test_the_rule_holds_for_both(tmp_path: Path) -> None:
    cohort = open_cohort(_two_readers(str(tmp_path)), None, Population(model=FIRST, rule=0.95))
    table = agreement(cohort, Population(model=SECOND)).set_index(["first", "second"])
    assert table.loc[("normal", "normal"), "n_vertebrae"] == 12


def test_the_same_reader_twice_is_bad_input(tmp_path: Path) -> None:
    cohort = open_cohort(_two_readers(str(tmp_path)), None, Population(model=FIRST))
    with pytest.raises(BadInput, match="differs from the population"):
        agreement(cohort, Population(model="aaaa"))
    with pytest.raises(BadInput, match="several models"):
        agreement(cohort, Population())
    with pytest.raises(BadInput, match="found cccc"):
        agreement(cohort, Population(model="cccc"))
