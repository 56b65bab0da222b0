"""The optimizers of a run: one fused into the backward pass of the tables, one of torch.optim for all the rest.

Data-parallel tables have no fused optimizer: they are trained by the dense one, on purpose. Learning-rate schedules
are the trainer's: it sets both rates before a step.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
from torch import nn, optim
from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward
from torchrec import optim as fused
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from configs.errors import UserError
from configs.fused_optimizers import missing
from configs.schema import Config, DenseOptimizer, TrainingConfig
from embeddings.adam import CpuAdam
from embeddings.dense_gradients import DenseGradients

_FUSED: dict[str, type[optim.Optimizer]] = {
    "rowwise_adagrad": fused.RowWiseAdagrad,
    "adagrad": fused.Adagrad,
    "sgd": fused.SGD,
    "adam": fused.Adam,
}


def attach_sparse_optimizer(tables: EmbeddingBagCollection, config: Config, device: torch.device) -> None:
    """Tie the fused optimizer to every table that is not data-parallel: before planning, which counts its state.

    Raises:
        UserError: fbgemm has no such optimizer on this device, or no weight decay for it.
    """
    arguments = _fused_arguments(config, device)
    for name, weight in tables.embedding_bags.named_parameters():
        if config.tables[name.removesuffix(".weight")].sharding != "data_parallel":
            _apply_optimizer_in_backward(
                _FUSED[config.training.sparse_optimizer.kind], [weight], optimizer_kwargs=dict(arguments)
            )


def _fused_arguments(config: Config, device: torch.device) -> dict[str, Any]:
    sparse = config.training.sparse_optimizer
    data_types = {table.data_type for table in config.tables.values()}
    for key, why, remedy in missing(sparse, device.type, data_types):
        raise UserError(f"training.sparse_optimizer.{key}={getattr(sparse, key)}: {why}\nTo go on, {remedy}.")
    arguments: dict[str, Any] = {"lr": sparse.learning_rate}
    if sparse.kind != "sgd":
        arguments["eps"] = sparse.eps
    if sparse.weight_decay:
        arguments["weight_decay"] = sparse.weight_decay
        arguments["weight_decay_mode"] = WeightDecayMode.L2  # the kernels' own default ignores weight_decay
    if config.training.deterministic:
        arguments["stochastic_rounding"] = False  # of fp16 tables, on GPUs; no checkpoint has its random numbers
    return arguments


class RankerOptimizer(CombinedOptimizer):
    """Both optimizers of a sharded module as one: `step`, `zero_grad`, `state_dict`, `load_state_dict`.

    State is keyed by parameter name, and sharded as its table is. The fused half steps inside `backward()`.
    """

    def __init__(
        self, sparse: CombinedOptimizer, dense: KeyedOptimizerWrapper, largest_norm: float | None = None
    ) -> None:
        """largest_norm: of the dense gradient, which is scaled down to it before a step; None leaves it."""
        super().__init__([sparse, dense])
        self._largest_norm = largest_norm
        self._rate_in_kernels: float | None = None
        self.sparse = sparse
        self.dense = dense
        self.gradients = DenseGradients(list(dense.params.values()))
        self.is_left_out: Callable[[], bool] = lambda: False
        """Asked in a step: whether the dense parameters are to stay as they are, the same on all ranks."""

    def step(self, closure: Any = None) -> None:
        """The dense step, on gradients averaged over ranks; the tables' own was part of the backward pass."""
        self.gradients.average()
        if self.is_left_out():
            return
        if self._largest_norm is not None:
            nn.utils.clip_grad_norm_(cast(Iterable[torch.Tensor], self.dense.params.values()), self._largest_norm)
        self.dense.step(closure)

    step.hooked = True  # pyright: ignore[reportFunctionMemberAccess] - as in embeddings/adam.py

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Of the dense half: the tables have no gradients that stay."""
        self.dense.zero_grad(set_to_none=set_to_none)

    def set_learning_rates(self, sparse: float, dense: float) -> None:
        """Learning rates of the coming step; call it before `backward()`, which applies the sparse one."""
        for group in _groups(self.dense):
            group["lr"] = dense
        for group in _groups(self.sparse):
            group["lr"] = sparse
        if sparse != self._rate_in_kernels:
            self.sparse.step()  # moves the rate into the kernels, and does nothing else
            self._rate_in_kernels = sparse

    def initialize_state(self) -> None:
        """Create the dense optimizer's state, which torch.optim would on the first step, so that a checkpoint has
        somewhere to go. Weights and the meaning of the first step stay what they were."""
        groups = _groups(self.dense)
        kept = [(group["lr"], group["weight_decay"]) for group in groups]
        for group in groups:
            group.update(lr=0.0, weight_decay=0.0)
        self.dense.init_state()
        for group, (learning_rate, weight_decay) in zip(groups, kept, strict=True):
            group.update(lr=learning_rate, weight_decay=weight_decay)
        for state in self.dense.state.values():
            if "step" in state:
                state["step"].zero_()
        for parameter in self.dense.params.values():
            parameter.grad = None


def _groups(optimizer: KeyedOptimizer) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], list(optimizer.param_groups))  # torchrec declares them read-only


def combined_optimizer(model: DistributedModelParallel, training: TrainingConfig) -> RankerOptimizer:
    """The fused optimizer of `model`'s tables and a new dense one for all its other parameters."""
    parameters = dict(in_backward_optimizer_filter(model.named_parameters()))
    dense = KeyedOptimizerWrapper(parameters, lambda params: _dense_optimizer(params, training.dense_optimizer))
    return RankerOptimizer(model.fused_optimizer, dense, training.clip_gradient_norm)


def _dense_optimizer(parameters: Sequence[Any], config: DenseOptimizer) -> optim.Optimizer:
    """torch.optim's, in its fused form: one kernel for all parameters of a device."""
    on_cpu = parameters[0].device.type == "cpu"
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.kind in ("adam", "adamw") and on_cpu:
        del shared["fused"]
        return CpuAdam(parameters, eps=config.eps, decoupled_weight_decay=config.kind == "adamw", **shared)
    if config.kind == "adam":
        return optim.Adam(parameters, eps=config.eps, **shared)
    if config.kind == "adamw":
        return optim.AdamW(parameters, eps=config.eps, **shared)
    if config.kind == "sgd":
        return optim.SGD(parameters, **shared)
    shared["fused"] = on_cpu  # torch has a fused Adagrad for CPU alone
    return optim.Adagrad(parameters, eps=config.eps, **shared)
