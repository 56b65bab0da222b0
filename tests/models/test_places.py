"""A top that has grown computes what it computed before: blocks of weights are found by feature, expert and task."""

from typing import Any

import pytest
import torch

from configs.schema import Config
from models.build import top_of
from models.places import blocks_of

SMALL: dict[str, Any] = {"num_experts": 2, "expert_layers": [6, 4], "tower_layers": [5]}
TOPS: dict[str, dict[str, Any]] = {
    "mmoe": SMALL,
    "mmoe, deep gates, residual": SMALL | {"gate_layers": [3], "residual": True},
    "moe": SMALL | {"top": "moe"},
    "shared_bottom": SMALL | {"top": "shared_bottom"},
    "single_task": SMALL | {"top": "single_task"},
    "ple, one level": SMALL | {"top": "ple", "options": {"num_levels": 1, "num_task_experts": 2}, "residual": True},
    "dlrm, dot": SMALL | {"top": "dlrm", "options": {"bottom_layers": [6, 4], "interaction": "dot"}},
    "dlrm, cross": SMALL
    | {"top": "dlrm", "options": {"bottom_layers": [6, 4], "interaction": "cross", "cross_layers": 2, "cross_rank": 3}},
}
TASKS: dict[str, Any] = {"click": {}, "like": {"tower_layers": [3]}, "buy": {"tower_features": ["age"]}}


def config(model: dict[str, Any], tasks: dict[str, Any], *, sparse: list[str], dense: list[str]) -> Config:
    return Config.model_validate(
        {
            "data": {"root": "unused"},
            "features": {**{name: {"table": name} for name in sparse}, **{name: {"width": 2} for name in dense}},
            "tables": {name: {"num_embeddings": 9, "embedding_dim": 4} for name in sparse},
            "model": model,
            "tasks": tasks,
            "training": {"run_dir": "unused"},
        }
    )


def grown(model: dict[str, Any], then: dict[str, Any], now: dict[str, Any], **features: list[str]) -> tuple[Any, Any]:
    """A config and one with more features: (top, config) of both, the second with the blocks of the first."""
    old = config(model, then, sparse=["user", "item"], dense=["age"])
    new = config(model, now, **features)
    one, other = top_of(old), top_of(new)
    known, values = blocks_of(old), one.state_dict()
    for block, part in blocks_of(new).items():
        if block in known:
            source = known[block]
            other.state_dict()[part.weight][part.slices].copy_(values[source.weight][source.slices])
    return (one.eval(), old), (other.eval(), new)


def inputs(old: Config, new: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """Random numbers of the features that are known; 0 of new ones."""
    x = torch.randn(7, old.input_layout.width)
    wide = torch.zeros(7, new.input_layout.width)
    for feature, (start, end) in old.input_layout.spans.items():
        first, last = new.input_layout.spans[feature]
        wide[:, first:last] = x[:, start:end]
    return x, wide


@pytest.mark.parametrize("name", TOPS)
def test_what_is_known_of_a_larger_top_computes_the_same(name: str) -> None:
    now = {"new": {"tower_layers": [3]}, "buy": TASKS["buy"], "click": {}, "like": TASKS["like"]}
    (one, old), (other, new) = grown(TOPS[name], TASKS, now, sparse=["sound", "item", "user"], dense=["speed", "age"])
    x, wide = inputs(old, new)
    logits, more = one(x)[0], other(wide)[0]
    for task in TASKS:
        known, found = list(TASKS).index(task), list(now).index(task)
        assert torch.allclose(more[:, found], logits[:, known], atol=1e-6), task


def test_a_ple_of_two_levels_keeps_its_streams_when_features_come() -> None:
    model = SMALL | {"top": "ple", "options": {"num_levels": 2}, "gate_layers": [3]}
    (one, old), (other, new) = grown(model, TASKS, TASKS, sparse=["user", "sound", "item"], dense=["age"])
    x, wide = inputs(old, new)
    assert torch.allclose(other(wide)[0], one(x)[0], atol=1e-6)


def test_all_of_a_ple_of_two_levels_is_found_but_what_a_new_task_brings() -> None:
    """Its shared gates weigh the experts of the new task too, so that it does not compute the same."""
    model = SMALL | {"top": "ple", "options": {"num_levels": 3}}
    layout: dict[str, Any] = {"sparse": ["user"], "dense": ["age"]}
    then, now = (
        blocks_of(config(model, tasks, **layout)) for tasks in ({"a": {}, "b": {}}, {"b": {}, "c": {}, "a": {}})
    )
    assert then.keys() < now.keys()
    assert all("c" in str(block) for block in now.keys() - then.keys())


def test_towers_of_a_funnel_are_found_by_their_tasks() -> None:
    funnel = {"click": {}, "buy": {"parent": "click", "relation": "aitm"}}
    now = {"new": {"parent": "click", "relation": "aitm"}, **funnel}
    (one, old), (other, new) = grown(SMALL, funnel, now, sparse=["user", "item"], dense=["age"])
    x, wide = inputs(old, new)
    assert torch.allclose(other(wide)[0][:, 1:], one(x)[0], atol=1e-6)


def test_more_experts_are_new_and_the_known_ones_are_found() -> None:
    layout: dict[str, Any] = {"sparse": ["user"], "dense": ["age"]}
    then, now = (blocks_of(config(SMALL | {"num_experts": n}, TASKS, **layout)) for n in (2, 3))
    assert then.keys() < now.keys()
    assert all("('expert', 2)" in str(block) for block in now.keys() - then.keys())


def test_a_width_changes_blocks_and_not_their_names() -> None:
    layout: dict[str, Any] = {"sparse": ["user"], "dense": ["age"]}
    then, now = (blocks_of(config(SMALL | {"expert_layers": [w, 4]}, TASKS, **layout)) for w in (6, 8))
    assert then.keys() == now.keys()
    assert then != now
