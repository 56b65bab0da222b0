"""Which ranks hold which part of which table, and what that costs.

Read: `plan` (a plan as data), `planner` (makes it), with `sharding_types` (what a table may become), `topology` and
`host_memory` (the machines), `table_memory` (bytes of a table), then `plan_report` (what is printed).
"""
