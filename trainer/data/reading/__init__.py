"""From row groups to batches: the order of rows, decoding, reading ahead, gathering.

Read: `order` (which rows form a batch), `reader` (the whole way), then its parts: `chunks` (what to read next),
`decode` (a row group), `prefetch` (threads within a byte budget), `lane` and `assemble` (gathering), `batch` (the
result).
"""
