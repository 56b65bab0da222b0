"""metrics.jsonl stays one line a record, however often the run is cut and goes on."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.telemetry.metrics_file import MetricsFile, read_metrics


def write(path, steps, resume_step=None, **more):
    file = MetricsFile(path, resume_step)
    for step in steps:
        file.write(json.dumps({"step": step, **more}))
    file.close()


def test_lines_can_be_read_while_the_run_goes_on(tmp_path):
    file = MetricsFile(tmp_path / "new" / "metrics.jsonl", None)
    file.write('{"step": 10, "loss": null}')
    assert read_metrics(tmp_path / "new" / "metrics.jsonl") == [{"step": 10, "loss": None}]
    file.close()


def test_what_will_be_repeated_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [10, 20, 20, 30, 40], attempt=1)
    write(path, [30, 40, 50], resume_step=20, attempt=2)
    found = [(line["step"], line["attempt"]) for line in read_metrics(path)]
    assert found == [(10, 1), (20, 1), (20, 1), (30, 2), (40, 2), (50, 2)]
    write(path, [10], attempt=3)
    assert [line["attempt"] for line in read_metrics(path)] == [3], "a run that begins again keeps nothing"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12), st.integers(0, 60)), max_size=5))
def test_cut_anywhere_every_step_stands_once_and_in_order(tmp_path, attempts):
    """Each attempt logs some steps, is killed in the middle of a line, and the next goes on from a checkpoint."""
    path = tmp_path / "metrics.jsonl"
    path.unlink(missing_ok=True)
    checkpoint = None
    for steps, since_checkpoint, cut in attempts:
        first = (checkpoint or 0) + 1
        write(path, range(first, first + steps), checkpoint)
        path.write_bytes(path.read_bytes()[: path.stat().st_size - cut] if cut < 12 else path.read_bytes())
        reached = max((line["step"] for line in read_metrics(path)), default=0)
        checkpoint = max(0, reached - since_checkpoint) or None
    file = MetricsFile(path, checkpoint)
    file.close()
    assert [line["step"] for line in read_metrics(path)] == list(range(1, (checkpoint or 0) + 1))
