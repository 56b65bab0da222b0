"""Loads a bundle and scores rows with it: no torchrec, no ray, no training code.

Read: `signature` (what is in a bundle), `bundle` (loads and scores), with `columns` and `inputs` (from rows to tensors)
and `program`; then `score` (files) and `server` (requests).
"""
