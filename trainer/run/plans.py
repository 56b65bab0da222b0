"""The sharding plan in the run directory: for people to read, and for a resumed run to keep its sharding types."""

import json

from embeddings.planning.plan import Pins, Plan
from embeddings.planning.plan_report import PlanReport
from trainer.run.run_directory import RunDirectory, write_json, write_text


def keep_plan(run: RunDirectory, plan: Plan) -> None:
    """Writes plan.json and plan.txt."""
    report = PlanReport(plan)
    write_json(run.plan_json, report.to_json())
    write_text(run.plan_text, report.text + "\n")


def read_pins(run: RunDirectory) -> Pins | None:
    """Sharding types of the run so far; None before its first start."""
    return Pins.from_json(json.loads(run.plan_json.read_text())) if run.plan_json.exists() else None
