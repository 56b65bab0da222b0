"""A bundle as a server: HTTP and gRPC, the Open Inference Protocol v2 and JSON rows.

serve      the parent: opens the ports, starts one process per core, starts those that die again
replica    the HTTP routes for processes of others (Ray Serve)
worker     one process: loads the bundles, one event loop for HTTP, gRPC and scoring
listening  the HTTP port; connections (one client's)
app        HTTP routes; body (what is read of a request), predict (JSON rows), v2 (the protocol's JSON),
           openapi and page (what people see)
service    gRPC methods; messages (their descriptors)
tensors    the protocol's tensors <-> columns of raw values
calls      what one request asks for, and how requests are joined
batcher    waiting calls are scored together, in the loop itself
models     which bundles are served under which name and version; swapped while requests run
skew       nulls, unknown and clipped IDs that requests bring; request_log (rows and scores, kept as Parquet)
board      memory that all processes share: what to serve, and counters; metrics (as Prometheus reads them)
"""
