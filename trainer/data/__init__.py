"""Rows: from the files of a data set to the batches of a worker.

Read: `dataset` (which files there are), `columns` (what their columns become), `reading` (in which order rows form
batches). Beside them: `inspection` (a data set described for people), `generators` (synthetic data) and `importers`
(public data sets), one file each.
"""
