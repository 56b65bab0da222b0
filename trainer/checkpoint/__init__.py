"""The saved state of a run: written by all ranks together, found whole or not at all, loaded by any number of ranks.

Read: `checkpointer` (save, find, load), `state` (what is saved), `files` (which files make a checkpoint, and whether it
is whole), `storage` (where a tensor lies in them), `values` (its bytes), `match` (does the state fit),
`regions` (parts of tensors, for others than a run that resumes); `chain`, `there` and `finding` (which state is taken),
`links` and `link_files` (what changed since the state before), `merge` and `upkeep` (the next base).
"""
