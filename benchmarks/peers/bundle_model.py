"""A bundle for another server: columns as arrays in, predictions out. Runs inside the peer's process."""

import os

import numpy as np
import pyarrow as pa

from trainer.serving.bundle import Bundle


class BundleModel:
    """The bundle in the folder that MULTIGATE_BUNDLE names. Its inputs are columns of single values."""

    def __init__(self) -> None:
        self.bundle = Bundle(os.environ["MULTIGATE_BUNDLE"], verify=False)
        self.columns = list(self.bundle.transforms.columns)

    def predict(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """Predictions [R, T] of columns of R values, text as bytes."""
        columns = [pa.array(_plain(arrays[name].reshape(-1))) for name in self.columns]
        return self.bundle.predict(pa.table(columns, self.columns), "request")


def _plain(values: np.ndarray) -> np.ndarray | list[str]:
    if values.dtype != np.object_:
        return values
    return [value.decode() if isinstance(value, bytes) else value for value in values]
