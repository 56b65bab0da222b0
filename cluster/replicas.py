"""An ASGI application as replicas under Ray Serve, which start on many machines and grow with the load.

    serve run cluster/ray_serve.yaml        # or `serve deploy`, on a cluster that runs

How many there are, and when there are more, is said in that file. It names `application` here, and gives it where a
function is that makes the application: this folder knows nothing of what is answered. Needs `ray[serve]`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ray import serve

_CALLS_AT_ONCE = 256  # per replica, unless the file says else: what waits together is scored together


class Replica:
    """One application in one process."""

    def __init__(self, make: str, arguments: Mapping[str, Any]) -> None:
        self._make, self._arguments = make, arguments

    def __serve_build_asgi_app__(self) -> Any:
        """Ray Serve calls it where the replica is."""
        module, _, name = self._make.partition(":")
        return getattr(import_module(module), name)(**self._arguments)


def application(args: Mapping[str, Any]) -> serve.Application:
    """What Ray Serve deploys.

    Args:
        args: make, a function's place as "package.module:name"; arguments, which it is called with.
    """
    deployment = serve.deployment(name="Replica", max_ongoing_requests=_CALLS_AT_ONCE)
    return deployment(serve.ingress()(Replica)).bind(args["make"], args.get("arguments", {}))
