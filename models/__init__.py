"""Plain torch: tensors in, logits and losses out. Knows no table, no rank and no file.

Read: `tops` (what predicts, one file each; `tops/mmoe.py` first), with `experts`, `gates` and `towers`, which most of
them are made of, and `build`, which makes the one that a config names. Then `criterion` and `losses` (from logits to
task losses), `balancing` and `balance` (from task losses to one number), `fork` (where the tasks' gradients meet).
`batched` has the matrix products beneath, `draws` the layers that draw random numbers.
"""
