"""Traces ten steps of rank 0 for chrome://tracing and TensorBoard, when the config names a step to start at."""

from pathlib import Path

from torch.profiler import ProfilerActivity, profile, supported_activities

TRACED_STEPS = 10


class StepProfiler:
    """`tick(step)` before every step; does nothing outside the traced ones."""

    def __init__(self, first: int | None, directory: Path) -> None:
        self._first, self._directory = first, directory
        self._profile: profile | None = None

    def tick(self, step: int) -> None:
        if self._first is None:
            return
        if step == self._first:
            wanted = {ProfilerActivity.CPU, ProfilerActivity.CUDA} & supported_activities()
            started = self._profile = profile(activities=wanted, record_shapes=True)
            started.start()
        elif step == self._first + TRACED_STEPS:
            self.close()

    def close(self) -> None:
        """Writes the trace, if one is being made."""
        if self._profile is not None:
            self._profile.stop()
            self._directory.mkdir(parents=True, exist_ok=True)
            self._profile.export_chrome_trace(str(self._directory / f"step_{self._first}.json.gz"))
            self._profile = None
