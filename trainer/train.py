"""One worker's run, from the config to the last evaluation. Read it top to bottom.

What the worker trains with is opened by `session`; what is due after a step is said by `due`; a step is `stepper`'s.
Preparing the run directory is `prepare`'s business and launching the workers the command's; both were done before.
"""

from typing import Any

import torch.distributed as dist

from cluster.worker import Worker
from configs.schema import Config
from embeddings.dense_gradients import Word
from trainer.due import NEVER, calendar_of, due_after
from trainer.link_clock import LinkClock
from trainer.ranks.agreement import Agreement
from trainer.run.logs import open_attempt
from trainer.run.position import Position
from trainer.run.run_directory import RunDirectory
from trainer.session import Session, open_session
from trainer.stepper import Stepper
from trainer.telemetry.conflicts import ConflictSampler
from trainer.telemetry.dropped import DroppedWatch
from trainer.telemetry.unlearned import Unlearned
from trainer.telemetry.window import TrainingWindow


def train(config: Config, worker: Worker) -> dict[str, Any]:
    """Trains to the config's last step, or until the driver asks to stop.

    Returns {"step": steps done, "stopped": whether before the last, "tasks": {task: {metric: value}} of the last
    evaluation}.

    Raises:
        UserError: a mistake in data or config that a restart would meet again.
    """
    run = RunDirectory(config.training.run_dir)
    open_attempt(run, worker)
    with open_session(config, run, worker) as session:
        end, stopped = fit(session)
        if not stopped:
            session.evaluations.finish()
        session.report.slow_rank(Agreement().gather(worker.node))
        session.report.line(session.goodput.finish())
        tasks = {} if stopped else session.evaluations.tasks
    dist.barrier()  # no rank leaves while another still talks to it
    return {"step": end.step, "stopped": stopped, "tasks": tasks}


def fit(session: Session) -> tuple[Position, bool]:
    """Trains to the last step, or until a rank was asked to stop and all have saved; how far, and whether so."""
    config, reader, evaluate = session.config, session.reader, session.evaluations
    objective, gradients = session.built.objective, session.built.optimizer.gradients
    at, stopped = session.start, False
    last = NEVER if session.last is None else session.last
    calendar = calendar_of(config, last, reader.steps_per_epoch)
    stepper = Stepper(session)
    window = TrainingWindow(config.tasks, objective.criterion.binary, session.device, total_steps=session.last)
    conflicts = ConflictSampler(
        session.built.top, objective.criterion, list(config.tasks), config.training.gradient_cosines_every
    )
    unlearned = Unlearned(config.tasks, config.data.global_batch_size, at.step, session.report.line)
    dropped = DroppedWatch(session.report.line)
    link_clock = LinkClock(
        config.checkpoint.delta_every_s,
        session.worker.rank,
        gradients,
        lambda: session.checkpointer.is_busy,
    )
    stall, cosines = 0.0, session.reopen(window)
    session.built.model.train()
    if at.step and due_after(calendar, at.step, at.epoch_step or calendar.steps_per_epoch).evaluate:
        with session.paused(window):  # it was saved, and came to its end before this evaluation
            stopped = not evaluate(at)
    while at.step < last and not stopped:
        if session.following and at.epoch_step == calendar.steps_per_epoch:
            stepper.close()
            with session.paused(window), session.pulse.during():
                outcome = session.following.wait(reader, session.worker.stops)
            if outcome != "more":
                stopped = outcome == "stopped"
                break
            calendar = calendar_of(config, last, reader.steps_per_epoch)
        session.profiler.tick(at.step)
        link_clock.before_step()
        if session.worker.stops():
            gradients.tell(Word.STOP)
        outputs = stepper(at, calendar)
        at = at.after_step()
        session.pulse.at(at.step)
        session.goodput.step(at.step)
        window.add(outputs)
        session.unsound.add(at.step, outputs.is_sound)
        cosines |= conflicts.after(at.step, outputs)
        due = due_after(calendar, at.step, at.epoch_step, partition_ends=reader.ends_at(at.epoch_step))
        if due.log or due.last_log:
            extra = {"checkpoint/stall_seconds": stall, **_skipped(session), **cosines}
            extra |= dropped(reader, session.device) | session.unsound.scalars() | session.goodput.scalars()
            record = window.record(at.step, at.epoch, reader.wait_seconds, stepper.learning_rates, extra)
            session.report.write(record)
            unlearned.see(record)
            session.unsound.close(record, at, reader)
        if due.log:
            window.restart(reader.wait_seconds)
            objective.observe([values["loss"] for values in record.tasks.values()])
            stall, cosines = 0.0, {}
        if due.end_of_epoch and not session.following:
            at = at.after_epoch()
        stopped = at.step < last and gradients.is_told(Word.STOP)
        is_whole = due.save or stopped
        if is_whole or link_clock.is_due() or due.link:
            stall += session.save(at, window, cosines, whole=is_whole)
            link_clock.saved()
        if due.evaluate and not stopped:  # after it is saved: an evaluation may fail, or the process meanwhile
            stepper.pause()
            with session.paused(window):
                stopped = not evaluate(at)
            if stopped:
                session.save(at, window, cosines)
    stepper.close()
    session.profiler.close()
    if not stopped:
        with session.paused(window):
            stopped = not evaluate(at)
    _make_sure_it_is_saved(session, at, stopped=stopped)
    return at, stopped


def _make_sure_it_is_saved(session: Session, at: Position, *, stopped: bool) -> None:
    if stopped:
        session.checkpointer.wait(must_succeed=True)
        session.report.line(f"asked to stop: step {at.step:,} is saved")
    else:
        with session.pulse.during():
            session.checkpointer.finish()
    session.unsound.close_run(at.step)


def _skipped(session: Session) -> dict[str, float]:
    """What all ranks have skipped by now, as a scalar; the list is brought up to date."""
    if session.config.data.on_error == "fail":
        return {}
    session.skipped.update(session.reader, session.report.line)
    return {"data/quarantined_rows": float(session.skipped.rows)}
