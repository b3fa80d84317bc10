"""Several tasks on one trunk or on coupled trunks, with fused sub-tasks (Peng et al. 2019, arXiv 2402.08910).

Every task has one logit per class, also a binary task, so all tasks share one form of loss and probabilities. The only
input of a task that fuses others is their logits. In a composed model it has no weights of its own: these are the
slices' probabilities, and those of a vertebra come from `aggregate.vertebra_probabilities`.
"""

import torch
from torch import Tensor, nn

from spinemet.model.backbone import CrossStitched, Trunk, Windows
from spinemet.model.spec import ModelSpec
from spinemet.model.tasks import Task


class MultiTask(nn.Module):
    """A network from HU slices to logits per task."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.windows = Windows(spec.windows)
        headed = [task.name for task in spec.tasks if not task.fuses]
        self.trunk = CrossStitched(spec.backbone, len(headed)) if spec.sharing == "soft" else Trunk(spec.backbone)
        self.dropout = nn.Dropout(spec.dropout)
        self.heads = nn.ModuleDict()
        for task in spec.tasks:
            if task.fuses and spec.composed:
                continue
            if task.fuses:
                inputs = sum(len(spec.task(name).classes) for name in task.fuses)
                self.heads[task.name] = nn.Sequential(
                    nn.Linear(inputs, spec.fusion_width), nn.ReLU(), nn.Linear(spec.fusion_width, len(task.classes))
                )
            else:
                self.heads[task.name] = nn.Linear(self.trunk.width, len(task.classes))
        self.to(memory_format=torch.channels_last)

    def forward(self, hu_NHW: Tensor) -> dict[str, Tensor]:
        """Task -> (N, C) logits, in the number format of the heads, of (N, H, W) HU slices, int16 or float."""
        found = self.trunk(self.windows(hu_NHW))
        features = [self.dropout(one) for one in (found if isinstance(found, list) else [found])]
        logits: dict[str, Tensor] = {}
        # The heads are tiny; without autocast their probabilities keep all digits.
        with torch.autocast(hu_NHW.device.type, enabled=False):
            for task in self.spec.tasks:
                if task.fuses and self.spec.composed:
                    logits[task.name] = self._composed(task, logits)
                    continue
                head = self.heads[task.name]
                if task.fuses:
                    source = torch.cat([logits[name] for name in task.fuses], dim=1)
                else:
                    source = features.pop(0) if len(features) > 1 else features[0]
                logits[task.name] = head(source.to(next(head.parameters()).dtype))
        return logits

    def _composed(self, task: Task, logits: dict[str, Tensor]) -> Tensor:
        """(N, C) log probabilities of the classes of `task` if its sub-tasks were independent."""
        parts = [torch.log_softmax(logits[name], dim=1)[:, means] for name, means in self.spec.parts(task).items()]
        return sum(parts[1:], parts[0])

    def trunks(self) -> list[Trunk]:
        """The only trunk, or every coupled trunk."""
        return [module for module in self.trunk.modules() if isinstance(module, Trunk)]

    @torch.no_grad()
    def favour_negative(self, task: str, log_odds: float) -> None:
        """Add `log_odds` to the logit of the first class of `task`, which feeds no other task."""
        linear = [layer for layer in self.heads[task].modules() if isinstance(layer, nn.Linear)]
        linear[-1].bias[0] += log_odds
