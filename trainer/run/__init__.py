"""What lies in a run directory, each file with its owner.

Read: `run_directory` (names, who may use it), `manifests`, `vocabularies` and `plans` (what is fixed at the first
start), `position` (how far a run is), `history` (what happened to it), `logs`, `lock` (one job at a time), `following`
(a run whose data grows). `folder` is how files are written whole.
"""
