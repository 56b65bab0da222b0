"""Wires configs, embeddings, models and cluster into a run.

Read: `train`, the story of a run, top to bottom; `session` (what a worker trains with), `due` (what happens after a
step) and `stepper` (a step); `build`, `ranker` and `objective` (the model that is trained); `evaluate`. What comes
before workers start: `cli`, `commands` and `prepare`. Below the story: `export`, `checkpoint`, `telemetry`, then `run`
(the run directory), `data` (rows) and `ranks` (sums over workers). `serving` stands alone.
"""
