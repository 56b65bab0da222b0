"""From a checkpoint of a run to a bundle that a server loads.

Read: `write` (the whole way), `choose` (which checkpoint), `weights` (tables and top in one file), `forward_pass` (what
is computed) and `programs` (that as a graph, and compiled), `parity` (bundle and trainer score the same rows), `card`
(all of it for people).
"""
