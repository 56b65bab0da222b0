"""Imported by a standby process, it has that process take itself for one whose imports have opened a GPU."""

import sys

sys.modules["__main__"]._has_opened_gpu = lambda: True  # pyright: ignore[reportAttributeAccessIssue]
