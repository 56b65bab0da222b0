"""The sections `model` and `tasks`: the top, and what it predicts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from configs.choices import settings
from configs.section import Fraction, Layers, NonNegativeFloat, PositiveFloat, PositiveInt, Section


class ModelConfig(Section):
    """The dense part above the tables. `compare` switches `top` and keeps the rest.

    What several tops have stands here; what one top alone has is its own setting, in `options`.
    """

    top: str = Field(default="mmoe", description="A module of models/tops: `config --choices` lists them.")
    num_experts: PositiveInt = Field(default=4, description="Experts (in ple: shared experts of a level).")
    expert_layers: Layers = Field(
        default=(64, 32, 16), description="Widths of every expert, output included.", min_length=1
    )
    gate_layers: Layers = Field(
        default=(), description="Hidden widths of every gate before its softmax; none is linear."
    )
    tower_layers: Layers = Field(default=(32, 16), description="Hidden widths of every task's tower before its logit.")
    bottom_layers: Layers | None = Field(
        default=None, description="shared_bottom, single_task: widths; expert_layers if left out."
    )
    activation: Literal["relu", "gelu", "silu", "leaky_relu", "tanh"] = Field(
        default="relu", description="Between layers."
    )
    normalization: Literal["none", "layer"] = Field(default="none", description="layer: LayerNorm of the top's input.")
    dropout: Fraction = Field(default=0.0, description="Dropout after every hidden layer of experts and towers.")
    gate_dropout: Fraction = Field(
        default=0.0, description="Share of experts hidden from a gate in training; the rest is rescaled."
    )
    gate_noise: NonNegativeFloat = Field(
        default=0.0, description="Standard deviation of noise on gate logits in training."
    )
    load_balance: NonNegativeFloat = Field(default=0.0, description="Weight of the penalty on unequal expert load.")
    residual: bool = Field(default=False, description="Experts add a projection of their input to their output.")
    options: dict[str, Any] = Field(
        default={}, description="Settings of the top itself, such as num_levels of ple: `config --choices` lists them."
    )

    @model_validator(mode="before")
    @classmethod
    def _settings_of_tops(cls, values: Any) -> Any:
        """Settings that stand beside `top` belong into `options`; idle ones are dropped where they are the default."""
        if not isinstance(values, dict) or not isinstance(values.get("options", {}), dict):
            return values
        beside = [key for key in values if key not in cls.model_fields]
        of_tops = settings("models.tops") if beside else {}
        moved = dict(values)
        for key in beside:
            fields = {top: fields[key] for top, fields in of_tops.items() if key in fields}
            if fields:
                value, top = moved.pop(key), values.get("top", cls.model_fields["top"].default)
                if top in fields or all(value != field.default for field in fields.values()):
                    moved["options"] = {key: value, **moved.get("options", {})}
        return moved


class TaskConfig(Section):
    """One target: its label, loss and tower."""

    label: str | None = Field(
        default=None, description="Label column; the task's name when left out. Null masks the row."
    )
    loss: str = Field(default="bce", description="A module of models/losses: `config --choices` lists them.")
    output: Literal["auto", "sigmoid", "identity"] = Field(
        default="auto", description="From logit to prediction; auto: sigmoid for bce and focal, identity otherwise."
    )
    weight: NonNegativeFloat = Field(default=1.0, description="Factor of this task's loss; 0 only watches the task.")
    positive_weight: PositiveFloat = Field(default=1.0, description="Factor of rows whose label is 1.")
    weight_column: str | None = Field(default=None, description="Column that multiplies this task's loss of a row.")
    reweight: dict[str, dict[str, Any]] = Field(
        default={},
        description="Rules that weigh rows in training, modules of trainer/data/columns/reweighting with their "
        "settings: by_label (positives by another label's value), time_decay (old rows less). Factors multiply.",
    )
    tower_layers: Layers | None = Field(default=None, description="In place of model.tower_layers.")
    tower_features: tuple[str, ...] = Field(
        default=(),
        description="Features that also enter a shallow tower of this task's own, whose logit is added: the position.",
    )
    options: dict[str, Any] = Field(
        default={}, description="Settings of the loss itself, such as delta of huber: `config --choices` lists them."
    )
    parent: str | None = Field(
        default=None, description="Task whose event must come first: the click of a purchase. Both labels on all rows."
    )
    relation: Literal["esmm", "aitm"] = Field(
        default="esmm",
        description="To the parent. esmm: the tower predicts this event given the parent's, and the prediction is the "
        "product with the parent's; aitm: the parent's tower passes on what it knows, and order_penalty applies.",
    )
    order_penalty: NonNegativeFloat = Field(
        default=0.6, description="aitm: price of predicting this event more probable than its parent; 0 allows it."
    )
