"""model.py of Triton's python backend: all requests that it hands over are scored in one call."""

import os
import sys

sys.path[:0] = os.environ["MULTIGATE_PATH"].split(os.pathsep)  # the backend's interpreter ignores PYTHONPATH

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402  # pyright: ignore

from benchmarks.peers.bundle_model import BundleModel  # noqa: E402


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict) -> None:
        """Loads the bundle."""
        self.model = BundleModel()

    def execute(self, requests: list) -> list:
        """One response for each request."""
        model = self.model
        columns = {}
        for name in model.columns:
            parts = [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            columns[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        counts = [len(pb_utils.get_input_tensor_by_name(r, model.columns[0]).as_numpy()) for r in requests]
        predictions = np.split(model.predict(columns), np.cumsum(counts)[:-1])
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(task, np.ascontiguousarray(part[:, place : place + 1]))
                    for place, task in enumerate(model.bundle.tasks)
                ]
            )
            for part in predictions
        ]
