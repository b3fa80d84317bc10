"""Small cells of a measure's table hidden, together with everything from which they could be computed back.

A count of 1 to N - 1 can point to a person, so it is hidden; 0 stays, as in omopgenerics' `suppress`. That is not
enough: a hidden count is the total less the others, the denominator less its complement, or a rate times its
denominator. Here the table is a system of equations over whole counts. As long as a small count has only one value
that fits everything in print, one more count is hidden.

The assumed attacker knows this method, the limit N, which counts were hidden for being small, and the totals and
subtotals of the table over its groups that an answer by fewer columns would show. Not covered: answers grouped by other
columns, and populations that differ by a patient (publish one of such answers, not both).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import linprog
from scipy.sparse import csr_matrix

from spinemet.cohort.prevalence import SOURCE
from spinemet.errors import BadInput
from spinemet.results.schemas import Row

MIN_CELL = 5
"""The least count that an export shows, by default: 1 to 4 are hidden."""
_MARGIN = 1 - 1e-6
"""Another whole count is possible if a solution of the equations differs by so much."""
_ROUNDS = 4
"""Joint attempts to show that counts are not determined, before one attempt for each."""
_CANDIDATES = 6
"""Counts near an exposed one that are tried as its companion."""

Cell = tuple[Any, ...]
"""Names a count: (keys of the row or of its group, column)."""


@dataclass(frozen=True)
class Structure:
    """How the counts of a measure's table hang together.

    wholes: column -> columns that add up to at most it. of_group: counts that every finding of a group repeats.
    finding: the column that tells the findings of a group apart; of a prevalence, `any` is about all others.
    rates_from: the counts that every other number of a row comes from; empty for all. running: (rest, out): `rest` is
    the `rest` of the row before less `out`. parted: (whole, part): over all findings `part` adds up to `whole`.
    """

    wholes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    of_group: tuple[str, ...] = ()
    finding: str = ""
    rates_from: tuple[str, ...] = ()
    running: tuple[tuple[str, str], ...] = ()
    parted: tuple[str, str] | None = None


STRUCTURES: dict[str, Structure] = {
    "prevalence": Structure(
        wholes={"n_imaged": ("n_cut", "n_unsure", "n_evaluable"), "n_evaluable": ("n_positive",)},
        of_group=("n_patients", "n_imaged", "n_cut", "n_unsure", "n_evaluable"),
        finding="finding",
        rates_from=("n_evaluable", "n_positive"),
    ),
    "transitions": Structure(of_group=("n_patients", "n_before"), finding="after", parted=("n_before", "n_after")),
    "flow": Structure(running=tuple((unit, f"{unit}_out") for unit in ("studies", "patients", "vertebrae"))),
}
"""Measure -> its structure; a measure that is not in here is taken as a table of counts with totals."""

_ALL = "any"
_NUMBERS_AS_KEYS = frozenset({"year", "time", "days", "years", *SOURCE})


def suppress(table: pd.DataFrame, measure: str, min_cell: int = MIN_CELL) -> pd.DataFrame:
    """`table` of a measure without its small counts and what would give them away; hidden numbers are missing values.

    measure: a name of STRUCTURES or any other. min_cell: the least count that is shown; 0 and 1 show all. Raises
    BadInput if it is negative.
    """
    if min_cell < 0:
        raise BadInput(f"expected --min-cell of at least 0, found {min_cell}.")
    if min_cell <= 1 or table.empty:
        return table
    if measure == "survival":
        raise BadInput(
            "--min-cell cannot protect a survival curve: its steps give the counts of single days away. "
            "Give --min-cell 0, and publish it only where small counts may be shown."
        )
    structure = STRUCTURES.get(measure, Structure())
    columns = counts_of(table, structure)
    system = _System(table, structure, columns, min_cell)
    system.protect()
    shown = table.copy()
    for column in columns:
        shown[column] = shown[column].astype("Int64")
        shown.loc[[system.cell(place, column) in system.hidden for place in range(len(table))], column] = pd.NA
    sources = list(structure.rates_from or columns)
    numbers = [
        name for name in table.select_dtypes("number").columns if name not in columns and name not in _NUMBERS_AS_KEYS
    ]
    unknown = shown[[name for name in sources if name in shown]].isna().any(axis=1)
    for name in numbers:
        shown[name] = shown[name].astype(float).mask(unknown)
    return shown


def counts_of(table: pd.DataFrame, structure: Structure) -> list[str]:
    """The columns of counts: whole numbers named `n_…` (an expected number is none), and those of a running total."""
    running = {name for pair in structure.running for name in pair}
    whole = {name for name in table.columns if name.startswith("n_") and pd.api.types.is_integer_dtype(table[name])}
    return [name for name in table.columns if name in whole | running]


def keys_of(table: pd.DataFrame, structure: Structure) -> list[str]:
    """The columns that name a row or its group: those before the counts, without that of the finding."""
    names = list(table.columns)
    first = min((names.index(name) for name in counts_of(table, structure)), default=len(names))
    return [name for name in names[:first] if name != structure.finding]


class _System:
    """The counts of a table, and the equations between them that anybody knows.

    A count is printed or, like the negatives of a denominator, only implied. `hidden` holds the printed counts that are
    not shown.
    """

    def __init__(self, table: pd.DataFrame, structure: Structure, columns: Sequence[str], least: int) -> None:
        self._structure, self._least = structure, least
        self._keys = keys_of(table, structure)
        self._rows: list[Row] = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
        self.values: dict[Cell, int] = {}
        self.equations: list[tuple[dict[Cell, int], int]] = []
        self._equations_of: dict[Cell, list[int]] = {}
        self._implied: set[Cell] = set()
        self._harmless: set[Cell] = set()
        for place, row in enumerate(self._rows):
            for column in columns:
                self.values[self.cell(place, column)] = int(row[column])
        for place in range(len(self._rows)):
            self._relate_row(place)
        self._relate_findings()
        if structure.parted:
            self._relate_parts(*structure.parted)
        self._relate_totals(table, columns)
        self.small = {cell for cell, value in self.values.items() if 0 < value < least} - self._harmless
        self.hidden = self.small - self._implied
        for place, row in enumerate(self._rows):  # counts of vertebrae of fewer than N patients
            if 0 < row.get("n_patients", 0) < least:
                self.hidden |= {cell for c in columns if self.values[cell := self.cell(place, c)]}

    def cell(self, place: int, column: str) -> Cell:
        """The name of the count in a row and a column of the table."""
        row = self._rows[place]
        return self.named([row[name] for name in self._keys], row, place, column)

    def named(self, keys: Sequence[Any], row: Row, place: int, column: str) -> Cell:
        """The name of a count; without keys and findings a row goes by its place."""
        if column in self._structure.of_group:
            return (*keys, column)
        if self._structure.finding:
            return (*keys, row[self._structure.finding], column)
        return (*keys, column) if keys else (place, column)

    def protect(self) -> None:
        """Hide more counts until no small one is determined, or nothing is left to hide beside it."""
        attack, hopeless = _Attack(self), set[Cell]()
        while exposed := [cell for cell in self._exposed(attack) if cell not in hopeless]:
            for cell in exposed:
                if attack.determines(cell):
                    found = self._companion(cell, attack)
                    self.hidden |= {found} if found else set()
                    hopeless |= set() if found else {cell}

    # ---- equations ------------------------------------------------------------------------------------------------

    def _add(self, terms: Mapping[Cell, int], total: int) -> None:
        self.equations.append((dict(terms), total))

    def _imply(self, name: Cell, value: int, *, harmless: bool = False) -> Cell:
        """A count that is not printed. harmless: it points to nobody, whatever it is."""
        self.values[name] = value
        self._implied.add(name)
        if harmless:
            self._harmless.add(name)
        return name

    def _relate_row(self, place: int) -> None:
        for whole, parts in self._structure.wholes.items():
            cells = [self.cell(place, part) for part in parts]
            top = self.cell(place, whole)
            terms = {top: 1} | dict.fromkeys(cells, -1)
            if len(parts) == 1 or not self._adds_up(whole, parts):
                terms[self._imply((*cells[-1], "others"), self.values[top] - self._sum(cells))] = -1
            self._add(terms, 0)
        for rest, out in self._structure.running:
            if place:
                before = self.cell(place - 1, rest)
                self._add({before: 1, self.cell(place, rest): -1, self.cell(place, out): -1}, 0)

    def _adds_up(self, whole: str, parts: Sequence[str]) -> bool:
        """Whether nothing but `parts` makes up `whole` in any row: a reader may guess that."""
        return all(row[whole] == sum(row[part] for part in parts) for row in self._rows)

    def _relate_parts(self, whole: str, part: str) -> None:
        groups: dict[Cell, set[Cell]] = {}
        for place in range(len(self._rows)):
            groups.setdefault(self.cell(place, whole), set()).add(self.cell(place, part))
        for top, cells in groups.items():
            if self.values[top] == self._sum(cells):
                self._add({top: 1} | dict.fromkeys(cells, -1), 0)

    def _relate_findings(self) -> None:
        """The finding about all others: their sum if each unit has one of them, else at most their sum."""
        if self._structure.finding != "finding":
            return
        groups: dict[Cell, dict[str, Cell]] = {}
        for place, row in enumerate(self._rows):
            cell = self.cell(place, "n_positive")
            groups.setdefault(cell[:-2], {})[str(row[self._structure.finding])] = cell
        with_all = [
            (found[_ALL], [cell for name, cell in found.items() if name != _ALL])
            for found in groups.values()
            if _ALL in found
        ]
        exclusive = all(self.values[top] == self._sum(parts) for top, parts in with_all)
        for top, parts in with_all:
            terms = {top: 1} | dict.fromkeys(parts, -1)
            if not exclusive:
                several = self._imply((*top, "several"), self._sum(parts) - self.values[top], harmless=True)
                terms[several] = 1
                for part in parts:
                    other = self._imply((*part, "other"), self.values[top] - self.values[part], harmless=True)
                    self._add({top: 1, part: -1, other: -1}, 0)
            self._add(terms, 0)

    def _relate_totals(self, table: pd.DataFrame, columns: Sequence[str]) -> None:
        """The sums over the groups, in all and for each value of some of the keys, as far as their table shows them."""
        if self._structure.running:
            return
        findings = [self._structure.finding] if self._structure.finding else []
        for kept in (one for size in range(len(self._keys)) for one in combinations(self._keys, size)):
            by = [*kept, *findings]
            frame = table.astype(dict.fromkeys(by, object))
            sums = frame.groupby(by, sort=False)[list(columns)].sum() if by else frame[list(columns)].sum().to_frame().T
            coarse = _System(sums.reset_index(drop=not by), self._structure, columns, self._least)
            coarse.protect()
            parts: dict[Cell, set[Cell]] = {}
            for place, row in enumerate(self._rows):
                for column in columns:
                    total = coarse.named([row[name] for name in kept], row, 0, column)
                    parts.setdefault(total, set()).add(self.cell(place, column))
            for total, cells in parts.items():
                if total not in coarse.hidden:
                    self._add(dict.fromkeys(cells, 1), self._sum(cells))

    def _sum(self, cells: Sequence[Cell] | set[Cell]) -> int:
        return sum(self.values[cell] for cell in cells)

    # ---- attack ---------------------------------------------------------------------------------------------------

    def _exposed(self, attack: _Attack) -> list[Cell]:
        """The small counts for which only one value fits everything in print."""
        left = [cell for cell in self.values if cell in self.small and self.is_unknown(cell)]
        random = np.random.default_rng(0)
        for _ in range(_ROUNDS):
            if left:
                left = attack.unmoved(left, random.choice([-1.0, 1.0], len(left)))
        return [cell for cell in left if attack.determines(cell)]

    def _companion(self, exposed: Cell, attack: _Attack) -> Cell | None:
        """The count to hide beside an exposed one: the smallest of those near it that saves it, else the smallest."""
        reached, frontier, near = {exposed}, {exposed}, list[Cell]()
        while frontier and len(near) < _CANDIDATES:
            ring = {cell for one in frontier for cell in self._neighbours(one)} - reached
            shown = [c for c in ring if not self.is_unknown(c) and self.values[c]]
            near += sorted(shown, key=lambda cell: (self.values[cell], str(cell)))
            reached |= ring
            frontier = ring
        for candidate in near[:_CANDIDATES]:
            self.hidden.add(candidate)
            saved = not attack.determines(exposed)
            self.hidden.remove(candidate)
            if saved:
                return candidate
        return near[0] if near else None

    def _neighbours(self, cell: Cell) -> set[Cell]:
        """The counts that stand in an equation with `cell`."""
        if not self._equations_of:
            for place, (terms, _) in enumerate(self.equations):
                for one in terms:
                    self._equations_of.setdefault(one, []).append(place)
        return {one for place in self._equations_of.get(cell, ()) for one in self.equations[place][0]}

    def is_unknown(self, cell: Cell) -> bool:
        """Whether a count does not stand in print."""
        return cell in self.hidden or cell in self._implied

    def bounds(self, cell: Cell) -> tuple[float, float]:
        """What the attacker knows of a count; kept near the truth, which only makes him stronger."""
        if not self.is_unknown(cell):
            return float(self.values[cell]), float(self.values[cell])
        most = self.values[cell] + 10.0 * self._least
        if cell in self._implied:
            return 0.0, most
        if cell in self.small:
            return 1.0, self._least - 1.0
        return 1.0, most


class _Attack:
    """The linear programme of one table: its equations, with the bounds of what is hidden at the time."""

    def __init__(self, system: _System) -> None:
        self._system, self._cells = system, list(system.values)
        self._place_of = {cell: place for place, cell in enumerate(self._cells)}
        self._truth = np.array(list(system.values.values()), float)
        entries = [
            (row, self._place_of[cell], float(weight))
            for row, (terms, _) in enumerate(system.equations)
            for cell, weight in terms.items()
        ]
        rows, columns, weights = zip(*entries, strict=True) if entries else ((), (), ())
        shape = (len(system.equations), len(self._cells))
        self._left: Any = csr_matrix((weights, (rows, columns)), shape)  # scipy's stubs know no sparse A_eq
        self._right = np.array([total for _, total in system.equations], float)

    def unmoved(self, cells: Sequence[Cell], direction: Sequence[float] | np.ndarray) -> list[Cell]:
        """Of `cells`, those that keep their true count in the solution farthest in `direction`."""
        goal = np.zeros(len(self._truth))
        goal[[self._place_of[cell] for cell in cells]] = -np.asarray(direction)
        bounds = [self._system.bounds(cell) for cell in self._cells]
        solved = linprog(goal, A_eq=self._left, b_eq=self._right, bounds=bounds, method="highs")
        if solved.x is None:
            return list(cells)
        moved = np.abs(solved.x - self._truth) >= _MARGIN
        return [cell for cell in cells if not moved[self._place_of[cell]]]

    def determines(self, cell: Cell) -> bool:
        """Whether only the true count fits."""
        return bool(self.unmoved([cell], [1.0]) and self.unmoved([cell], [-1.0]))
