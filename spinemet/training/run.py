"""The folder of a training run: its request, progress, curves, pacing and model. Knows no Ray.

    RUNS/NAME/run.json        RunRequest; a later run of the same name must request the same
    RUNS/NAME/progress.json   RunProgress, from the workers to the driver
    RUNS/NAME/tensorboard/    the curves, one event file per epoch
    RUNS/NAME/pacing.parquet  what self-pacing admitted when, and pacing.png, a picture of it
    RUNS/NAME/model/          written last
Ray Train stores its checkpoints there too.
"""

from __future__ import annotations

import re
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from spinemet.config import FrozenModel
from spinemet.display.palette import INK, LIGHT, UNCALLED, as_png, remove_frame
from spinemet.errors import BadInput
from spinemet.files import claim, join, read_bytes, write_bytes, write_parquet
from spinemet.model.backbone import Trunk
from spinemet.model.checkpoint import ModelCard
from spinemet.model.weights import load_pretrained
from spinemet.progress import Progress
from spinemet.training.config import TrainRecipe
from spinemet.training.crops import read_info
from spinemet.training.dataset import TrainingData, admissions, check_crops

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

PROGRESS = "progress.json"
READ_EVERY_S = 2.0
"""How often the driver reads the progress file; epochs take longer."""


class RunRequest(FrozenModel):
    """What a run trains."""

    recipe: TrainRecipe
    seed: int
    crops_digest: str


class TrainJob(FrozenModel):
    """What each worker needs to know: the places of the crops and of the run's folder, and what to train.

    attempt: tells the progress of this call apart from that of an earlier one.
    """

    crops: str
    run: str
    recipe: TrainRecipe
    seed: int
    attempt: str = Field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class TrainRun:
    """A finished run: the place of its model, the model's card, and whether the run was finished before."""

    model_uri: str
    card: ModelCard
    found_finished: bool


class RunProgress(BaseModel):
    """The metrics of each epoch of an attempt so far, or the reason why its data cannot be used.

    Workers write it to a file because an actor would cost: each Ray process wakes 100 times a second on the cores
    that train.
    """

    attempt: str
    epochs: list[dict[str, float]] = []
    refusal: str = ""

    def write(self, run: str) -> None:
        """Replace the progress file of the run's folder."""
        write_bytes(join(run, PROGRESS), self.model_dump_json().encode())

    @classmethod
    def read(cls, run: str, attempt: str) -> Self:
        """The progress of `attempt`; without epochs if it has written none yet."""
        try:
            found = cls.model_validate_json(read_bytes(join(run, PROGRESS)))
        except (BadInput, ValidationError):
            return cls(attempt=attempt)
        return found if found.attempt == attempt else cls(attempt=attempt)


def claim_run(crops: str, out: str, name: str, recipe: TrainRecipe, seed: int) -> str:
    """The folder of the run `name` below `out`, claimed for this request.

    Raises BadInput if the name is not allowed, the crops or the pretrained weights do not fit the recipe, or a run of
    this name trains something else.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise BadInput(f"expected a run name of letters, digits, dots, dashes and underscores, found {name!r}.")
    info = read_info(crops)
    check_crops(info, recipe)
    if recipe.pretrained:
        load_pretrained(Trunk(recipe.model.backbone), recipe.pretrained)
    run = join(out, name)
    claim(join(run, "run.json"), RunRequest(recipe=recipe, seed=seed, crops_digest=info.digest))
    return run


@contextmanager
def show_progress(job: TrainJob, progress: Progress) -> Iterator[None]:
    """Report each finished epoch to `progress` once while the block runs.

    Raises BadInput at the end of the block if a worker found that the data cannot be used.
    """
    stop, shown = threading.Event(), 0

    def show() -> RunProgress:
        nonlocal shown
        found = RunProgress.read(job.run, job.attempt)
        for metrics in found.epochs:
            if (done := int(metrics["epoch"]) + 1) > shown:
                log_loss, macro = (
                    metrics[f"validation_{name}_{job.recipe.selects}"] for name in ("log_loss", "macro_sensitivity")
                )
                note = f"loss {metrics['loss']:.2f}, validation log loss {log_loss:.2f}, macro sensitivity {macro:.2f}"
                progress(done, job.recipe.epochs, note)
                shown = done
        return found

    def keep_showing() -> None:
        while not stop.wait(READ_EVERY_S):
            show()

    progress(0, job.recipe.epochs, "starting")
    reader = threading.Thread(target=keep_showing, daemon=True)
    reader.start()
    try:
        yield
    finally:
        stop.set()
        reader.join()
    if refusal := show().refusal:
        raise BadInput(refusal)


def write_curves(run: str, metrics: Mapping[str, float]) -> None:
    """Add one epoch's `metrics` to the run's TensorBoard curves, in an event file of its own.

    With a file per epoch, nothing is appended (object stores cannot), and a resumed run overwrites its epochs.
    """
    from torch.utils.tensorboard import SummaryWriter

    epoch = int(metrics["epoch"])
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for name, value in metrics.items():
                if name != "epoch":
                    writer.add_scalar(name.replace("validation_", "validation/", 1), value, epoch)
        for file in Path(folder).iterdir():
            write_bytes(join(run, "tensorboard", f"events.out.tfevents.{epoch:06d}"), file.read_bytes())


def write_pacing(run: str, data: TrainingData, entered_N: npt.NDArray[np.int64], recipe: TrainRecipe) -> None:
    """Write `pacing.parquet` (see `training.dataset.admissions`) and `pacing.png`.

    entered_N: the epoch in which each training slice was first admitted, 0 for never.
    """
    table = admissions(data.train, entered_N, recipe)
    write_parquet(join(run, "pacing.parquet"), table)
    write_bytes(join(run, "pacing.png"), pacing_figure(table, recipe.model.task(recipe.selects).classes))


def pacing_figure(table: pd.DataFrame, classes: Sequence[str]) -> bytes:
    """A PNG with one line per class: the share of its training slices that were admitted by each epoch.

    table: one row per slice with `label` and `epoch`, from `training.dataset.admissions`.
    """
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
    return as_png(figure)
