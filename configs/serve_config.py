"""The section `serve`: how a bundle is served. Neither training nor the bundle depends on it."""

from typing import Annotated

from pydantic import Field

from configs.section import PositiveInt, Seconds, Section


class ServeConfig(Section):
    """What `serve` listens on, and how much it takes. `serve BUNDLE --config CONFIG` reads it from a run's config."""

    host: Annotated[str, Field(description="Interface to listen on: 127.0.0.1 for this machine, 0.0.0.0 for all.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8080
    max_body_mib: Annotated[
        PositiveInt,
        Field(description="Longest body of a request. Several may be in memory at once, each several times its size."),
    ] = 16
    body_timeout_s: Annotated[
        Seconds,
        Field(description="For which a client may take to send a body; raise it for slow clients with large ones."),
    ] = 20.0
    stop_timeout_s: Annotated[
        PositiveInt,
        Field(description="For which open requests may go on after SIGTERM or Ctrl-C; then they are cut off."),
    ] = 30
    rows_per_call: Annotated[
        PositiveInt,
        Field(description="Rows of waiting requests that are scored together; more cost latency, fewer throughput."),
    ] = 1024
    max_waiting_rows: Annotated[
        PositiveInt,
        Field(description="Rows that may wait before requests are answered with 503: it bounds the latency."),
    ] = 32_768
