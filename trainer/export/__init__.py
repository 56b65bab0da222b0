"""From the newest checkpoint of a run to a bundle that a server loads.

Read: `write` (the whole way), `weights` (tables and top in one file), `program` (the forward pass, exported and
compiled), `parity` (bundle and trainer score the same rows).
"""
