"""What a step minimizes: task losses, balanced against each other, on the scale that all ranks agree on.

B batch, T tasks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from configs.schema import Config
from models.build import build_balance
from models.criterion import Criterion
from models.experts import load_balance_loss
from trainer.ranker import Outputs
from trainer.ranks.collectives import sum_over_ranks
from trainer.skipping import BatchCheck


class Objective(nn.Module):
    """((logits [B, T], gates), labels [B, T], weights [B, T]) -> (loss [], Outputs).

    The loss is the sum over this rank's rows, times the number of ranks, divided by the global batch size. Gradients
    are averaged over ranks, so one rank and N ranks get the same gradient, however rows are spread.

    Attributes:
        check: of the batch in work, where batches may be left out; Outputs of such a one are zero.
    """

    def __init__(self, config: Config, world_size: int) -> None:
        super().__init__()
        self.criterion = Criterion(config.tasks)
        self.balance = build_balance(config.training.task_balance, config.tasks, config.training.task_balance_options)
        self._scale = world_size / config.data.global_batch_size
        self._load_balance = config.model.load_balance
        self.check = BatchCheck() if config.training.non_finite == "skip" else None

    def observe(self, mean_losses: Sequence[float]) -> None:
        """Gives the balance the tasks' losses since the last log line: the same on every rank, NaN without a row."""
        self.balance.observe(torch.tensor(mean_losses, device=self.balance.config_weights.device))

    def forward(
        self, scored: tuple[Tensor, dict[str, Tensor]], labels: Tensor, weights: Tensor
    ) -> tuple[Tensor, Outputs]:
        logits, gates = scored
        task_losses = self.criterion(logits, labels, weights)
        loss = self.balance(task_losses * self._scale, weights.sum(dim=0) * self._scale)
        if self._load_balance:
            loss = loss + self._load_balance * load_balance_loss(gates, weights, sum_over_ranks)
        gates = {level: gate.detach() for level, gate in gates.items()}
        predictions = self.criterion.predict(logits.detach())
        value = loss.detach()
        if self.check is None or not self.training:
            return loss, Outputs(value, task_losses.detach(), predictions, labels, weights, gates, value.isfinite())
        is_sound, kept = self.check.see(loss), self.check.kept
        gates = {level: kept(gate) for level, gate in gates.items()}
        losses, rows = kept(task_losses.detach()), (kept(predictions), kept(labels), kept(weights))
        return loss, Outputs(kept(value), losses, *rows, gates, is_sound)
