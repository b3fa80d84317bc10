from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from spinemet.cohort.disclosure import suppress
from spinemet.cohort.flow import study_flow
from spinemet.cohort.prevalence import prevalence
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from tests.cohort.cases import Study, write_results

CLASSES = ("blastic", "mixed", "lytic")
SHARED = ("n_patients", "n_imaged", "n_cut", "n_unsure", "n_evaluable")


def table(groups: dict[str, tuple[int, int, int, int, int]]) -> pd.DataFrame:
    """A prevalence by level of one task. groups: level -> evaluable, cut, blastic, mixed, lytic."""
    rows = []
    for level, (evaluable, cut, *classes) in groups.items():
        for finding, positive in zip(("any", *CLASSES), (sum(classes), *classes), strict=True):
            rows.append({
                "level": level, "finding": finding, "n_patients": evaluable + cut, "n_imaged": evaluable + cut,
                "n_cut": cut, "n_unsure": 0, "n_evaluable": evaluable, "n_positive": positive,
                "prevalence": positive / evaluable if evaluable else float("nan"), "ci_low": 0.1, "ci_high": 0.4,
                "interval": "wilson", "ledger_version": 7,
            })  # fmt: skip
    return pd.DataFrame(rows)


def shown(result: pd.DataFrame, level: str, finding: str, column: str) -> Any:
    (value,) = result[(result["level"] == level) & (result["finding"] == finding)][column]
    return None if pd.isna(value) else value


BIG = {"T1": (90, 0, 20, 30, 10), "T2": (80, 0, 25, 15, 12), "T3": (70, 0, 11, 13, 17)}


def test_counts_of_1_to_4_are_hidden_and_0_stays() -> None:
    made = table(BIG | {"T4": (60, 0, 0, 4, 5)})
    result = suppress(made, "prevalence")
    assert shown(result, "T4", "blastic", "n_positive") == 0
    assert shown(result, "T4", "mixed", "n_positive") is None
    assert result["ledger_version"].tolist() == [7] * 16
    pd.testing.assert_frame_equal(suppress(made, "prevalence", 1), made)


def test_linked_rates_and_intervals_go_with_their_count() -> None:
    result = suppress(table(BIG | {"T4": (60, 0, 20, 4, 15)}), "prevalence")
    hidden = result[result["n_positive"].isna()]
    assert len(hidden) >= 2
    assert hidden[["prevalence", "ci_low", "ci_high"]].isna().all(axis=None)
    assert result[result["n_positive"].notna()]["prevalence"].notna().all()


def test_a_total_less_the_others_gives_nothing_away() -> None:
    """`any` less the other classes would give the small one; so would the column's total less the other levels."""
    result = suppress(table(BIG | {"T4": (60, 0, 20, 4, 15)}), "prevalence")
    in_row = [shown(result, "T4", finding, "n_positive") for finding in ("any", *CLASSES)]
    in_column = [shown(result, level, "mixed", "n_positive") for level in (*BIG, "T4")]
    assert in_row.count(None) >= 2
    assert in_column.count(None) >= 2


def test_the_few_negatives_of_a_denominator_are_hidden_too() -> None:
    result = suppress(table(BIG | {"T4": (22, 0, 20, 0, 0)}), "prevalence")
    assert shown(result, "T4", "any", "n_positive") is None or shown(result, "T4", "any", "n_evaluable") is None
    assert shown(result, "T4", "any", "prevalence") is None


def test_two_small_counts_whose_sum_leaves_no_choice_need_a_third() -> None:
    """1 + 1 = 2: with the total known, both are 1."""
    groups = {"T1": (50, 0, 1, 0, 10), "T2": (60, 0, 1, 0, 12), "T3": (70, 0, 20, 0, 17), "T4": (80, 0, 30, 0, 9)}
    result = suppress(table(groups), "prevalence")
    assert [shown(result, level, "blastic", "n_positive") for level in groups].count(None) >= 3


def test_of_fewer_than_five_patients_no_count_is_shown() -> None:
    made = table(BIG | {"T4": (30, 3, 12, 0, 9)})
    made.loc[made["level"] == "T4", "n_patients"] = 2
    result = suppress(made, "prevalence")
    assert shown(result, "T4", "any", "n_imaged") is None
    assert result[result["level"] == "T4"]["n_positive"].isna().tolist() == [True, True, False, True]


def test_a_table_without_small_counts_is_left_as_it_is() -> None:
    made = table(BIG)
    pd.testing.assert_frame_equal(suppress(made, "prevalence"), made, check_dtype=False)
    with pytest.raises(BadInput, match="expected --min-cell of at least 0, found -1"):
        suppress(made, "prevalence", -1)


def test_another_measure_is_taken_as_counts_with_totals() -> None:
    made = pd.DataFrame({"sex": ["F", "M", "O"], "n_patients": [40, 50, 2], "mean_hu": [150.0, 140.0, 120.0]})
    result = suppress(made, "density")
    assert result["n_patients"].isna().tolist() == [True, False, True]  # 92 - 90 = 2
    assert result["mean_hu"].isna().tolist() == [True, False, True]


def test_transitions_hide_a_small_one_and_another_of_the_same_class_before() -> None:
    after = {"normal": (58, 3, 20, 0), "lytic": (6, 0, 8, 30)}
    made = pd.DataFrame([
        {"before": before, "after": name, "n_patients": 13, "n_before": sum(counts), "n_after": count, "share": 0.1}
        for before, counts in after.items()
        for name, count in zip(("normal", "blastic", "mixed", "lytic"), counts, strict=True)
    ])  # fmt: skip
    result = suppress(made, "transitions")
    hidden = result[result["n_after"].isna()]
    assert ("normal", "blastic") in set(zip(hidden["before"], hidden["after"], strict=True))
    assert result[result["before"] == "normal"][["n_before", "n_after"]].isna().sum().sum() >= 2
    assert result[result["n_after"].isna()]["share"].isna().all()


def test_a_survival_curve_is_refused_and_expected_numbers_are_no_counts() -> None:
    curve = pd.DataFrame({"day": [204, 300], "n_at_risk": [20, 15], "free": [0.9, 0.8]})
    with pytest.raises(BadInput, match="cannot protect a survival curve"):
        suppress(curve, "survival")
    rates = pd.DataFrame({"n_patients": [30], "n_events": [9], "n_by_error": [2.4], "incidence": [800.0]})
    pd.testing.assert_frame_equal(suppress(rates, "incidence"), rates, check_dtype=False)


def test_the_flow_hides_small_steps_and_what_they_are_the_difference_of(tmp_path: Path) -> None:
    people = [Study(f"p{n}", levels="T12 L1=lytic") for n in range(30)]
    people += [Study("p99", state="failed", reason="truncated"), Study("p98", state="excluded", reason="localizer")]
    made = study_flow(open_cohort(write_results(str(tmp_path), people))).table()
    result = suppress(made, "flow")
    place = made.index[made["step"].str.startswith("failed")][0]
    assert made["studies_out"][place] == 1
    assert result["studies_out"].isna()[place]
    assert result["studies"].isna()[place] or result["studies"].isna()[place - 1]


def test_a_real_table_keeps_what_can_be_kept(tmp_path: Path) -> None:
    people = [
        Study(f"p{n}", levels=f"T12{'=lytic' if n % 3 else ''} L1{'=blastic' if n < 2 else ''}") for n in range(40)
    ]
    cohort = open_cohort(write_results(str(tmp_path), people))
    result = suppress(prevalence(cohort), "prevalence")
    assert shown(result, "L1", "blastic", "n_positive") is None
    assert shown(result, "T12", "any", "n_evaluable") == 40
    assert shown(result, "T12", "mixed", "n_positive") == 0


counts = st.integers(0, 14)
group = st.tuples(st.integers(0, 12), st.sampled_from([0, 0, 1, 7]), counts, counts, counts)


@settings(max_examples=20)
@given(st.lists(group, min_size=2, max_size=5))
@example([(0, 0, 0, 0, 0), (0, 0, 0, 0, 5), (1, 0, 0, 0, 1)])  # nothing is left out of what is imaged
def test_no_attacker_with_all_totals_computes_a_hidden_small_count(groups: list[tuple[int, ...]]) -> None:
    """An attack of its own: bounds of every small count by linear programming, from the print and all totals."""
    made = table({f"T{n}": (sum(one[2:]) + one[0], one[1], *one[2:]) for n, one in enumerate(groups, 1)})
    result = suppress(made, "prevalence")
    attack = Attacker(made, result)
    for name in attack.small():
        assert attack.can_differ(name), f"{name} is determined"


class Attacker:
    """What stands in print and every total, as equations over the counts that do not."""

    def __init__(self, true: pd.DataFrame, printed: pd.DataFrame, least: int = 5) -> None:
        self.names: dict[tuple[str, str, str], float] = {}
        self.least, self.known = least, dict[tuple[str, str, str], bool]()
        for (_, real), (_, said) in zip(true.iterrows(), printed.iterrows(), strict=True):
            level, finding = str(real["level"]), str(real["finding"])
            for column in SHARED:
                self.names[level, "", column] = real[column]
                self.known[level, "", column] = not pd.isna(said[column])
            self.names[level, finding, "n_positive"] = real["n_positive"]
            self.known[level, finding, "n_positive"] = not pd.isna(said["n_positive"])
            self.names[level, finding, "negative"] = real["n_evaluable"] - real["n_positive"]
            self.known[level, finding, "negative"] = False
        self.order = {name: place for place, name in enumerate(self.names)}
        levels = sorted({name[0] for name in self.names})
        self.rows: list[dict[tuple[str, str, str], int]] = []
        for level in levels:
            whole = (level, "", "n_evaluable")
            self.rows.append(
                {(level, "", "n_imaged"): 1, whole: -1, (level, "", "n_cut"): -1, (level, "", "n_unsure"): -1}
            )
            self.rows.append({(level, "any", "n_positive"): 1} | {(level, one, "n_positive"): -1 for one in CLASSES})
            for one in ("any", *CLASSES):
                self.rows.append({whole: 1, (level, one, "n_positive"): -1, (level, one, "negative"): -1})
        sums = true.groupby("finding", sort=False)[[*SHARED, "n_positive"]].sum().reset_index()
        totals = suppress(sums, "prevalence").set_index("finding")
        for finding, column in [("", one) for one in SHARED] + [(one, "n_positive") for one in ("any", *CLASSES)]:
            if not pd.isna(totals.loc[finding or "any", column]):
                self.rows.append({(level, finding, column): 1 for level in levels})

    def small(self) -> list[tuple[str, str, str]]:
        return [name for name, value in self.names.items() if 0 < value < self.least]

    def can_differ(self, name: tuple[str, str, str]) -> bool:
        left = np.array([[row.get(one, 0) for one in self.names] for row in self.rows], float)
        truth = np.array(list(self.names.values()), float)
        bounds = [
            (value, value) if self.known[one]
            else (0, None) if one[2] == "negative"
            else (1, self.least - 1) if 0 < value < self.least
            else (1, None)
            for one, value in self.names.items()
        ]  # fmt: skip
        goal = np.zeros(len(truth))
        for sign in (1, -1):
            goal[self.order[name]] = sign
            solved = linprog(goal, A_eq=left, b_eq=left @ truth, bounds=bounds, method="highs")
            if solved.status == 3 or abs(solved.x[self.order[name]] - self.names[name]) > 0.999:
                return True
        return self.nothing_left(name)

    def nothing_left(self, name: tuple[str, str, str]) -> bool:
        """Whether every count but zeros is hidden already: then only totals from elsewhere tell."""
        return not any(self.known[one] and value for one, value in self.names.items() if one[1:] != ("", "n_patients"))
