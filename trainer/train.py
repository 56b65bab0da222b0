"""One worker's run, from the config to the last evaluation. Read it top to bottom.

Every start is the same, the first or after a failure: the run directory says how far the run is. Preparing the run
directory is `prepare`'s business and launching the workers the command's; both were done before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from cluster.launch import Worker
from configs.schema import Config
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.build import Built, build, device_of
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.checkpoint.files import Position
from trainer.checkpoint.state import config_fingerprint, training_state
from trainer.data.columns.reweighting import without
from trainer.data.dataset.source import open_source
from trainer.data.reading.batch import Batch
from trainer.data.reading.quarantine import Quarantined
from trainer.data.reading.reader import Reader
from trainer.evaluate import evaluate
from trainer.ranks.collectives import max_over_ranks
from trainer.run.following import Following
from trainer.run.left_out import LeftOut
from trainer.run.logs import open_attempt
from trainer.run.manifests import read_manifest
from trainer.run.plans import keep_plan, read_pins
from trainer.run.run_directory import RunDirectory
from trainer.run.versions import installed
from trainer.run.vocabularies import features_of
from trainer.schedule import learning_rate_factor
from trainer.telemetry.conflicts import ConflictSampler
from trainer.telemetry.divergence import refuse_divergence
from trainer.telemetry.profile import StepProfiler
from trainer.telemetry.records import EvalRecord
from trainer.telemetry.report import Report
from trainer.telemetry.start_up import start_up_page
from trainer.telemetry.window import TrainingWindow

_NEVER = 2**62  # a step that no run reaches


@dataclass(frozen=True)
class Session:
    """What a worker trains with."""

    config: Config
    worker: Worker
    device: torch.device
    built: Built
    reader: Reader
    validation: Reader | None
    checkpointer: Checkpointer
    report: Report
    left_out: LeftOut
    profiler: StepProfiler
    following: Following | None


def train(config: Config, worker: Worker) -> dict[str, Any]:
    """Trains to the config's last step, or until the driver is told to stop.

    Returns {"step": steps done, "stopped": whether before the last, "tasks": {task: {metric: value}} of the last
    evaluation}.

    Raises:
        UserError: a mistake in data or config that no restart can mend.
    """
    run = RunDirectory(config.training.run_dir)
    open_attempt(run, worker)
    device = device_of(worker)
    features = FeatureTransforms(features_of(run, config), config.tables)
    manifest = read_manifest(run, config.data.train)
    assert manifest is not None, "the driver wrote the manifest of the training part"
    facts = {"config": config_fingerprint(config), "manifest": manifest.fingerprint, "versions": installed()}
    checkpointer = Checkpointer(run.checkpoints, config.checkpoint, facts)
    newest = checkpointer.newest_complete()
    left_out = LeftOut(run, newest)
    reader = open_reader(config, run, config.data.train, features, worker, shuffle=True, left_out=left_out.entries)
    assert reader is not None
    validation = open_reader(config, run, config.data.validation, features, worker, shuffle=False)
    built = build(config, device, worker.local_world_size, read_pins(run))
    start = checkpointer.load(training_state(built.model, built.optimizer), newest) if newest else None
    if worker.rank == 0:
        keep_plan(run, built.plan)
    with Report(run, worker.rank, start.step if start else None, worker.say) as report:
        profiler = StepProfiler(config.training.profile_at if worker.rank == 0 else None, run.profile)
        following = Following(run, config, report.line) if config.data.follow else None
        session = Session(
            config, worker, device, built, reader, validation, checkpointer, report, left_out, profiler, following
        )
        report.line(start_up_page(session, run, start))
        report.texts(config, built.plan)
        end = fit(session, start or Position(0, 0, 0))
        if end.record is not None:
            report.finish(config, end.record)
    dist.barrier()  # no rank leaves while another still talks to it
    return {"step": end.step, "stopped": end.stopped, "tasks": end.record.tasks if end.record else {}}


def open_reader(
    config: Config,
    run: RunDirectory,
    part: str,
    features: FeatureTransforms,
    worker: Worker,
    *,
    shuffle: bool,
    left_out: Sequence[Quarantined] = (),
) -> Reader | None:
    """A reader of the rows of `part` that are this rank's, but for `left_out`; None where the run has no such part.

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
        config.tasks if shuffle else without(config.tasks),
        config.training.seed,
        worker.rank,
        worker.world_size,
        shuffle=shuffle,
        quarantined=left_out,
        group_column=None if shuffle else config.data.group_column,
    )


def last_step(config: Config, start: Position, steps_per_epoch: int) -> int | None:
    """Steps that the run will have done at its end; None if that is not known, as new partitions may come."""
    if config.data.follow:
        return config.training.max_steps
    left = (config.training.epochs - start.epoch) * steps_per_epoch - start.epoch_step
    planned = start.step + max(0, left)
    return min(planned, config.training.max_steps or planned)


class End(NamedTuple):
    """How far training went, and the evaluation there; None without a validation part, or when it was stopped."""

    step: int
    record: EvalRecord | None
    stopped: bool


def fit(session: Session, start: Position) -> End:
    """Trains from `start` to the last step, or to the first log line after the driver was told to stop."""
    config, reader = session.config, session.reader
    training, saving = config.training, config.checkpoint
    model, optimizer, objective = session.built.model, session.built.optimizer, session.built.objective
    planned = last_step(config, start, reader.steps_per_epoch)
    last = _NEVER if planned is None else planned
    pipeline = TrainPipelineSparseDist(model, optimizer, session.device)
    window = TrainingWindow(config.tasks, objective.criterion.binary, session.device, total_steps=planned)
    step, epoch, epoch_step = start
    conflicts = ConflictSampler(session.built, list(config.tasks), training.gradient_cosines_every)
    stall, cosines, record = 0.0, {}, None
    saves = ends = stopped = False
    model.train()
    batches = reader.batches(epoch, epoch_step, 0 if session.following else training.epochs)
    while step < last:
        while step < last and epoch_step < reader.steps_per_epoch:
            stop = min(last, step + reader.steps_per_epoch - epoch_step, _next_multiple(step, training.evaluate_every))
            # The pipeline reads two batches ahead: it gets no more than it may train before the next evaluation.
            ahead = islice(batches, stop - step)
            if session.device.type == "cuda":
                ahead = map(Batch.pin_memory, ahead)  # so that copies to the GPU overlap with its work
            while step < stop:
                rates = _set_learning_rates(session, step, last)
                session.profiler.tick(step)
                outputs = pipeline.progress(ahead)
                window.add(outputs)
                step, epoch_step = step + 1, epoch_step + 1
                cosines |= conflicts.after(step, outputs)
                saves = bool(saving.every_steps) and step % saving.every_steps == 0
                ends = step == last or reader.ends_at(epoch_step)
                # A saved step ends its window, so that a resumed run has the same windows.
                if step % training.log_every == 0 or saves or ends:
                    extra = {"checkpoint/stall_seconds": stall, **_left_out(session), **cosines}
                    stepped = window.close(step, epoch, reader.wait_seconds, rates, extra)
                    session.report.write(stepped)
                    refuse_divergence(stepped, training)
                    objective.observe(stepped.tasks)
                    stall, cosines = 0.0, {}
                    if step < last and _told_to_stop(session):
                        last, stop, stopped = step, step, True
                if saves and step < stop:
                    stall += _save(session, step, epoch, epoch_step)
            every = training.evaluate_every
            due = step % every == 0 if every else epoch_step == reader.steps_per_epoch
            if session.validation and not stopped and (due or step == last):
                pipeline.detach()
                with window.paused():
                    record = evaluate(session.built, session.validation, config, session.device, step, epoch)
                session.report.write(record)
            if saves or ends or stopped:  # after the evaluation, which a resumed run would not repeat
                stall += _save(session, step, epoch, epoch_step)
        if session.following is None:
            epoch, epoch_step = epoch + 1, 0
        elif step < last:
            batches.close()
            with window.paused():
                outcome = session.following.wait(reader, session.worker.stops)
            last, stopped = (last if outcome == "more" else step), outcome == "stopped"
            batches = reader.batches(epoch, epoch_step)
    batches.close()
    session.profiler.close()
    session.checkpointer.wait()
    if session.validation and not stopped and (record is None or record.step < step):
        record = evaluate(session.built, session.validation, config, session.device, step, epoch)
        session.report.write(record)
    return End(step, None if stopped else record, stopped)


def _next_multiple(step: int, every: int) -> int:
    """The first multiple of `every` after `step`; with 0, further than any step."""
    return (step // every + 1) * every if every else _NEVER


def _told_to_stop(session: Session) -> bool:
    """The same on every rank: rank 0 asks the driver."""
    told = session.worker.rank == 0 and session.worker.stops()
    return bool(max_over_ranks(torch.tensor(float(told), device=session.device)))


def _left_out(session: Session) -> dict[str, float]:
    """What all ranks have left out by now, as a scalar; the list is brought up to date."""
    if session.config.data.on_error == "fail":
        return {}
    session.left_out.update(session.reader, session.report.line)
    return {"data/quarantined_rows": float(session.left_out.rows)}


def _set_learning_rates(session: Session, step: int, last: int) -> dict[str, float]:
    """Sets both learning rates of the coming step and returns them."""
    training = session.config.training
    factor = learning_rate_factor(training, step, last)
    rates = {
        "sparse": factor * training.sparse_optimizer.learning_rate,
        "dense": factor * training.dense_optimizer.learning_rate,
    }
    session.built.optimizer.set_learning_rates(**rates)
    return rates


def _save(session: Session, step: int, epoch: int, epoch_step: int) -> float:
    """Saves, and returns for how many seconds training stood still. The end of an epoch is the start of the next."""
    model, optimizer = session.built.model, session.built.optimizer
    if epoch_step == session.reader.steps_per_epoch and session.following is None:
        epoch, epoch_step = epoch + 1, 0
    state = training_state(model, optimizer) | session.left_out.state
    return session.checkpointer.save(state, step=step, epoch=epoch, epoch_step=epoch_step)
