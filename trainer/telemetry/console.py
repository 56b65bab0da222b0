"""The words of a run on the screen: a start-up page, one line an interval, a table an evaluation.

Always plain text, never a control character: workers have no terminal, their lines go through Ray and into files.
The values come from `records`; where the lines go is `report`'s business.
"""

import math
from collections.abc import Mapping, Sequence

from configs.text_table import text_table
from trainer.telemetry.memory import Memory
from trainer.telemetry.records import SKIPPED_STEPS, EvalRecord, StepRecord

PAGE_LINES, PAGE_WIDTH = 40, 100
SHOWN_TASKS = 4  # in a step line; the rest is in TensorBoard
COLUMNS = ("loss", "ne", "auc", "gauc", "calibration", "mae", "rmse", "rows")


def step_line(record: StepRecord) -> str:
    """`step 12,400/50,000  loss 0.4123  ne click .812 like .771  1.92M ex/s  data 3%  mem 61.2/80 GiB  eta 1h12m`"""
    steps = f"{record.step:,}" + (f"/{record.total_steps:,}" if record.total_steps is not None else "")
    parts = [f"step {steps}", f"loss {record.loss:.4f}"]
    names = list(record.tasks)
    for metric in ("ne", "rmse"):
        shown = [n for n in names[:SHOWN_TASKS] if metric in record.tasks[n]]
        if shown:
            parts.append(f"{metric} " + " ".join(f"{name} {ratio(record.tasks[name][metric])}" for name in shown))
    if len(names) > SHOWN_TASKS:
        parts.append(f"+{len(names) - SHOWN_TASKS} tasks")
    parts += [f"{count(record.examples_per_second)} ex/s", f"data {record.data_wait_share:.0%}", _memory(record.memory)]
    if skipped := record.extra.get(SKIPPED_STEPS):
        parts.append(f"skipped {skipped:,.0f}")
    if record.eta_seconds is not None:
        parts.append(f"eta {duration(record.eta_seconds)}")
    return "  ".join(parts)


def eval_table(record: EvalRecord) -> str:
    """A line on the evaluation, then a row a task with the metrics that any task has."""
    metrics = [m for m in COLUMNS if any(m in values for values in record.tasks.values())]
    speed = count(record.rows / record.seconds) if record.seconds > 0 else "-"
    missing = f" ({record.quarantined_rows:,} could not be read)" if record.quarantined_rows else ""
    title = (
        f"evaluation at step {record.step:,}  loss {record.loss:.4f}  {record.rows:,} rows{missing}"
        f"  {duration(record.seconds)}  {speed} ex/s"
    )
    rows = [["task", *metrics]]
    for task, values in record.tasks.items():
        rows.append([task, *(_cell(metric, values.get(metric)) for metric in metrics)])
    shown = "  ".join(f"{task} {ratio(value)} (label {ratio(label)})" for task, (value, label) in record.sample.items())
    sample = [f"  its first row: {shown}"] if shown else []
    return "\n".join([title, *table(rows), *sample, *_dropped_ids(record), *_dead_experts(record)])


def _dropped_ids(record: EvalRecord) -> list[str]:
    """A line on the features that went without some of their IDs."""
    shares = [f"{feature} {share:.2%}" for feature, share in record.dropped_shares.items() if share]
    return [f"  IDs outside the table, dropped: {'  '.join(shares)}"] if shares else []


def _dead_experts(record: EvalRecord) -> list[str]:
    """A line for each level with experts that no gate uses."""
    dead = {level: ", ".join(map(str, use.dead)) for level, use in record.gates.items() if use.dead}
    remedy = "model.gate_dropout and model.gate_noise work against it"
    return [f"  no gate uses expert {experts} of {level}: {remedy}" for level, experts in dead.items()]


def start_up_page(facts: Mapping[str, object], plan: str = "") -> str:
    """Names and values one below the other, then the sharding plan; at most 40 lines of 100 columns.

    A plan that is longer is cut, and says so: it is whole in the run directory's plan.txt.
    """
    width = max((len(name) for name in facts), default=0)
    lines = [f"{name:<{width}}  {line}" for name, value in facts.items() for line in str(value).splitlines()]
    room = PAGE_LINES - len(lines) - 1
    shown = plan.splitlines()
    if len(shown) > room:
        shown = [*shown[: room - 1], f"... {len(shown) - room + 1} more lines in plan.txt"]
    return "\n".join(line[:PAGE_WIDTH].rstrip() for line in [*lines, *([""] if shown else []), *shown])


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose first column names what the numbers in the others are of."""
    return text_table(rows, right=range(1, len(rows[0])), indent="  ")


def ratio(value: float) -> str:
    """`.812`, `1.023`, `12.3`: three digits and no leading zero; `-` where undefined."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else str(value)
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def count(value: float) -> str:
    """`834`, `19.2k`, `1.92M`, `3.40G`: three digits."""
    if not math.isfinite(value):
        return "-"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if round(value) >= size:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """`8s`, `4m05s`, `1h12m`, `3d04h`."""
    if not math.isfinite(seconds):
        return "-"
    whole = round(max(seconds, 0))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    minutes = round(whole / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60}h{minutes % 60:02}m"
    hours = round(whole / 3600)
    return f"{hours // 24}d{hours % 24:02}h"


def _memory(memory: Memory) -> str:
    limit = f"{memory.limit:.0f}" if memory.limit >= 10 else f"{memory.limit:.1f}"
    return f"mem {memory.used:.1f}/{limit} GiB"


def _cell(metric: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if metric == "rows" else f"{value:.5f}"
