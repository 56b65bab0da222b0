"""ID transforms: each module is one way from raw values to rows of an embedding table, chosen by its name.

A module has `build`, and `Settings` if it has any beside the keys of the feature. One whose values have limits says so
by `limits(name, feature, table)`, so that footers are checked for them.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.schema import SparseFeature, TableConfig

Transform = Callable[[pa.Array, str], npt.NDArray[np.int64]]
"""The flat values of a column, without nulls, and a text that says where they come from -> row numbers, as many.

-1 drops an ID from its bag.
"""


class TransformModule(Protocol):
    """What a module of this package has."""

    def build(self, settings: Any, name: str, feature: SparseFeature, table: TableConfig, /) -> Transform:
        """Checks the feature's settings once. name: of the feature."""
        ...
