"""LitServe with a bundle. It has no tensors of its own, and reads each body as JSON before it asks what is in it. So
numbers travel as Base64 in JSON, column after column: [C, R] int64 there, [R, T] float32 back.
"""

import base64
import os

import litserve as ls  # pyright: ignore
import numpy as np

from benchmarks.peers.bundle_model import BundleModel


class BundleAPI(ls.LitAPI):
    """What LitServe calls."""

    def setup(self, device: str) -> None:
        """Loads the bundle."""
        self.model = BundleModel()

    def decode_request(self, request: dict) -> np.ndarray:
        """[C, R]."""
        return np.frombuffer(base64.b64decode(request["data"]), np.int64).reshape(len(self.model.columns), -1)

    def batch(self, inputs: list) -> tuple:
        """All requests that are scored together, and the rows of each."""
        return np.concatenate(inputs, axis=1), [part.shape[1] for part in inputs]

    def predict(self, x: tuple) -> tuple:
        """One call."""
        return self.model.predict(dict(zip(self.model.columns, x[0], strict=True))), x[1]

    def unbatch(self, output: tuple) -> list:
        """The rows of each request."""
        return np.split(output[0], np.cumsum(output[1])[:-1])

    def encode_response(self, output: np.ndarray) -> dict:
        """As it came."""
        return {"data": base64.b64encode(output.tobytes()).decode()}


if __name__ == "__main__":
    server = ls.LitServer(BundleAPI(max_batch_size=64, batch_timeout=0.002), accelerator="cpu", workers_per_device=2)
    server.run(port=int(os.environ["PORT"]), log_level="warning")
