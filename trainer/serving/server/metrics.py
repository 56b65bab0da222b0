"""`GET /metrics`: the counters of all processes as Prometheus reads them."""

from collections.abc import Sequence

from trainer.serving.server.board import EDGES_S, ROW_EDGES, STAGES
from trainer.serving.server.host import Host
from trainer.serving.server.skew import feature_counts
from trainer.serving.shares import COUNTS

_COUNTERS = {
    "requests": "Requests that were answered.",
    "failed": "Requests that were refused, or that failed.",
    "turned_away": "Of these, with 503: too many rows were waiting.",
    "expired": "Of these, with 504: their time was up.",
    "rows": "Rows that were scored.",
    "batches": "Calls of the program.",
    "logged": "Rows that are in the request log.",
    "log_dropped": "Rows that are not, since its writer could not follow.",
    "log_unwritten": "Rows that are not, since they could not be written; the server's messages say why.",
}


def prometheus_text(host: Host) -> str:
    """The text format, version 0.0.4."""
    lines: list[str] = []
    found = {name: host.totals(name) for name in host.models.names}
    for counter, text in _COUNTERS.items():
        lines += _head(f"multigate_{counter}_total", text, "counter")
        lines += [
            f'multigate_{counter}_total{{model="{_label(name)}"}} {getattr(totals, counter)}'
            for name, (totals, _, _) in found.items()
        ]
    lines += _head("multigate_stage_seconds", "Time of each stage of a request.", "histogram")
    for name, (totals, stages, _) in found.items():
        for stage, buckets in zip(STAGES, stages, strict=True):
            labels = f'model="{_label(name)}",stage="{stage}"'
            seconds = getattr(totals, f"{stage}_ns") / 1e9
            lines += _histogram("multigate_stage_seconds", labels, EDGES_S, buckets, seconds)
    lines += _head("multigate_batch_rows", "Rows of each call of the program.", "histogram")
    for name, (totals, _, rows) in found.items():
        lines += _histogram("multigate_batch_rows", f'model="{_label(name)}"', ROW_EDGES, rows, totals.rows)
    lines += _feature_lines(host)
    lines += _head("multigate_model_info", "Versions that are loaded; 1 for the one that answers.", "gauge")
    for version in host.models.loaded:
        is_default = host.models.is_default(version)
        lines.append(
            f'multigate_model_info{{model="{_label(version.name)}",version="{version.version}"}} {int(is_default)}'
        )
    lines += _head("multigate_rows_waiting", "Rows that wait in the process that answers this.", "gauge")
    lines.append(f"multigate_rows_waiting {host.batcher.rows_waiting}")
    return "\n".join(lines) + "\n"


def _feature_lines(host: Host) -> list[str]:
    """What requests brought for each feature, and what share that was in the rows of training."""
    seen = _head("multigate_feature_values_total", "Values of requests, by what they were; see shares.py.", "counter")
    trained = _head("multigate_feature_training_share", "The same in training's rows, as shares.", "gauge")
    for name in host.models.names:
        for feature, counts in feature_counts(host, name).items():
            label = f'model="{_label(name)}",feature="{_label(feature)}"'
            kinds = zip(COUNTS, counts.tolist(), strict=True)
            seen += [f'multigate_feature_values_total{{{label},kind="{kind}"}} {count}' for kind, count in kinds]
    for version in filter(host.models.is_default, host.models.loaded):
        for feature, shares in version.bundle.signature.shares.items():
            label = f'model="{_label(version.name)}",feature="{_label(feature)}"'
            shown = shares.model_dump().items()
            trained += [f'multigate_feature_training_share{{{label},kind="{kind}"}} {share:g}' for kind, share in shown]
    return seen + trained


def _head(name: str, text: str, kind: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _histogram(name: str, labels: str, edges: Sequence[float], buckets: Sequence[int], total: float) -> list[str]:
    lines, count = [], 0
    for edge, number in zip([*edges, "+Inf"], buckets, strict=True):
        count += number
        lines.append(f'{name}_bucket{{{labels},le="{edge}"}} {count}')
    return [*lines, f"{name}_sum{{{labels}}} {total:g}", f"{name}_count{{{labels}}} {count}"]


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
