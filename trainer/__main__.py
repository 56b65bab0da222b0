"""`python -m trainer COMMAND`: the same as the console script `multigate`."""

import sys
from pathlib import Path

# Python looks first in the folder in which it was called. A user's models/ or torch.py there is not meant.
_ROOT = str(Path(__file__).resolve().parents[1])
if sys.path[0] != _ROOT:
    sys.path.append(sys.path[0])
    sys.path[0] = _ROOT

from trainer.cli import main  # noqa: E402

main()
