"""Goodput of a run that is launched, broken off and resumed by chance, held against a count of every second."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from cluster.worker import Fault
from trainer.run import history
from trainer.telemetry.goodput import Goodput, Lost, Tally, costs, summary

Seconds = st.integers(1, 50).map(float)
Event = st.one_of(
    st.tuples(st.just("steps"), st.integers(1, 5), Seconds),
    st.tuples(st.just("pause"), Seconds),
    st.tuples(st.just("save"), Seconds),
    st.tuples(st.just("fault"), st.integers(0, 8), Seconds),  # back by so many steps, so long
    st.tuples(st.just("stop"), Seconds),
    st.tuples(st.just("kill"), st.integers(0, 8), Seconds),
)


class Simulated:
    """A run whose every second is counted, and the Goodput of its attempts."""

    def __init__(self, folder: Path) -> None:
        self.history, self.metrics = folder / "history.jsonl", folder / "metrics.jsonl"
        self.metrics.touch()
        self.time, self.step, self.reached = 1000.0, 0, 0
        self.trained = self.spent = self.lost = 0.0
        self.faults: list[Fault] = []
        self.open: list[float] = []  # when faults were noticed after which no new step is done
        self.closed = 0
        self.launch()

    def launch(self) -> None:
        self.faults = []
        history.append(self.history, "launch", time=self.time)
        self.wait(7.0)
        self.attempt()

    def attempt(self) -> None:
        lines = [json.loads(line) for line in self.metrics.read_text().splitlines()]
        self.goodput = Goodput(self.history, self.metrics, self.faults, self.step, clock=lambda: self.time)
        kept = [line for line in lines if line["step"] <= self.step]
        self.metrics.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self.has_stepped = False

    def wait(self, seconds: float) -> None:
        self.time += seconds
        self.spent += seconds

    def steps(self, count: int, seconds: float) -> None:
        for _ in range(count):
            self.wait(seconds)
            self.step += 1
            if self.step > self.reached:
                self.reached = self.step
                self.trained += seconds if self.has_stepped else 0.0  # the first of a process reads and warms up
                self.close_faults()
            self.has_stepped = True
            self.goodput.step(self.step)
            line = {"kind": "train", "step": self.step, "time": self.time, **self.goodput.scalars()}
            with self.metrics.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def close_faults(self) -> None:
        self.lost += self.time - min(self.open, default=self.time)
        self.closed += len(self.open)
        self.open = []

    def pause(self, seconds: float) -> None:
        with self.goodput.paused():
            self.time += seconds

    def save(self, seconds: float) -> None:
        self.wait(seconds)
        self.goodput.stood_still(seconds)

    def fault(self, back: int, seconds: float) -> None:
        self.faults.append(Fault(1, "host", self.step, "killed", self.time))
        self.open.append(self.time)
        self.wait(seconds)
        self.step = max(0, self.step - back)
        self.attempt()

    def stop(self, seconds: float) -> None:
        self.goodput.finish()
        self.close_faults()
        history.append(self.history, "end", time=self.time)
        self.time += seconds
        self.launch()

    def kill(self, back: int, seconds: float) -> None:
        self.open.append(self.time)
        self.wait(seconds)
        self.step = max(0, self.step - back)
        self.launch()


@given(st.lists(Event, max_size=12))
def test_every_second_is_counted_where_it_belongs(events: list[tuple]) -> None:
    with TemporaryDirectory() as folder:
        run = Simulated(Path(folder))
        for name, *arguments in events:
            run.steps(1, 2.0)  # so that the last line of metrics is of now
            getattr(run, name)(*arguments)
        run.steps(20, 1.0)
        tally = run.goodput.now()
        assert tally == Tally(run.time, run.trained, run.spent, run.reached)
        assert 0 <= tally.goodput <= 1
        scalars = run.goodput.scalars()
        written = [line for line in history.read(run.history) if line["kind"] == "fault"]
        assert scalars["run/faults"] == len(written) == run.closed
        assert scalars["run/lost_seconds"] == sum(line["lost"] for line in written) == run.lost
        assert "goodput" in run.goodput.finish()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), st.floats(0, 1e6))
def test_faults_share_the_time_to_the_next_new_step(times: list[float], later: float) -> None:
    faults = [Fault(0, "h", None, "c", time) for time in times]
    new_step = max(times) + later
    lost = costs(faults, new_step)
    assert [one.fault.time for one in lost] == sorted(times)
    assert all(one.seconds >= 0 for one in lost)
    assert abs(sum(one.seconds for one in lost) - (new_step - min(times))) <= 1e-6 * new_step


def test_the_line_at_the_end() -> None:
    launch = Tally(0, trained=7824, spent=8040, reached=9)
    assert summary(launch, launch, 41.2, []) == "goodput 97.3% of 2h14m, 41s to start; no faults"
    killed = Fault(1, "10.0.0.2", 1240, "its process was ended by signal 9 (SIGKILL); the kernel sends it", 5.0)
    lost = [Lost(killed, 4.12), *[Lost(Fault(None, "", None, "the job was killed", 9.0), 2.0)] * 3]
    run = launch._replace(spent=16080)
    assert summary(launch, run, None, lost) == (
        "goodput 97.3% of 2h14m (48.7% of 4h28m since the first start); 4 faults: 10.1 s lost "
        "(rank 1 on 10.0.0.2: its process was ended by signal 9 after step 1,240: 4.1 s; the job was killed: 2.0 s; "
        "the job was killed: 2.0 s; and 1 more)"
    )


def test_a_line_that_a_crash_cut_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.append(path, "launch")
    with path.open("a") as file:
        file.write('{"kind": "att')
    history.append(path, "end")
    assert [line["kind"] for line in history.read(path)] == ["launch", "end"]
