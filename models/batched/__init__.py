"""Many small networks as a few wide matrix products."""
