import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from spinemet.cohort.population import Population
from spinemet.cohort.views import open_cohort, records
from spinemet.errors import BadInput
from spinemet.files import read_bytes
from spinemet.reading import Doubt
from spinemet.report.html import GALLERY_LIMIT, write_report
from spinemet.report.pages import _mark, galleries
from spinemet.results.tables import open_results
from spinemet.results.versions import moment_of
from spinemet.types import MEASURES
from tests.cohort.cases import MODEL, Study, write_results

PATIENT = "5f3a9c1e77d04b2288aa41c0"
COHORT = [
    Study(PATIENT, date(2024, 5, 2), "T12=cut L1=lytic L2", name="aaaa1111bbbb2222", age=61, sex="F"),
    Study("p2", levels="T12 L1 L2", sex="M"),
    Study("p3", levels="T12=blastic L1=mixed L2=lytic", name="cccc3333dddd4444"),
    Study("p4", state="excluded", reason="no_spine"),
    Study("p5", state="failed", reason="truncated"),
]
MEASURE = {"unit": "vertebra", "n": 9, "patients": 4}


def _page(tmp_path: Path, studies: list[Study], *, pictures: bool = True, **options: str) -> str:
    results = write_results(str(tmp_path / "results"), studies, pictures=pictures)
    write_report(results, tmp_path / "report.html", **options)
    return (tmp_path / "report.html").read_text()


def _words(page: str) -> str:
    """The page as it reads: no style, no markup, single spaces."""
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", text)


def _evaluation(folder: Path, **changes: object) -> str:
    folder.mkdir()
    measures = [
        MEASURE
        | {
            "task": "bone_quality",
            "measure": "sensitivity",
            "label": "lytic",
            "value": 0.83,
            "low": 0.61,
            "high": 0.94,
        },
        MEASURE
        | {
            "task": "bone_quality",
            "measure": "sensitivity",
            "label": "normal",
            "value": None,
            "low": None,
            "high": None,
        },
        MEASURE
        | {
            "task": "bone_quality",
            "measure": "macro_sensitivity",
            "label": "",
            "value": 0.7,
            "low": None,
            "high": None,
        },
    ]
    confusions = [
        {"task": "bone_quality", "unit": "vertebra", "truth": truth, "predicted": call, "count": count}
        for truth, call, count in (
            ("normal", "normal", 30),
            ("normal", "lytic", 10),
            ("lytic", "normal", 1),
            ("lytic", "lytic", 5),
        )
    ]
    facts = {"model": MODEL, "patients": 4, "vertebrae": 46, "split": "test"}
    content = {"facts": facts, "measures": measures, "confusions": confusions} | changes
    (folder / "evaluation.json").write_text(json.dumps(content))
    return str(folder)


def test_a_level_of_one_patient_has_no_interval_and_says_so(tmp_path: Path) -> None:
    page = _page(tmp_path, [Study("p1", levels="L1=lytic ?1 ?2")])
    assert "unnamed 0.0 (too few) 0 2" in _words(page)
    assert "nan" not in page.lower()


def test_the_figures_of_the_study_flow_are_there(tmp_path: Path) -> None:
    words = _words(_page(tmp_path, COHORT))
    assert "3 studies screened, of 3 patients" in words
    assert "1 excluded sound, does not qualify 1 no spine in view" in words
    assert "1 failed broke while being read 1 truncated objects" in words
    assert "8 vertebrae evaluable, of 9 in view" in words
    assert "4 vertebrae called positive, in 2 patients" in words
    assert "L1 66.7 [9.4, 99.2] 2 3 0 0 3 0 1 1" in words, "level, rate, interval, counts by class"


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    page = _page(tmp_path, COHORT)
    assert not re.search(r"https?://|//[a-z]|url\(|@import|<script|<link", page.replace("http://www.w3.org", ""))
    assert all(target.startswith("data:image/png;base64,") for target in re.findall(r'(?:href|src)="([^"]*)"', page))


def test_keys_are_shortened(tmp_path: Path) -> None:
    page = _page(tmp_path, COHORT)
    assert PATIENT[:8] in page
    assert PATIENT[:9] not in page


def test_one_gallery_is_a_random_sample_and_the_other_the_least_decided(tmp_path: Path) -> None:
    """A sample of the positive studies alone would make every model look good, or every patient ill."""
    many = [*COHORT, *(Study(f"n{n}", levels="L1 L2", name=f"{n:04d}eeee") for n in range(3 * GALLERY_LIMIT))]
    page = _page(tmp_path, many)
    sample, uncertain = (re.findall(r"<header><b>(\w+)</b>", part) for part in page.split("The most uncertain spines"))
    assert len(sample) == len(uncertain) == GALLERY_LIMIT
    assert not set(sample) & set(uncertain)
    assert sample != sorted(sample), "in no order of the tables"
    write_report(str(tmp_path / "results"), tmp_path / "again.html")
    again = re.findall(r"<header><b>(\w+)</b>", (tmp_path / "again.html").read_text())
    assert again == [*sample, *uncertain]
    assert f"from the {len(many) - 2} studies with pictures" in _words(page)


def test_the_least_decided_study_comes_first(tmp_path: Path) -> None:
    results = write_results(str(tmp_path / "results"), COHORT, pictures=True)
    found = galleries(open_cohort(results), 1)
    (sample,), (first,) = found["sample"], found["uncertain"]
    closest = records(
        open_cohort(results),
        "select study, min(abs(p_normal - 0.5)) as near from current_vertebrae group by all order by near",
    )
    assert (
        abs(first["least_sure"]["p_normal"] - 0.5) == closest[0]["near"] or sample["study"] == closest[0]["study"][:8]
    )
    assert first["study"] == next(row["study"][:8] for row in closest if row["study"][:8] != sample["study"])


def test_a_card_marks_each_vertebra_at_its_row(tmp_path: Path) -> None:
    page = _page(tmp_path, [COHORT[0]])
    card = page[page.index('<article class="card">') : page.index("</article>")]
    assert [text.strip() for text in re.findall(r"<text[^>]*font-size=\"10.5\"[^>]*>([^<]+)", card)] == [
        "T12",
        "L1 L",
        "L2",
    ]
    assert re.findall(r'<text[^>]*y="([\d.]+)"[^>]*font-size="10.5"', card) == ["21.6", "53.6", "85.6"]
    assert "L1 lytic 0.71 · unilateral" in _words(card)
    assert "normal 0.09, blastic 0.03, mixed 0.17, lytic 0.71" in card
    assert 'viewBox="0 0 276 100"' in card, "110 + 46 + 120 by 100 mm"


def test_a_study_of_cut_vertebrae_alone_is_not_called_negative(tmp_path: Path) -> None:
    words = _words(_page(tmp_path, [Study("p1", levels="L1=cut L2=cut"), COHORT[2]]))
    assert "no vertebra could be judged" in words


def test_every_further_task_has_rows_and_chips(tmp_path: Path) -> None:
    results = write_results(str(tmp_path / "results"), COHORT, pictures=True, collapsed=["L1"])
    write_report(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    words = _words(page)
    assert "collapse yes 3 of 8 37.5" in words
    assert "posterolateral any finding 2 of 8 25.0" in words
    assert "unilateral 2 of 8 25.0" in words
    assert "blastic yes" not in words, "a part of bone quality is no finding of its own"
    assert "L1 lytic 0.71 · collapse · unilateral" in words
    assert "collapse yes 0.75" in page
    assert "Other tasks of the model" in words


def test_a_model_without_bone_quality_has_only_its_own_tasks(tmp_path: Path) -> None:
    results = write_results(str(tmp_path / "results"), COHORT, collapsed=["L1"], only=("collapse",))
    write_report(results, tmp_path / "report.html")
    words = _words((tmp_path / "report.html").read_text())
    assert "collapse yes 3 of 8 37.5" in words
    assert "By level" not in words


def test_results_without_pictures_and_without_a_screened_study(tmp_path: Path) -> None:
    assert "kept no pictures" in _page(tmp_path / "a", COHORT, pictures=False)
    empty = _words(_page(tmp_path / "b", COHORT[3:]))
    assert "No study has been screened yet" in empty
    assert "0 studies screened" in empty


def test_a_title_is_escaped(tmp_path: Path) -> None:
    page = _page(tmp_path, COHORT, title="<b>me</b> & you")
    assert "<b>me" not in page
    assert "&lt;b&gt;me&lt;/b&gt; &amp; you" in page


def test_an_evaluation_gets_a_section(tmp_path: Path) -> None:
    words = _words(_page(tmp_path, COHORT, evaluation=_evaluation(tmp_path / "evaluation")))
    assert "lytic 9 0.83 [0.61, 0.94]" in words
    assert "normal 9 – " in words
    assert "macro 0.70" in words
    assert "normal 30 75 % 10 25 % lytic 1 17 % 5 83 %" in words
    assert "not the model that read" not in words
    assert "How good the model is" not in _words(_page(tmp_path / "without", COHORT))


def test_another_models_evaluation_says_so(tmp_path: Path) -> None:
    facts = {"model": "ffffffffffff", "patients": 4, "vertebrae": 46, "split": "test"}
    where = _evaluation(tmp_path / "evaluation", facts=facts)
    assert "This is not the model that read the studies above" in _page(tmp_path, COHORT, evaluation=where)


def test_missing_places_are_bad_input_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="results"):
        write_report(str(tmp_path / "nowhere"), tmp_path / "report.html")
    results = write_results(str(tmp_path / "results"), COHORT)
    with pytest.raises(BadInput, match=r"evaluation\.json"):
        write_report(results, tmp_path / "report.html", evaluation=str(tmp_path))
    wrong = _evaluation(tmp_path / "evaluation", measures=[{}])
    with pytest.raises(BadInput, match="is not an evaluation that"):
        write_report(results, tmp_path / "report.html", evaluation=wrong)
    assert not (tmp_path / "report.html").exists()


def test_results_and_report_may_lie_on_s3(s3_bucket: str) -> None:
    results = write_results(f"{s3_bucket}/results", COHORT, pictures=True)
    write_report(results, f"{s3_bucket}/out/report.html")
    assert "3 studies screened" in _words(read_bytes(f"{s3_bucket}/out/report.html").decode())


def test_a_card_has_the_flags_of_its_study_and_vertebrae(tmp_path: Path) -> None:
    flagged = replace(COHORT[0], more={"flags": ["lossy", "of an earlier version"]})
    page = _page(tmp_path, [flagged])
    assert '<span title="The pixels went through lossy compression.">lossy</span>' in page
    assert '<span title="">of an earlier version</span>' in page
    assert ">disc_unclear T12</span>" in page


@pytest.mark.parametrize(("policy", "shown"), [("shifted", ""), ("exact", " · 2024"), ("year", " · 2024")])
def test_a_year_is_shown_only_if_it_is_the_true_one(tmp_path: Path, policy: str, shown: str) -> None:
    results = write_results(str(tmp_path / "results"), [COHORT[0]], pictures=True)
    place = open_results(results)
    place.write_run(place.runs()[0] | {"date_policy": policy, "trained_on": "phantoms"})
    write_report(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert f"61 years{shown} · 1.2 mm" in _words(page)
    assert '<p class="notice">The model was trained on phantoms: its calls' in page


def test_an_uncertain_posterolateral_call_has_its_question_mark(tmp_path: Path) -> None:
    page = _page(tmp_path, [Study("p1", levels="L1=lytic L2=lytic~")])
    assert "L1 lytic 0.71 · unilateral<" in page
    assert "L2 lytic 0.71 · unilateral?<" in page


def test_an_unsure_vertebra_has_its_own_cell_its_reason_and_no_chip(tmp_path: Path) -> None:
    page, reason = _page(tmp_path, [Study("p1", levels="L1=lytic! L2=blastic L3")]), Doubt.AMBIGUOUS.meaning
    assert f'fill="#fff3d6" stroke="#a87f00"><title>L1: unsure. {reason}</title>' in page
    assert page.count("#fff3d6") == 1
    assert f"unsure: {reason}" in page, "the words over the vertebra in the picture"
    words = _words(page)
    assert "1 whole, the call is unsure" in words
    assert "L2 blastic 0.74" in words
    assert "L1 lytic 0.71" not in words


def test_a_class_that_is_not_the_only_plausible_one_has_its_question_mark() -> None:
    row = {"level": "L1", "completeness": "whole", "unsure": "", "any_lesion": True, "flags": []}
    row |= {"canal_mm": 20.0, "height_mm": 25.0} | {measure.name: None for measure in MEASURES}
    calls = {"bone_quality": {"normal": 0.2, "lytic": 0.8}, "posterolateral": {"none": 0.1, "unilateral": 0.9}}
    sets: list[dict[str, set[str]]] = [{}, {"bone_quality": {"lytic"}, "posterolateral": set()}]
    marks = [_mark(row, calls, one) for one in sets]
    assert [(mark["call"], mark["further"]) for mark in marks] == [
        ("lytic", ["unilateral"]),
        ("lytic", ["unilateral?"]),
    ]


def test_the_page_says_what_it_is_about_and_how_to_read_it_again(tmp_path: Path) -> None:
    results = write_results(str(tmp_path / "results"), COHORT)
    write_report(results, tmp_path / "report.html")
    words = _words((tmp_path / "report.html").read_text())
    version = re.search(r"--as-of (\d+) reads it again", words)
    assert version is not None
    again = open_cohort(results, moment_of(results, version[1]))
    assert again.execute("select count(*) from current").fetchone() == (5,)
    assert "called positive the most probable class is not the negative one (argmax)" in words
    write_report(results, tmp_path / "rule.html", population=Population(rule=0.17))
    words = _words((tmp_path / "rule.html").read_text())
    assert "8 called positive, in 3 patients" in words
    assert "called positive p(lesion) &gt;= 0.17" in words


def test_the_flow_of_an_archive_that_was_listed_in_part_says_so(tmp_path: Path) -> None:
    results = write_results(str(tmp_path / "results"), COHORT)
    place = open_results(results)
    write_report(results, tmp_path / "report.html")
    assert "7 studies in the archive" in _words((tmp_path / "report.html").read_text())
    place.write_run(place.runs()[0] | {"study_limit": 5})
    write_report(results, tmp_path / "report.html")
    assert "5 studies read so far" in _words((tmp_path / "report.html").read_text())
