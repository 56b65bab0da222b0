"""The only folder that imports Ray. It takes a callable and knows nothing of recommenders.

Read: `worker` (what a launched function knows), `launch` (the whole way), then its parts: `connecting` (which cluster),
`private` (one for a run alone), `room` (is there room), `group` (the workers under Ray Train), `process_group` (what
they talk through), `channel` (lines, results and stops between workers and driver), `signals` (Ctrl-C), `failures`
(what is said of a failed worker), `imports`. `replicas` is for serving, under Ray Serve.
"""

import os

# Ray's calls would start a cluster of their own when there is none: after a second Ctrl-C, or a cluster that has gone.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
