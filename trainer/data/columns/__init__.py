"""What the columns of a row group become: bags of IDs, dense numbers, labels, weights, groups."""
