"""What the readers say together: the answer that most of them gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from spinemet.adjudication.page import CANNOT_JUDGE, QUESTIONS
from spinemet.adjudication.sheets import Sheet


def consensus(sheets: Sequence[Sheet], adjudicator: Sheet | None = None) -> pd.DataFrame:
    """Indexed by item, a column per question: the answer that more readers gave than any other one.

    `cannot judge` counts as an answer. Of equally frequent ones none wins: the adjudicator's answer counts, without an
    adjudicator `cannot judge`. One reader alone is the consensus.
    """
    table = sheets[0].answers.copy()
    for question in QUESTIONS:
        said = pd.concat([sheet.answers[question] for sheet in sheets], axis=1)
        last = pd.Series(CANNOT_JUDGE, said.index) if adjudicator is None else adjudicator.answers[question]
        table[question] = [_most(row, end) for row, end in zip(said.itertuples(index=False), last, strict=True)]
    return table


def _most(words: Sequence[str], otherwise: str) -> str:
    (first, most), *rest = Counter(words).most_common()
    return otherwise if rest and rest[0][1] == most else first
