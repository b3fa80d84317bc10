"""What lifelines says of the patients in followed.py, as two files `…_of_lifelines.csv`. SpineMet does not need it.

python -m venv VENV && VENV/bin/pip install lifelines==0.30.3
PYTHONPATH=. VENV/bin/python tests/statistics/make_lifelines.py
"""

from pathlib import Path

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter

from tests.statistics.followed import seen

DAYS = np.arange(60, 1201, 60)


def main() -> None:
    last, first = seen()
    has = np.isfinite(first)
    followed = KaplanMeierFitter().fit(np.where(has, first, last), has)
    at = followed.survival_function_at_times(DAYS).to_numpy()
    ends = followed.confidence_interval_survival_function_.to_numpy()
    ends = ends[np.searchsorted(followed.timeline, DAYS, side="right") - 1]
    # lifelines' intervals are closed on both sides; a lesion of (last, first] arose on a day from last + 1 to first.
    arose = KaplanMeierFitter().fit_interval_censoring(last + 1, first, tol=1e-12)
    table = arose.survival_function_
    rows = pd.DataFrame({"day": DAYS, "kaplan_meier": at, "low": ends[:, 0], "high": ends[:, 1]})
    rows.to_csv(Path(__file__).with_name("kaplan_meier_of_lifelines.csv"), index=False)
    table.reset_index().to_csv(Path(__file__).with_name("turnbull_of_lifelines.csv"), index=False)


if __name__ == "__main__":
    main()
