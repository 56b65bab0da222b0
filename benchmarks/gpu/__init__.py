"""Every figure of one GPU in one command, in the order of their worth: see `benchmarks/gpu/__main__.py`."""
