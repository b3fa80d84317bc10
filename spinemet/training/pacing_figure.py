"""A picture of a training run: what self-paced learning admitted when."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pandas as pd

from spinemet.display.palette import INK, LIGHT, UNCALLED, remove_frame


def pacing_figure(table: pd.DataFrame, classes: Sequence[str]) -> bytes:
    """A PNG with one line per class: the share of its training slices that were admitted by each epoch.

    table: one row per slice with `label` and `epoch`, from `training.dataset.admissions`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    seen = table.loc[table["epoch"] > 0, "epoch"]
    epochs = np.arange(int(seen.min()), int(seen.max()) + 2) if len(seen) else np.arange(2)
    for n, name in enumerate(classes):
        own = table.loc[table["label"] == name, "epoch"].to_numpy()
        if len(own):
            share = [((own > 0) & (own <= epoch)).mean() for epoch in epochs]
            colour = LIGHT.get(name, UNCALLED["light"])
            axes.plot(epochs, share, color=colour, lw=1.8, marker="osD^"[n % 4], ms=4, label=f"{name} ({len(own)})")
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel("share of the class's slices\nadmitted so far", fontsize=9)
    axes.set_title("What self-paced learning admitted when", fontsize=10, loc="left", color=INK)
    axes.legend(fontsize=8, frameon=False, loc="lower right", title="slices labelled", title_fontsize=8)
    remove_frame(axes, 8)
    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
