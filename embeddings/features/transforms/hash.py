"""Integers and strings of any number into a table of fixed size: one 64-bit hash, then modulo.

Unequal IDs may share a row. See `features.xxh64` for the hash; 5 and "5" are different IDs, 5 as int32 and int64 the
same.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.choice_settings import ChoiceSettings
from configs.schema import SparseFeature, TableConfig
from embeddings.features.arrow import byte_slices, integers, is_bytes, is_text, refuse
from embeddings.features.places import to_train
from embeddings.features.transforms import Transform
from embeddings.features.xxh64 import hash_bytes, hash_integers, reduce_modulo


def build(settings: ChoiceSettings, name: str, feature: SparseFeature, table: TableConfig) -> Transform:
    """Values -> XXH64 modulo `table.num_embeddings`, as unsigned numbers."""
    num_embeddings = table.num_embeddings

    def transform(values: pa.Array, where: str) -> npt.NDArray[np.int64]:
        if pa.types.is_dictionary(values.type):
            return transform(values.dictionary, where)[values.indices.to_numpy()]
        if is_text(values.type) or is_bytes(values.type):
            return reduce_modulo(hash_bytes(*byte_slices(values)), num_embeddings).view(np.int64)
        numbers = integers(values, where)
        if numbers is None:
            refuse(values.type, where, "an ID", f"Write integers or strings.{to_train('use transform: bucketize.')}")
        return hash_integers(numbers, num_embeddings).view(np.int64)

    return transform
