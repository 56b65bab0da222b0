"""What a checkpoint holds of the model and its optimizers, as one flat dict of tensors.

Flat, because torch.distributed.checkpoint reshards a flat dict exactly, and a nested one not always.
"""

import hashlib

from torch import Tensor, nn
from torchrec.distributed.model_parallel import DistributedModelParallel

from configs.load import dump_config
from configs.schema import Config
from embeddings.optimizer import RankerOptimizer
from trainer.run import saved_names


def training_state(model: DistributedModelParallel, optimizer: RankerOptimizer) -> dict[str, Tensor]:
    """The live tensors themselves, by their saved names: to save, or to load into."""
    state: dict[str, Tensor] = {saved_names.model(name): value for name, value in model.state_dict().items()}
    for parameter, values in optimizer.state_dict()["state"].items():
        state |= {saved_names.optimizer(parameter, name): value for name, value in values.items()}
    return state


def may_be_undefined(objective: nn.Module) -> frozenset[str]:
    """Saved names in which NaN has a meaning: buffers in which a balance keeps losses that it has not seen yet."""
    buffers = (name for name, _ in objective.named_buffers())
    return frozenset(saved_names.model(f"{saved_names.OBJECTIVE}.{name}") for name in buffers)


def config_fingerprint(config: Config) -> str:
    """SHA-256 of the resolved config, in hexadecimal."""
    return hashlib.sha256(dump_config(config).encode()).hexdigest()
