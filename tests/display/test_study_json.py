import json
from dataclasses import replace

from spinemet.display.study_json import flag_lines, study_json
from spinemet.errors import Reason
from spinemet.reading import Doubt, NotScreened, State
from tests.readings import SECRETS, SERIES, call, reading


def test_a_screened_study_with_calls() -> None:
    answer = study_json(
        reading(levels=["T12", "L1"], cut=["T12"]), [call("normal"), call("lytic", "bilateral", probability=0.8)]
    )
    assert (answer["state"], answer["reason"]) == ("screened", None)
    assert answer["series"]["pixel_spacing_mm"] == [0.7, 0.8]
    assert answer["series"]["slices"] == 120
    first, second = answer["vertebrae"]
    assert (first["level"], first["completeness"], first["trabecular_hu"]) == ("T12", "cut", None)
    assert second["center_mm"] == [1.0, 2.0, -30.0]
    assert (second["bone_quality"], second["posterolateral"]) == ("lytic", "bilateral")
    assert second["probabilities"]["bone_quality"]["lytic"] == 0.8
    assert second["slices"] == 3


def test_without_a_model_there_are_no_calls() -> None:
    vertebra = study_json(reading(levels=["L1"]), None)["vertebrae"][0]
    assert vertebra["bone_quality"] is vertebra["posterolateral"] is vertebra["probabilities"] is None


def test_an_excluded_study_has_its_reason_and_the_rejected_series() -> None:
    seen = ((SERIES, Reason.LOCALIZER),)
    answer = study_json(NotScreened(State.EXCLUDED, Reason.NO_SERIES, "none left.", series_seen=seen), None)
    assert (answer["state"], answer["reason"], answer["series"], answer["vertebrae"]) == (
        "excluded",
        "no_series",
        None,
        [],
    )
    assert [series["reason"] for series in answer["series_rejected"]] == ["localizer"]


def test_the_json_has_no_identifiers() -> None:
    text = json.dumps(study_json(reading(levels=["T12", "L1"]), [call("normal"), call("mixed")]), allow_nan=False)
    assert not any(word in text for word in SECRETS)


def test_the_json_says_what_the_model_was_trained_on() -> None:
    assert study_json(reading(), None)["trained_on"] is None
    assert study_json(reading(), None, "phantoms")["trained_on"] == "phantoms"


def test_the_json_says_which_calls_are_unsure_and_why() -> None:
    sets = {"bone_quality": ("normal", "lytic"), "posterolateral": ()}
    calls = [
        replace(call("lytic"), doubt=Doubt.AMBIGUOUS, is_judged=True, plausible=sets),
        replace(call("normal"), is_judged=True),
        call("normal"),
    ]
    unsure, sure, silent = study_json(reading(levels=["T12", "L1", "L2"]), calls)["vertebrae"]
    assert (unsure["bone_quality"], unsure["unsure"]) == ("lytic", "ambiguous")
    assert unsure["plausible"] == {"bone_quality": ["normal", "lytic"], "posterolateral": []}
    assert (sure["unsure"], sure["plausible"]) == ("", None)
    assert silent["unsure"] is None, "this model does not say"


def test_unnamed_levels_are_explained() -> None:
    lines = list(flag_lines(reading(levels=["T12", "?1", "?2"])))
    assert lines[-1].startswith("unnamed (?1 to ?2): Nothing in view proves these levels")
    assert not any("unnamed" in line for line in flag_lines(reading(levels=["T12"])))
