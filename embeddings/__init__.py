"""Raw columns -> IDs -> KeyedJaggedTensor -> sharded tables.

Read: `features` (columns to IDs), `kjt` (bags of IDs in TorchRec's form), `tables` and `pooling` (what is looked up),
`planning` (which rank holds what), `sharding` (puts it there), `optimizer`, with `adam` and `dense_gradients`.

Torchrec, fbgemm and torch talk at length when they are imported, plan and train: here, before any of them is, they are
told to report errors only, and three warnings about their own calls of each other are dropped. What users should know
is said by this package itself.
"""

import logging
import warnings

for _name in ("torchrec", "fbgemm_gpu", "torch.fx._symbolic_trace"):
    logging.getLogger(_name).setLevel(logging.ERROR)
# fbgemm 1.6 does not know its own torch, and says so for each of its libraries; trainer/run/versions.py does.
logging.getLogger().addFilter(lambda record: "_fbgemm_torch_compat_table has no entry" not in str(record.msg))
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torchrec\.distributed\.")
warnings.filterwarnings("ignore", r"fbgemm::dense_embedding_codegen_lookup_function: an autograd kernel", UserWarning)
