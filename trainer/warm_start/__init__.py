"""A new run that begins with tables and weights of another (`training.warm_start`).

Read: `source` (which checkpoint, chosen once for the run), `rows` (do rows of a table mean the same in both runs),
`top` (which weights of the top are found in the other run), `load` (reads them into the model).
"""
