import math
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util import tensor_util

from trainer.telemetry.curves import task_curves
from trainer.telemetry.gates import GateUse
from trainer.telemetry.memory import Memory
from trainer.telemetry.pictures import CELL, HEADER
from trainer.telemetry.records import EvalRecord, StepRecord
from trainer.telemetry.tensorboard import TensorBoard

GATES = {"gate": GateUse(("click", "like"), ((0.75, 0.25), (0.0, 1.0)), (0.8, 0.0), ())}


def step_record(step, loss=0.5, **changes):
    tasks = {"click": {"loss": loss, "ne": 0.9, "auc": math.nan}}
    values = (step, 100, 0, loss, loss, tasks, 1000.0, 0.25, 0.1, Memory(1, 2, 3), 60.0)
    return StepRecord(*values, learning_rates={"dense": 1e-3}, gates=GATES, **changes)


def eval_record(step):
    return EvalRecord(step, 0, 0.4, {"click": {"auc": 0.7}}, 100, 2.0)


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events


def test_both_runs_have_the_scalars_of_their_records(tmp_path):
    record = step_record(10)
    with TensorBoard(tmp_path) as board:
        board.write(record)
        board.write(eval_record(10))
    train, evaluation = read(tmp_path / "train"), read(tmp_path / "eval")
    found = {tag: train.Scalars(tag)[0].value for tag in train.Tags()["scalars"]}
    expected = {tag: value for tag, value in record.scalars().items() if not math.isnan(value)}
    assert found == pytest.approx(expected, rel=1e-6)
    assert "auc/click" not in found, "an undefined value is a gap"
    assert evaluation.Scalars("auc/click")[0].step == 10
    assert evaluation.Scalars("auc/click")[0].value == pytest.approx(0.7)


def test_a_resume_drops_what_was_drawn_beyond_its_checkpoint(tmp_path):
    with TensorBoard(tmp_path) as board:
        for step in (10, 20, 30):
            board.write(step_record(step, loss=1.0))
    time.sleep(1 - time.time() % 1)  # event files are read by the second in their names
    with TensorBoard(tmp_path, resume_step=20) as board:
        board.write(step_record(30, loss=2.0))
    points = [(point.step, point.value) for point in read(tmp_path / "train").Scalars("total/loss")]
    assert points == [(10, 1.0), (20, 1.0), (30, 2.0)]


def test_the_overview_has_a_chart_for_each_group(tmp_path):
    with TensorBoard(tmp_path):
        pass
    tensor = read(tmp_path / "train").Tensors("custom_scalars__config__")[0].tensor_proto
    layout = Layout.FromString(tensor.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts["AUC"] == ["^auc/.*"]  # not gauc
    assert charts["loss"] == ["total/loss", "loss/.*"]


def test_texts_hparams_and_pictures(tmp_path):
    with TensorBoard(tmp_path) as board:
        board.text("config", "data:\n  root: a")
        board.write(step_record(10))
        board.write(eval_record(10))
        board.hparams({"top": "mmoe", "experts": 4}, eval_record(10).scalars())
    train = read(tmp_path / "train")
    assert b"\n    gate_dead_experts/LEVEL " in train.Tensors("tags/text_summary")[0].tensor_proto.string_val[0]
    assert train.Tensors("config/text_summary")[0].tensor_proto.string_val[0] == b"    data:\n      root: a"
    assert train.Images("gates/gate")[0].height == HEADER + 2 * CELL
    assert not [path for path in (tmp_path / "eval").iterdir() if path.is_dir()], "hparams make no run of their own"
    evaluation = read(tmp_path / "eval")
    assert "_hparams_/session_start_info" in evaluation.summary_metadata
    assert [point.step for point in evaluation.Scalars("auc/click")] == [10], "and no curve gets a second point"
    content = evaluation.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = HParamsPluginData.FromString(content).experiment.metric_infos
    assert [metric.name.tag for metric in metrics] == ["total/loss", "auc/click"]


def test_pictures_become_rarer(tmp_path):
    with TensorBoard(tmp_path) as board:
        for step in range(1, 201):
            board.write(step_record(step))
    steps = [image.step for image in read(tmp_path / "train").Images("gates/gate")]
    assert steps[0] == 1
    assert len(steps) < 30
    assert steps[-1] >= 150


def test_an_evaluation_draws_its_curves(tmp_path):
    predictions, labels = torch.tensor([0.1, 0.4, 0.8]), torch.tensor([0.0, 1.0, 1.0])
    curves = {"click": task_curves(predictions, labels, torch.tensor([1.0, 2.0, 3.0]))}
    with TensorBoard(tmp_path) as board:
        board.write(EvalRecord(5, 0, 0.4, {"click": {"auc": 0.7}}, 3, 2.0, gates=GATES, curves=curves))
    events = read(tmp_path / "eval")
    assert set(events.Tags()["images"]) == {"gates/gate", "reliability/click"}
    values = tensor_util.make_ndarray(events.Tensors("pr/click")[0].tensor_proto)
    true, false, negative, missed, precision, recall = values[:, 63]  # at or above 0.5
    assert (true, false, negative, missed, precision) == (3, 0, 1, 2, 1)
    assert recall == pytest.approx(3 / 5)
    assert values[:2, 0].tolist() == [5, 1], "at or above 0: everything"
    assert events.Scalars("calibration_error/click")[0].value == pytest.approx(curves["click"].calibration_error)
