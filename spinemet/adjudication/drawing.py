"""A stratified sample of the evaluable vertebrae of one population, with what each drawn vertebra stands for.

Strata are the called bone quality, how clear the call is, and the region of the spine. Readers answer items: a drawn
vertebra is an item, and some come a second time under another name, to see whether a reader agrees with himself. The
names of items say nothing, and the order is random. The key (one row per item) tells which vertebra an item is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from spinemet.cohort.prevalence import SOURCE, TASK, tasks
from spinemet.cohort.views import asked, records
from spinemet.errors import BadInput
from spinemet.results.schemas import PROBABILITY_COLUMNS

if TYPE_CHECKING:
    import duckdb

CLEAR = 0.9
"""A call is clear if the called side, normal or any lesion, has at least this probability; else it is close."""
FLOOR = 3
"""Vertebrae drawn from each stratum at least, or all of a smaller one."""
LEAST_ERROR = 0.02
"""The share of wrong calls to expect at least in a stratum: a model that is sure of itself is checked too."""
LETTERS = "bcdfghjkmnpqrstvwxz"
"""Of names of items. No vowel, no digit: no word, and no spreadsheet takes a name for a number or a date."""
NAME_LENGTH = 6

PROBABILITIES = {
    column: f"{task}_p_{name}"
    for column, (task, name) in PROBABILITY_COLUMNS.items()
    if task in {TASK, "posterolateral"}
}
"""The model's probabilities: their columns in `vertebrae` and in the key -> in an evaluation."""

KEY_COLUMNS = (
    *("sample", "item", "repeats", "patient", "study", "source_key", "vertebra", "level", "stratum", "weight"),
    *("bone_quality", "posterolateral"),
    *PROBABILITIES,
    *SOURCE,
)
"""Columns of the key. repeats: the item of which this is the second showing, "" for a first one. weight: the vertebrae
of the population that the item stands for. bone_quality, posterolateral: the model's calls under the rule."""
NUMBERS = ("vertebra", "weight", *PROBABILITIES, "ledger_version")
"""The columns of the key that hold numbers."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A drawn sample.

    digest: its name, from the key. key: one row per item in the order of showing, with KEY_COLUMNS. strata: one row per
    stratum: `stratum`, `vertebrae`, `patients`, `expected_error`, `drawn`, `weight`. places: per item (source_key,
    vertebra). without_picture: evaluable vertebrae that could not be drawn for want of a picture.
    """

    digest: str
    key: pd.DataFrame
    strata: pd.DataFrame
    without_picture: int

    @property
    def places(self) -> list[tuple[str, int]]:
        return list(zip(self.key["source_key"], self.key["vertebra"].astype(int), strict=True))


def draw_sample(
    connection: duckdb.DuckDBPyConnection,
    size: int,
    seed: int,
    *,
    sizes: Mapping[str, int] | None = None,
    floor: int = FLOOR,
    repeat: float = 0.1,
) -> Sample:
    """Draw about `size` vertebrae of the population of a connection from `open_cohort`.

    The same tables, seed and sizes draw the same sample. sizes: vertebrae per stratum, instead of `size` and `floor`;
    by default `allocate` spreads them. repeat: share of the drawn vertebrae that come twice.

    Raises BadInput if nothing can be drawn, `size` is too small for the strata, or `sizes` does not fit them.
    """
    if not 0 <= repeat <= 0.5:
        raise BadInput(f"expected a share of repeated vertebrae from 0 to 0.5, found {repeat:g}.")
    if TASK not in tasks(connection):
        raise BadInput(f"expected a model with the task {TASK}, which makes the strata; this one has none.")
    connection.execute(Path(__file__).with_name("frame.sql").read_text().format(clear=CLEAR))
    strata, without = _strata(connection, seed, size if sizes is None else max(sizes.values(), default=1))
    counts, names = strata["vertebrae"].to_numpy(np.int64), strata["stratum"].tolist()
    if sizes is not None:
        strata["drawn"] = _given(sizes, names, counts)
    else:
        error = strata["expected_error"].to_numpy(np.float64).clip(LEAST_ERROR, 0.5)
        strata["drawn"] = allocate(counts, np.sqrt(error * (1 - error)), size, floor)
    strata["weight"] = strata["vertebrae"] / strata["drawn"]
    drawn = _drawn(strata)
    drawn["posterolateral"] = _posterolateral(connection, drawn)
    about = asked(connection)
    key = _items(drawn, seed, repeat).assign(**{name: about[name] for name in SOURCE})
    digest = digest_of(key)
    return Sample(digest, key.assign(sample=digest)[list(KEY_COLUMNS)], strata.drop(columns="rows"), without)


def allocate(
    count_H: npt.NDArray[np.int64], spread_H: npt.NDArray[np.floating], size: int, floor: int = FLOOR
) -> npt.NDArray[np.int64]:
    """(H,) vertebrae to draw from each stratum, `size` in all (or all there are, if these are fewer).

    In proportion to count times spread (Neyman 1934), but at least `floor` and at most all of a stratum. count_H:
    vertebrae of the strata. spread_H: standard deviation of what is measured within each, above 0.

    Raises BadInput if `size` is not enough for the floors.
    """
    least_H = np.minimum(count_H, floor)
    if size < least_H.sum():
        raise BadInput(
            f"expected a sample of at least {least_H.sum()} vertebrae, {floor} for each of {len(count_H)} strata, "
            f"found {size}."
        )
    size = min(size, int(count_H.sum()))
    wanted_H = count_H * spread_H
    low, high = 0.0, float((count_H / wanted_H).max())
    for _ in range(200):  # halving: the exact scale lies between
        scale = (low + high) / 2
        low, high = (scale, high) if np.clip(scale * wanted_H, least_H, count_H).sum() < size else (low, scale)
    exact_H = np.clip(high * wanted_H, least_H, count_H)
    whole_H = np.floor(exact_H + 1e-9).astype(np.int64)
    # Largest remainder; a stratum that is drawn whole has none.
    rest = np.argsort(whole_H - exact_H, kind="stable")[: size - int(whole_H.sum())]
    whole_H[rest] += 1
    return whole_H


def _strata(connection: duckdb.DuckDBPyConnection, seed: int, most: int) -> tuple[pd.DataFrame, int]:
    """One row per stratum of vertebrae with a picture, with the `rows` that come first by lot; how many have none.

    `rows`: at most `most`, by digests of place and seed. All in one query: the tables of an archive are read once.
    """
    names = ("patient", "study", "source_key", "vertebra", "level", "stratum", *PROBABILITIES)
    row = ", ".join(["'bone_quality': called", *(f"'{name}': {name}" for name in names)])
    lot = f"md5(concat_ws('/', source_key, vertebra, {int(seed)}))"
    found = pd.DataFrame(
        records(
            connection,
            "select stratum, count(*) filter (has_picture) as vertebrae,"
            " count(distinct patient) filter (has_picture) as patients, avg(error) filter (has_picture) as"
            f" expected_error, min_by({{{row}}}, {lot}, {int(most)}) filter (has_picture) as rows,"
            " count(*) filter (not has_picture) as bare from sampling_frame group by stratum order by stratum",
        ),
        columns=["stratum", "vertebrae", "patients", "expected_error", "rows", "bare"],
    )
    strata, bare = found[found["vertebrae"] > 0].drop(columns="bare").reset_index(drop=True), int(found["bare"].sum())
    if found.empty:
        raise BadInput("there is no evaluable vertebra in this population, so none can be drawn.")
    if strata.empty:
        raise BadInput(
            f"none of the {bare} evaluable vertebrae has a picture, so readers would see nothing. Screen the studies "
            "again without --no-pictures (jobs/screen.py --rescreen all)."
        )
    return strata, bare


def _given(sizes: Mapping[str, int], names: list[str], count_H: npt.NDArray[np.int64]) -> list[int]:
    """`sizes` in the order of the strata, if it names each stratum with at least one vertebra and at most all."""
    if unknown := [name for name in sizes if name not in names]:
        raise BadInput(f"expected strata of this population, found {unknown[0]}. There are: {', '.join(names)}.")
    for name, count in zip(names, count_H, strict=True):
        if not 1 <= sizes.get(name, 0) <= count:
            raise BadInput(
                f"expected 1 to {count} vertebrae of the stratum {name}, found {sizes.get(name, 0)}: a stratum without "
                "any would leave its calls unchecked."
            )
    return [sizes[name] for name in names]


def _drawn(strata: pd.DataFrame) -> pd.DataFrame:
    """The drawn vertebrae of all strata, each with its weight."""
    chosen = zip(strata["rows"], strata["drawn"], strata["weight"], strict=True)
    return pd.DataFrame([row | {"weight": weight} for rows, n, weight in chosen for row in rows[:n]])


def _posterolateral(connection: duckdb.DuckDBPyConnection, drawn: pd.DataFrame) -> list[str]:
    """The calls of posterolateral involvement under the rule; "" from a model without this task."""
    sources = sorted(set(drawn["source_key"]))
    marks = ", ".join("?" * len(sources))
    query = f"from current_calls where task = 'posterolateral' and source_key in ({marks})"
    rows = records(connection, query, sources)
    calls = {(row["source_key"], row["vertebra"]): row["label"] for row in rows}
    return [calls.get(place, "") for place in zip(drawn["source_key"], drawn["vertebra"], strict=True)]


def _items(drawn: pd.DataFrame, seed: int, repeat: float) -> pd.DataFrame:
    """The key's rows in the order of showing; a second showing comes in the later half, its first in the earlier."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(drawn))
    twice = rng.choice(math.ceil(len(drawn) / 2), round(repeat * len(drawn)), replace=False)
    names = _names(rng, len(order) + len(twice))
    shown = drawn.iloc[order].assign(item=names[: len(order)], repeats="")
    again = shown.iloc[twice].assign(item=names[len(order) :], repeats=lambda rows: shown["item"].iloc[twice])
    half = math.ceil(len(order) / 2)
    late = pd.concat([shown.iloc[half:], again])
    return pd.concat([shown.iloc[:half], late.iloc[rng.permutation(len(late))]], ignore_index=True)


def _names(rng: np.random.Generator, count: int) -> list[str]:
    """Different random names."""
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(LETTERS[n] for n in rng.integers(len(LETTERS), size=NAME_LENGTH))] = None
    return list(names)


def digest_of(key: pd.DataFrame) -> str:
    """The sample's name: `s` and eleven digits that change with every cell of the key.

    The key's cells may be values or, as read from its file, text. No spreadsheet takes such a name for a number.
    """
    text = key[list(KEY_COLUMNS[1:])].to_csv(index=False)
    return "s" + hashlib.sha256(text.encode()).hexdigest()[:11]
