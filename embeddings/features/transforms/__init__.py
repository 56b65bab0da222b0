"""ID transforms: each module is one way from raw values to rows of an embedding table, chosen by its name.

`build(name, feature, table)` checks the feature's settings once and returns a function from the flat values of a
column (an Arrow array without nulls) and a text that says where they come from, to row numbers (int64, same length).
-1 drops an ID from its bag.

A module whose values have limits says so by `limits(name, feature, table)`, so that footers are checked for them.
"""
