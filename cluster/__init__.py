"""The only folder that imports Ray. It takes a callable and knows nothing of recommenders.

Read: `worker` (what a launched function knows), `launch` (the whole way), then its parts. Which cluster: `connecting`,
`private` (one for a run alone), `room` (is there room), `group` (agents under Ray Train), `scaling` (how many, and when
anew). Beside the driver: `channel` (lines, results, stops), `meeting` (attempts and faults), `clues`, `failures` (what
is said of them), `signals` (Ctrl-C). On each host: `agent` (watches a rank), `told_to_go` (SIGTERM), `slot` (its
place), `standby` (has imported everything, and forks), `calling` (the process that calls the function), `board`
(numbers that they share), `imports`. `doctor` checks a cluster; deploy/ has files that start one, and `leaving` and
`waiting` are what they call. `replicas` is for serving, under Ray Serve.
"""

import os

# Ray's calls would start a cluster of their own when there is none: after a second Ctrl-C, or a cluster that has gone.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
