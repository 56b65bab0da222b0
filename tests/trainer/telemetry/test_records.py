import json
import math

from trainer.telemetry.gates import GateUse
from trainer.telemetry.memory import Memory
from trainer.telemetry.records import EvalRecord, StepRecord, to_json


def test_a_line_of_json_has_every_scalar_and_null_for_what_is_undefined():
    gates = {"gate": GateUse(("click",), ((0.75, 0.25),), (0.8,), ())}
    record = EvalRecord(5, 2, 0.5, {"click": {"auc": math.nan, "loss": 0.5}}, rows=10, seconds=2.0, gates=gates)
    line = json.loads(to_json(record))
    assert {k: line[k] for k in ("kind", "step", "epoch")} == {"kind": "eval", "step": 5, "epoch": 2}
    assert line["auc/click"] is None
    assert line["speed/examples_per_second"] == 5.0
    assert set(record.scalars()) <= set(line)


def test_records_of_training_and_evaluation_share_their_tags():
    memory = Memory(1, 2, 3)
    tasks = {"click": {"loss": 0.1, "ne": 0.9}}
    step = StepRecord(1, None, 0, 0.1, 0.1, tasks, 1.0, 1.0, 0.0, memory, None).scalars()
    evaluation = EvalRecord(1, 0, 0.1, tasks, 10, 1.0).scalars()
    assert evaluation.keys() <= step.keys()
