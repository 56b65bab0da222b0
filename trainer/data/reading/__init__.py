"""From row groups to batches: the order of rows, decoding, reading ahead, gathering."""
