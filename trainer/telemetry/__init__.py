"""What a run shows: on the screen, in TensorBoard, in metrics.jsonl.

Read: `window` (what is gathered between two log lines), `metrics` and `auc` (exact over all ranks), `records` (what is
known at a log line), `report` (where records go): `console`, `tensorboard`, `metrics_file`. What else is watched:
`gates`, `conflicts`, `divergence`, `memory`, `profile`.
"""
