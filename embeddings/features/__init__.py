"""Raw columns to IDs and numbers, the same in training and in serving. Needs no torchrec."""
