"""A runtime of MLServer with a bundle. MLServer batches by itself where its settings say so."""

import numpy as np
from mlserver import MLModel  # pyright: ignore
from mlserver.codecs import NumpyCodec, StringCodec  # pyright: ignore
from mlserver.types import InferenceRequest, InferenceResponse  # pyright: ignore

from benchmarks.peers.bundle_model import BundleModel


class BundleRuntime(MLModel):
    """What MLServer calls."""

    async def load(self) -> bool:
        """Loads the bundle."""
        self.model = BundleModel()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One response."""
        arrays = {}
        for one in payload.inputs:
            if one.datatype == "BYTES":
                arrays[one.name] = np.array(StringCodec.decode_input(one), dtype=object)
            else:
                arrays[one.name] = NumpyCodec.decode_input(one)
        predictions = self.model.predict(arrays)
        outputs = [
            NumpyCodec.encode_output(task, np.ascontiguousarray(predictions[:, place : place + 1]))
            for place, task in enumerate(self.model.bundle.tasks)
        ]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
