"""What a data set is: its files, their footers in a manifest, partitions that arrive later, storage that fails.

Read: `listing` (which files belong to it), `scan` (reads their footers), `manifest` (the result, which a run keeps),
`partitions` (the order of folders), `follow` (folders that arrive later). Beneath: `source` (local or remote), `walk`,
`faults` (ask again, or refuse), `threads`. `write` is for those who make data.
"""
