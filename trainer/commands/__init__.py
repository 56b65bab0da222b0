"""One command, one file: its options, the driver's part, the worker's part.

`trainer.cli` collects them. What several share: `options` (arguments), `screen` (what is printed), `on_workers` (Ray).
A file here imports nothing heavy before its command needs it, so that `--help` and config errors come at once.
"""
