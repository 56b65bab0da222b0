"""One training step: learning rates, and TorchRec's pipeline, which must not read too far ahead.

What happens between steps is `train.fit`'s business.
"""

from collections.abc import Iterator
from itertools import islice

from trainer.data.reading.batch import Batch
from trainer.data.reading.reader import BatchIterator
from trainer.due import Calendar, steps_until_pause
from trainer.pipeline import train_pipeline
from trainer.ranker import Outputs
from trainer.run.position import Position
from trainer.schedule import learning_rates
from trainer.session import Session


class Stepper:
    """Trains one step a call; all ranks call it together.

    Attributes:
        learning_rates: of the last step, by optimizer.
    """

    def __init__(self, session: Session) -> None:
        self.learning_rates: dict[str, float] = {}
        self._session = session
        self._pipeline = train_pipeline(session.built, session.device)
        self._batches: BatchIterator | None = None
        self._ahead: Iterator[Batch] = iter(())
        self._pause = session.start.step  # the step to which the batches lead that the pipeline was given

    def __call__(self, at: Position, calendar: Calendar) -> Outputs:
        """Trains the step after `at`."""
        if at.step == self._pause:
            self._feed(at, calendar)
        training = self._session.config.training
        self.learning_rates = learning_rates(training, at.step, calendar.last)
        self._session.built.optimizer.set_learning_rates(**self.learning_rates)
        return self._pipeline.progress(self._ahead)

    def _feed(self, at: Position, calendar: Calendar) -> None:
        """Gives the pipeline, which reads two batches ahead, no more than may be trained before the next pause."""
        if self._batches is None:
            epochs = 0 if self._session.following else self._session.config.training.epochs
            self._batches = self._session.reader.batches(at.epoch, at.epoch_step, epochs)
        steps = steps_until_pause(calendar, at.step, at.epoch_step)
        self._pause = at.step + steps
        ahead = islice(self._batches, steps)
        # Pinned, so that copies to the GPU overlap with its work.
        self._ahead = map(Batch.pin_memory, ahead) if self._session.device.type == "cuda" else ahead

    def pause(self) -> None:
        """Gives the model back to whoever calls it without the pipeline; the next step takes it again."""
        self._pipeline.detach()

    def close(self) -> None:
        """Stops reading ahead. The next step reads anew, with the partitions that the reader has by then."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
