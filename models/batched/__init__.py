"""Many small networks as a few wide matrix products.

Read: `parallel` (layers of N networks side by side), `stacks` (whole stacks of them as one operation), `mixing`
(experts mixed by gates), `grouping` (tasks of one shape together), `products` (which kernel computes a product),
`apply` (how operations with a derivative by hand are called).
"""
