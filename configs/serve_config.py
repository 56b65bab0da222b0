"""The section `serve`: how bundles are served. Neither training nor the bundle depends on it."""

from typing import Annotated

from pydantic import Field

from configs.section import NonNegativeInt, PositiveInt, Seconds, Section

_Port = Annotated[int, Field(ge=0, le=65535)]


class ServeConfig(Section):
    """What `serve` listens on, and how much it takes. `serve BUNDLE --config FILE` reads it alone."""

    host: Annotated[str, Field(description="Interface to listen on: 127.0.0.1 for this machine, 0.0.0.0 for all.")] = (
        "127.0.0.1"
    )
    port: Annotated[_Port, Field(description="Port of HTTP; 0 takes a free one.")] = 8080
    grpc_port: Annotated[
        _Port | None, Field(description="Port of gRPC; 0 takes a free one, null offers HTTP alone.")
    ] = 8081
    name: Annotated[
        str | None, Field(description="Name under which clients ask for the model; the run's folder when left out.")
    ] = None
    processes: Annotated[
        NonNegativeInt,
        Field(description="One scores on one core; 0 takes one per core. More only wait for each other."),
    ] = 0
    token_file: Annotated[
        str | None, Field(description="File with a token that every request must bring; without it all are answered.")
    ] = None
    tls_certificate: Annotated[
        str | None, Field(description="PEM file; with it and tls_key both protocols are encrypted.")
    ] = None
    tls_key: Annotated[str | None, Field(description="PEM file of the certificate's key.")] = None
    repository_control: Annotated[
        bool,
        Field(description="Whether requests may load and unload models; SIGHUP always loads what is new on disk."),
    ] = False
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
    drain_s: Annotated[
        float,
        Field(ge=0, le=3600, description="After SIGTERM it says for so long that it is not ready, and still answers."),
    ] = 0.0
    rows_per_call: Annotated[
        PositiveInt,
        Field(description="Rows of waiting requests that are scored together; more cost latency, fewer throughput."),
    ] = 512
    batch_delay_ms: Annotated[
        float,
        Field(ge=0, le=1e6, description="How long the oldest request waits at most while others still arrive."),
    ] = 2.0
    max_waiting_rows: Annotated[
        PositiveInt,
        Field(description="Rows that may wait in a process before requests get 503: it bounds the latency."),
    ] = 32_768
    retry_after_s: Annotated[PositiveInt, Field(description="What Retry-After says beside 503.")] = 1
    request_log: Annotated[
        str | None,
        Field(
            description="Folder in which rows and scores of requests are kept as Parquet, for `score`; none without."
        ),
    ] = None
    request_log_share: Annotated[
        float,
        Field(gt=0, le=1, description="Of the batches that are kept; each costs time beside the requests."),
    ] = 1.0
    request_log_mib: Annotated[
        PositiveInt, Field(description="Of the log's files; the oldest are removed when there are more.")
    ] = 1024
    request_log_file_s: Annotated[
        Seconds, Field(description="After which a file is finished and can be read; a shorter time makes more files.")
    ] = 60.0
    keep_alive_s: Annotated[PositiveInt, Field(description="After which an idle HTTP connection is closed.")] = 75
    connection_age_s: Annotated[
        Seconds,
        Field(description="After which a gRPC client connects anew: long ones stay with the process they met first."),
    ] = 60.0
    backlog: Annotated[PositiveInt, Field(description="Connections that may wait to be accepted.")] = 2048
