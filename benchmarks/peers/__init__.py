"""Other servers with the same bundle, each in an environment of its own: what `benchmarks.serving` compares with.

A file for each: the model as that server wants it, and how it is started. In every one this project's code scores, so
that servers are compared, not models.
"""
