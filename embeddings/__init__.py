"""Raw columns -> IDs -> KeyedJaggedTensor -> sharded tables.

Torchrec and fbgemm talk at length when they are imported and when they plan: here, before any of them is imported,
they are told to report errors only. What users should know is said by this package itself.
"""

import logging

for _name in ("torchrec", "fbgemm_gpu"):
    logging.getLogger(_name).setLevel(logging.ERROR)
