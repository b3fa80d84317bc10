"""Recipes are trained over folds, finished fits are kept, and the table agrees with the stored calls."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spinemet.config import changed
from spinemet.errors import BadInput
from spinemet.evaluation import ablation, sources
from spinemet.evaluation.ablation import Fit, Plan, ablate, run_fit, summarize, unfinished, write_ablation
from spinemet.evaluation.page import Page
from spinemet.evaluation.sources import Folds, Sizes, check_truth
from spinemet.files import claim
from spinemet.model.tasks import TASKS
from spinemet.statistics.measures import auc
from spinemet.training.crops import Crops
from tests.training.lesions import made_up_crops, small_recipe

FOLDS = 2
PLAN = Plan(crops_digest="a", truth_digest="b", folds=FOLDS)
BASELINE = small_recipe(name="base", epochs=1)
OTHER = small_recipe(name="other", epochs=2)
FITS = [Fit(recipe, f"fold{fold}", seed) for seed in (0, 1) for fold in range(FOLDS) for recipe in (BASELINE, OTHER)]


def relabelled(crops: Crops) -> Crops:
    """The crops with every blastic label changed to lytic."""
    words = crops.table["bone_quality"].replace("blastic", "lytic")
    return Crops(crops.hu_NHW, crops.table.assign(bone_quality=words), crops.info)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with all fits except the last one, trained on relabelled crops."""
    out, truth = str(tmp_path_factory.mktemp("ablation")), made_up_crops()
    for fit in FITS[:-1]:
        run_fit(fit, Folds(relabelled(truth), truth, FOLDS), out)
    return out


def calls(out: str, fit: Fit) -> pd.DataFrame:
    return pd.read_parquet(Path(out) / fit.key / "vertebrae.parquet")


def test_a_fit_calls_only_the_patients_of_its_fold_and_is_measured_against_the_truth(out: str) -> None:
    parts = [calls(out, fit) for fit in FITS[:4:2]]
    assert not set(parts[0]["patient"]) & set(parts[1]["patient"])
    assert sorted({*parts[0]["patient"], *parts[1]["patient"]}) == sorted(set(made_up_crops().table["patient"]))
    both = pd.concat(parts)
    assert (both["bone_quality_true"] == "blastic").sum() == 18
    assert not (both["bone_quality_called"] == "blastic").any()  # it never saw one


def test_a_finished_fit_is_kept_and_another_recipe_of_its_name_is_refused(out: str) -> None:
    assert unfinished(out, FITS) == FITS[-1:]
    with pytest.raises(BadInput, match="use another folder"):
        unfinished(out, [Fit(small_recipe(name="base", epochs=3), "fold0", 0)])


def test_an_ablation_runs_only_missing_fits(out: str, tmp_path: Path) -> None:
    truth, place = made_up_crops(), str(shutil.copytree(out, tmp_path / "copy"))
    crops, ran, shown = relabelled(truth), [], []

    def run_fits(fits: Sequence[Fit]) -> Iterator[Fit]:
        for fit in fits:
            run_fit(fit, Folds(crops, truth, FOLDS), place)
            ran.append(fit)
            yield fit

    def again(truth: Crops = truth) -> Page:
        recipes = [BASELINE, OTHER]
        data = Folds(crops, truth, FOLDS)
        return ablate(data, place, recipes, [0, 1], run_fits, lambda *each: shown.append(each))

    page = again()
    assert ran == FITS[-1:]
    assert shown == [(7, 8, "finished before"), (8, 8, FITS[-1].key.removeprefix("fits/"))]
    assert page.markdown() == Path(place, "ablation.md").read_text() == again().markdown()
    assert ran == FITS[-1:]
    with pytest.raises(BadInput, match="must hold the same slices"):
        again(made_up_crops(patients=4))


def test_the_table_counts_complete_seeds_and_pairs_differences(out: str) -> None:
    table = summarize(out, FITS, Folds(made_up_crops(), made_up_crops(), FOLDS), "base").set_index(
        ["recipe", "task", "unit", "measure", "label"]
    )
    assert table.loc["base", "seeds"].eq(2).all()
    assert table.loc["other", "seeds"].eq(1).all()
    base, other = (
        [pd.concat([calls(out, fit) for fit in FITS if (fit.recipe.name, fit.seed) == (name, seed)]) for seed in seeds]
        for name, seeds in (("base", (0, 1)), ("other", (0,)))
    )

    def share(tables: list[pd.DataFrame]) -> float:
        normal = [one[one["bone_quality_true"] == "normal"] for one in tables]
        return float(np.mean([(one["bone_quality_called"] == "normal").mean() for one in normal]))

    row = table.loc["other", "bone_quality", "vertebra", "sensitivity", "normal"]
    assert row["value"] == pytest.approx(share(other))
    assert row["difference"] == pytest.approx(share(other) - share(base))
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert table.loc["base", "difference"].isna().all()


def test_a_task_that_the_baseline_lacks_has_no_difference(tmp_path: Path) -> None:
    more = small_recipe(name="more", epochs=1)
    whole = [task for task in TASKS if task.name == "bone_quality"]
    less = small_recipe(
        name="less",
        epochs=1,
        model=changed(more.model, tasks=(changed(whole[0], fuses=()),)).model_dump(),
    )
    fits, crops = [Fit(one, f"fold{n}", 0) for n in range(FOLDS) for one in (less, more)], made_up_crops(patients=8)
    data = Folds(crops, crops, FOLDS)
    for fit in fits:
        run_fit(fit, data, str(tmp_path))
    text = write_ablation(str(tmp_path), fits, data, PLAN).markdown()
    table = pd.read_parquet(io.BytesIO((tmp_path / "ablation.parquet").read_bytes()))
    found = table.set_index(["recipe", "task", "measure", "label"])
    assert found.loc[("more", "bone_quality", "sensitivity", "lytic"), "difference"].notna().all()
    assert found.loc[("more", "posterolateral", "sensitivity", "none"), "value"].notna().all()
    assert found.loc[("more", "posterolateral"), "difference"].isna().all()
    assert "| *the paper's final model* | | per vertebra | +12.33 | +23.21 | +34.25 | | |" in text
    assert "| more | 1 | per vertebra |" in text
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_fit_goes_on_from_its_stored_state(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "STATE_EVERY_S", 0.0)
    fit, data = Fit(small_recipe(name="lost", epochs=3), "fold0", 0), Folds(made_up_crops(), made_up_crops(), FOLDS)
    run_fit(fit, data, str(tmp_path / "whole"))
    assert not (tmp_path / "whole" / fit.key / "state.pt").exists()

    class Lost(Exception):
        pass

    def dies(*_: object) -> None:
        raise Lost

    with monkeypatch.context() as patched:
        patched.setattr(ablation, "predictions", dies)
        with pytest.raises(Lost):
            run_fit(fit, data, str(tmp_path / "lost"))
    assert (tmp_path / "lost" / fit.key / "state.pt").exists()
    run_fit(fit, data, str(tmp_path / "lost"))
    pd.testing.assert_frame_equal(calls(str(tmp_path / "lost"), fit), calls(str(tmp_path / "whole"), fit))


def test_sets_and_plans_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="must hold the same slices"):
        check_truth(made_up_crops(patients=4), made_up_crops(patients=5))
    place = str(tmp_path / "plan.json")
    claim(place, PLAN)
    claim(place, PLAN)
    with pytest.raises(BadInput, match="folds is 2, not 3; use another folder"):
        claim(place, changed(PLAN, folds=3))


# ---- training sets of the benchmark ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Sizes]:
    """The fits of two recipes to two training sets; patients p00 to p07 are to train on, p08 to p11 to validate on."""
    out, crops = str(tmp_path_factory.mktemp("curve")), made_up_crops(patients=12)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sources, "split_of", split_of_made_up)
        data = Sizes(crops, made_up_crops(patients=6, seed=9), (4, 8))
        for fit in fits_of(data):
            run_fit(fit, data, out)
    return out, data


def split_of_made_up(patients: int) -> dict[str, str]:
    train = {f"p{n:02d}": "train" for n in range(patients)}
    return train | {f"p{n:02d}": "validation" for n in range(8, 12)}


def fits_of(data: Sizes) -> list[Fit]:
    return [Fit(one, part, 0) for (part,) in data.parts() for one in (BASELINE, OTHER)]


def test_training_sets_are_nested_and_share_validation_and_test_patients(benchmark: tuple[str, Sizes]) -> None:
    out, data = benchmark
    parts = [pd.read_parquet(Path(out) / fit.key / "vertebrae.parquet") for fit in fits_of(data)]
    assert all(one["patient"].tolist() == parts[0]["patient"].tolist() for one in parts)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sources, "split_of", split_of_made_up)
        small, large = (data.of(part, BASELINE)[0].split for (part,) in data.parts())
    assert set(small["train"]) < set(large["train"])
    assert small["validation"] == large["validation"]


def test_a_benchmark_with_too_few_patients_is_refused() -> None:
    with pytest.raises(BadInput, match=r"expected the benchmark's 80 patients to train on .* found 180 fewer"):
        Sizes(made_up_crops(), made_up_crops(), (80,))


def test_the_primary_measures_agree_with_the_stored_calls(benchmark: tuple[str, Sizes]) -> None:
    out, data = benchmark
    table = summarize(out, fits_of(data), data, "base").set_index(["patients", "recipe", "task", "measure", "label"])
    for fit in fits_of(data):
        calls = pd.read_parquet(Path(out) / fit.key / "vertebrae.parquet")
        found = table.loc[data.patients(fit.part), fit.recipe.name, "bone_quality"]["value"]
        score, lesion = 1 - calls["bone_quality_p_normal"], calls["bone_quality_true"] != "normal"
        assert found["lesion_auc", ""] == pytest.approx(float(auc(score, lesion.to_numpy())[0]))
        right = calls["bone_quality_at_threshold"] == calls["bone_quality_true"]
        shares = right.groupby(calls["bone_quality_true"]).mean()
        assert found["macro_lesion_sensitivity_at_threshold", ""] == pytest.approx(shares.drop("normal").mean())
        assert found["specificity_at_threshold", ""] == pytest.approx(shares["normal"])


def test_the_page_and_the_curve_show_every_training_set(benchmark: tuple[str, Sizes]) -> None:
    out, data = benchmark
    text = write_ablation(out, fits_of(data), data, changed(PLAN, folds=0)).markdown()
    for size in (4, 8):
        assert f"| {size} | other | 1 |" in text
        assert f"trained on {size} patients" in text
    assert Path(out, "curve.png").read_bytes().startswith(b"\x89PNG")
