"""How long a run stands still after a fault: `python -m benchmarks.recovery`."""
