"""What a worker trains with, and how it is opened: the same at the first start and after a failure.

The run directory says how far the run is. What is done with a session is `train`'s business.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch

from cluster.worker import Worker
from configs.errors import RunFailed, UserError
from configs.schema import Config
from embeddings.features.feature_transforms import FeatureTransforms
from embeddings.kernels import set_steps_done, write_back
from embeddings.row_log import RowLog
from trainer.build import Built, build, device_of
from trainer.checkpoint.checkpointer import Checkpointer, CheckpointError
from trainer.checkpoint.state import config_fingerprint, may_be_undefined, training_state
from trainer.checkpoint.there import newest_step
from trainer.checkpoint.windows import windows
from trainer.data.columns.reweighting import without_rules
from trainer.data.dataset.source import open_source
from trainer.data.reading.quarantine import Quarantined
from trainer.data.reading.reader import Reader
from trainer.evaluate import Evaluations
from trainer.pulse import Pulse
from trainer.run import saved_names
from trainer.run.diverged import DivergedError
from trainer.run.folder import Folder
from trainer.run.following import Following
from trainer.run.formulations import keep_formulations, read_formulations
from trainer.run.manifests import read_manifest
from trainer.run.plans import keep_plan, read_pins
from trainer.run.position import Position
from trainer.run.processor import bf16_warning
from trainer.run.run_directory import RunDirectory
from trainer.run.saved_names import is_in_tables
from trainer.run.skipped import SkippedRowGroups
from trainer.run.versions import installed
from trainer.run.vocabularies import features_of
from trainer.schedule import last_step
from trainer.telemetry.best import best_step
from trainer.telemetry.goodput import Goodput
from trainer.telemetry.profile import StepProfiler
from trainer.telemetry.report import Report
from trainer.telemetry.start_up import Sizes, start_up_page
from trainer.telemetry.unsound import UnsoundSteps
from trainer.telemetry.window import TrainingWindow
from trainer.warm_start.load import warm_start

log = logging.getLogger(__name__)
_COSINES = saved_names.extra("gradient_cosines")


@dataclass(frozen=True)
class Session:
    """What a worker trains with.

    Attributes:
        start: how far the run is.
        last: steps that it will have done at its end; None if that is not known, as new partitions may come.
    """

    config: Config
    worker: Worker
    device: torch.device
    built: Built
    reader: Reader
    skipped: SkippedRowGroups
    unsound: UnsoundSteps
    following: Following | None
    checkpointer: Checkpointer
    report: Report
    evaluations: Evaluations
    profiler: StepProfiler
    pulse: Pulse
    goodput: Goodput
    start: Position
    last: int | None

    def save(
        self,
        at: Position,
        window: TrainingWindow | None = None,
        cosines: Mapping[str, float] = MappingProxyType({}),
        *,
        whole: bool = True,
    ) -> float:
        """Saves, in the background if the config says so; returns for how many seconds training stood still.

        Args:
            window, cosines: of the steps since the last log line, if there were any.
            whole: False: a link, of which no checkpoint of its own is made.

        Raises:
            DivergedError: the state before had numbers that are NaN or infinite.
        """
        seconds = self._save(at, window, cosines, whole=whole)
        self.goodput.stood_still(seconds)
        return seconds

    def _save(self, at: Position, window: TrainingWindow | None, cosines: Mapping[str, float], *, whole: bool) -> float:
        write_back(self.built.model)
        state: dict[str, Any] = dict(training_state(self.built.model, self.built.optimizer))
        kept = window.state() if window else {}
        state |= {saved_names.window(self.worker.rank, name): value for name, value in kept.items()}
        state |= {_COSINES: dict(cosines), **self.skipped.state, **self.unsound.state}
        try:
            if whole:
                return self.checkpointer.save(state, step=at.step, epoch=at.epoch, epoch_step=at.epoch_step)
            return self.checkpointer.save_link(state, at)
        except DivergedError as error:
            raise self.unsound.explained(error, at, self.reader) from None

    @contextmanager
    def paused(self, window: TrainingWindow) -> Iterator[None]:
        """Time in here (an evaluation, waiting for data) counts neither as training nor as lost."""
        with window.paused(), self.goodput.paused():
            yield

    def reopen(self, window: TrainingWindow) -> dict[str, float]:
        """Goes on amid the window that the run was saved in; returns the cosines that were sampled in it."""
        newest = self.checkpointer.newest
        if newest is None:
            return {}
        window.load_state(windows(newest), self.worker.rank, self.worker.world_size)
        return dict(newest.extra.get(_COSINES, {}))


@contextmanager
def open_session(config: Config, run: RunDirectory, worker: Worker) -> Iterator[Session]:
    """Reads where the run is, opens its data, builds and shards the model, and loads the newest checkpoint.

    Raises:
        UserError: data, config or checkpoints have a mistake that a restart would meet again.
    """
    pulse = Pulse(worker.beat, newest_step(Folder(run.checkpoints)) or 0)
    with pulse.working():
        device = device_of(worker)
        manifest = read_manifest(run, config.data.train)
        assert manifest is not None, "the driver wrote the manifest of the training part"
        facts = {"config": config_fingerprint(config), "manifest": manifest.fingerprint, "versions": installed()}
        built = build(config, device, worker.local_world_size, read_pins(run), read_formulations(run))
        log.info("the model is built, its tables are sharded")
        checkpointer = Checkpointer(run.checkpoints, config.checkpoint, facts)
        checkpointer.may_be_undefined, checkpointer.say = may_be_undefined(built.objective), worker.say
        checkpointer.upkeep.best_step = lambda steps: best_step(run.metrics, steps, config.checkpoint.keep_best)
        checkpointer.beat = pulse
        checkpointer.claim()
        state = training_state(built.model, built.optimizer)
        checkpointer.load(state)
        newest = checkpointer.newest
        log.info("%s is loaded", f"step {newest.step:,}" if newest else "nothing")
        taken_over = warm_start(config, state) if newest is None and config.training.warm_start else ""
        if config.checkpoint.has_links:
            checkpointer.follow(RowLog(built.model))  # what was written before is in the first base
        set_steps_done(built.model, newest.step if newest else 0)
        skipped = SkippedRowGroups(run, newest.extra if newest else {})
        features = FeatureTransforms(features_of(run, config), config.tables)
        reader = open_reader(config, run, config.data.train, features, worker, shuffle=True, skipped=skipped.entries)
        assert reader is not None
        validation = open_reader(config, run, config.data.validation, features, worker, shuffle=False)
        for each in (reader, validation):
            if each is not None:
                each.on_wait = pulse
        start = newest.position if newest else Position(0, 0, 0)
        last = last_step(config, start, reader.steps_per_epoch)
        if worker.rank == 0:
            keep_plan(run, built.plan)
            keep_formulations(run, built.formulations)
    goodput = Goodput(run.history, run.metrics, worker.faults, start.step, counts=worker.rank == 0)
    with (
        Report(run, worker.rank, start.step if newest else None, worker.say) as report,
        save_in_flight_is_finished(checkpointer),
    ):
        sizes = Sizes(
            reader.manifest.rows, len(reader.manifest.files), reader.steps_per_epoch, _dense_parameters(built)
        )
        checkpointer.say = report.line
        report.line(start_up_page(config, run, worker, built.plan, sizes, start if newest else None))
        if warning := bf16_warning(config.training.precision, device.type):
            report.line(warning)
        if taken_over:
            report.line(taken_over)
        report.texts(config, built.plan)
        yield Session(
            config=config,
            worker=worker,
            device=device,
            built=built,
            reader=reader,
            skipped=skipped,
            unsound=UnsoundSteps(config.training, device, newest.extra if newest else {}, report.line),
            following=Following(run, config, report.line) if config.data.follow else None,
            checkpointer=checkpointer,
            report=report,
            evaluations=Evaluations(built, validation, config, device, report, pulse, worker.stops),
            profiler=StepProfiler(config.training.profile_at if worker.rank == 0 else None, run.profile),
            pulse=pulse,
            goodput=goodput,
            start=start,
            last=last,
        )


@contextmanager
def save_in_flight_is_finished(checkpointer: Checkpointer) -> Iterator[None]:
    """A mistake in the data of an evaluation must not cost the epoch that is being saved beside it.

    What goes on beside the run ends with it.

    Raises:
        DivergedError: in place of what was raised inside: the state that was to be saved explains it.
    """
    try:
        yield
    except (UserError, RunFailed):
        try:
            checkpointer.wait()
        except CheckpointError as error:
            log.warning("%s", error)
        raise
    finally:
        checkpointer.close()


def open_reader(
    config: Config,
    run: RunDirectory,
    part: str,
    features: FeatureTransforms,
    worker: Worker,
    *,
    shuffle: bool,
    skipped: Sequence[Quarantined] = (),
) -> Reader | None:
    """A reader of the rows of `part` that are this rank's, but for `skipped`; None where the run has no such part.

    It shuffles for training; for evaluation it gives the rows' groups, and weighs no row by rule.
    """
    manifest = read_manifest(run, part)
    if manifest is None:
        return None
    manifest = replace(manifest, root=open_source(config.data.root, part).root)  # the data may have moved
    return Reader(
        manifest,
        config.data,
        features,
        config.tasks if shuffle else without_rules(config.tasks),
        config.training.seed,
        worker.rank,
        worker.world_size,
        shuffle=shuffle,
        quarantined=skipped,
        group_column=None if shuffle else config.data.group_column,
    )


def _dense_parameters(built: Built) -> int:
    named = built.model.named_parameters()
    return sum(parameter.numel() for name, parameter in named if not is_in_tables(name))
