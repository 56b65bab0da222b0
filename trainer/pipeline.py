"""What takes a model through a step: forward, backward, both optimizers, with the next batch on its way to the device.

Several ranks exchange IDs one batch ahead: that is torchrec's pipeline. A rank alone has nothing to exchange.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from trainer.build import Built
from trainer.data.reading.batch import Batch
from trainer.ranker import Outputs


class PipelineAlone:
    """The steps of one rank; as far as it goes, torchrec's TrainPipelineSparseDist."""

    def __init__(self, built: Built, device: torch.device) -> None:
        self._model, self._optimizer, self._device = built.model, built.optimizer, device
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._next: Batch | None = None

    def progress(self, batches: Iterator[Batch]) -> Outputs:
        """One step on the next batch.

        Raises:
            StopIteration: there is none.
        """
        batch = self._next or self._on_device(next(batches))
        self._wait_for(batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss, outputs = self._model(batch)
        self._next = self._ahead(batches)
        loss.backward()
        self._optimizer.step()
        return outputs

    def detach(self) -> None:
        """The model may be called by others at any time."""

    def reset(self) -> None:
        """Forgets the batch that was read ahead."""
        self._next = None

    def _ahead(self, batches: Iterator[Batch]) -> Batch | None:
        """The next batch, copied while the GPU works; None on a CPU, where there is nothing to copy."""
        if self._copies is None or (batch := next(batches, None)) is None:
            return None
        return self._on_device(batch)

    def _on_device(self, batch: Batch) -> Batch:
        if self._copies is None:
            return batch
        with torch.cuda.stream(self._copies):
            return batch.to(self._device, non_blocking=True)

    def _wait_for(self, batch: Batch) -> None:
        if self._copies is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_stream(self._copies)
            batch.record_stream(stream)


Pipeline = PipelineAlone | TrainPipelineSparseDist


def train_pipeline(built: Built, device: torch.device) -> Pipeline:
    """The pipeline for the ranks that there are."""
    if dist.get_world_size() == 1:
        return PipelineAlone(built, device)
    return TrainPipelineSparseDist(built.model, built.optimizer, device)
