"""What a data set is: its files, their footers in a manifest, partitions that arrive later, storage that fails."""
