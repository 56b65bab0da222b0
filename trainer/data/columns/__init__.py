"""What the columns of a row group become: bags of IDs, dense numbers, labels, weights, groups.

Read: `block` (the arrays of a row group), `targets` (labels and weights) with `numbers` and `reweighting`, `groups`
(for GAUC), `checks` (what is refused before a run starts).
"""
