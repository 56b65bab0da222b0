"""kserve's own clients against a server: `python kserve_clients.py URL HOST:PORT MODEL`, in an environment of theirs.

kserve needs other versions than this project has, so this is a program, not a test. It fails where a client does.
"""

import asyncio
import sys

import numpy as np
from kserve import (  # pyright: ignore[reportMissingImports]
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)

_DTYPES = {"FP32": np.float32, "FP64": np.float64, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_}


def _inputs(metadata: dict, rows: int = 2) -> list:
    made = []
    for one in metadata["inputs"]:
        shape = [rows, *(max(size, 1) for size in one["shape"][1:])]
        tensor = InferInput(one["name"], shape, one["datatype"])
        if one["datatype"] == "BYTES":
            tensor.set_data_from_numpy(np.full(shape, b"a", object))
        else:
            tensor.set_data_from_numpy(np.ones(shape, _DTYPES[one["datatype"]]))
        made.append(tensor)
    return made


async def main(url: str, grpc: str, model: str) -> None:
    """Every call that the clients have, and one inference over each protocol: the scores are the same."""
    import httpx

    metadata = httpx.get(f"{url}/v2/models/{model}").json()
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await rest.is_server_live(url)
    assert await rest.is_server_ready(url)
    assert await rest.is_model_ready(url, model)
    over_http = await rest.infer(url, InferRequest(model, _inputs(metadata)), model_name=model)
    client = InferenceGRPCClient(grpc)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready(model)
    over_grpc = await client.infer(InferRequest(model, _inputs(metadata)))
    for one, other in zip(over_http.outputs, over_grpc.outputs, strict=True):
        np.testing.assert_allclose(one.as_numpy(), other.as_numpy(), rtol=1e-6)
        print(one.name, one.as_numpy().reshape(-1).tolist())  # noqa: T201
    print("passed")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
