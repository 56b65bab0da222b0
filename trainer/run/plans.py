"""The sharding plan in the run directory: for people to read, and for a resumed run to keep its sharding types."""

from embeddings.planning.plan import Pins, Plan
from embeddings.planning.plan_report import PlanReport
from trainer.run.run_directory import RunDirectory, read_json, write_json, write_text


def keep_plan(run: RunDirectory, plan: Plan) -> None:
    """Writes plan.json and plan.txt."""
    report = PlanReport(plan)
    write_json(run.plan_json, report.to_json())
    write_text(run.plan_text, report.text + "\n")


def read_pins(run: RunDirectory) -> Pins | None:
    """Sharding types of the run so far; None before its first start."""
    found = read_json(run.plan_json)
    return None if found is None else Pins.from_json(found)
